"""Balance several losses in JAX: every method is a pure function and an optax transformation.

losses -> per-task gradients -> (Gramian, losses) -> task weights -> combined gradient -> optax

Gradients of several losses
    ``value_and_task_grads``, ``value_and_balanced_grad``, ``value_and_features_grad``,
    ``per_example``, ``shared_leaves``, ``masked_mean``, ``use_safe_cpu_compiler``
Methods whose weights come from the losses, or from nothing
    ``equal``, ``static``, ``initial_loss``, ``prior_loss``, ``real_time_loss``, ``uncertainty``
    (``uncertainty_loss``), ``imtl_l``, ``gls``, ``dwa``, ``rlw``, ``famo`` (``famo_after_step``),
    ``softadapt``, ``relobralo``, ``brdr``, ``cov_weighting``, ``softmax_inverse``, ``power_mean``,
    ``group_dro``, ``lagrangian``, ``residual_attention``, ``tchebycheff``, ``stch``, ``pbi``,
    ``cosmos``
Methods whose weights come from the gradients
    ``gradnorm``, ``normalize``, ``lr_annealing``, ``ntk`` (``ntk_traces``), ``vqgan_adaptive``,
    ``metabalance``, ``auxiliary_cosine``, ``pcd``, ``pcgrad``, ``gradvac``, ``mgda``, ``epo``,
    ``upgrad``, ``dualproj``, ``cagrad``, ``nash_mtl``, ``fairgrad``, ``imtl_g``, ``imtl``,
    ``conflict_free``, ``aligned_mtl``, ``krum``; with averages or further batches ``moco``,
    ``modo``, ``sdmgrad``, ``auto_lambda``, ``db_mtl``, ``excess_mtl``; coordinate by coordinate
    ``graddrop``, ``trimmed_mean``
Combinators, from balancer to balancer
    ``on_shared``, ``prioritise``, ``with_fixed``, ``every``, ``smooth``, ``warm_up``,
    ``in_turn``, ``skip_broken``, ``skip_rounding``, ``with_ridge``, ``report_only``; before a
    balancer in a chain ``per_task``
Comparison of methods on given losses
    ``compare`` takes a ``Problem`` and returns a ``Comparison``
Several rewards in place of losses
    ``group_advantages``
Reading a state
    ``find_state``, ``by_task``, ``scalars``, ``diagnostics``
Your own method
    ``make_balancer`` with ``Weighting``, ``Given``, ``Preparation``, ``Timing``, ``Reporting``;
    ``Balancer``, ``BalancerState``
Modules
    ``methods`` (the table of all methods, and ``methods.make``), ``pareto``, ``solvers``,
    ``theory``; loaded on first use: ``problems``, ``plotting`` and ``reproductions`` (runs of
    published tables)
"""

import importlib
from typing import Any

from jaxmtl import diagnostics, methods, pareto, solvers, theory
from jaxmtl._group_advantages import group_advantages
from jaxmtl._scalars import scalars
from jaxmtl.backward._features import value_and_features_grad
from jaxmtl.backward._per_example import per_example
from jaxmtl.backward._routes import value_and_balanced_grad
from jaxmtl.backward._shared_leaves import shared_leaves
from jaxmtl.backward._task_grads import value_and_task_grads
from jaxmtl.backward._xla_cpu import use_safe_cpu_compiler
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import (
    Balancer,
    BalancerState,
    Given,
    Preparation,
    Reporting,
    Timing,
    Weighting,
)
from jaxmtl.combinators._broken import skip_broken
from jaxmtl.combinators._fixed import with_fixed
from jaxmtl.combinators._in_turn import in_turn
from jaxmtl.combinators._over_time import every, smooth, warm_up
from jaxmtl.combinators._per_task import per_task
from jaxmtl.combinators._ridge import with_ridge
from jaxmtl.combinators._rounding import skip_rounding
from jaxmtl.combinators._shared import on_shared, prioritise
from jaxmtl.coordinates.graddrop import graddrop
from jaxmtl.coordinates.trimmed_mean import trimmed_mean
from jaxmtl.diagnostics import by_task, find_state, report_only
from jaxmtl.gradients.aligned_mtl import aligned_mtl
from jaxmtl.gradients.auto_lambda import auto_lambda
from jaxmtl.gradients.auxiliary_cosine import auxiliary_cosine
from jaxmtl.gradients.cagrad import cagrad
from jaxmtl.gradients.conflict_free import conflict_free
from jaxmtl.gradients.db_mtl import db_mtl
from jaxmtl.gradients.dualproj import dualproj
from jaxmtl.gradients.epo import epo
from jaxmtl.gradients.excess_mtl import excess_mtl
from jaxmtl.gradients.fairgrad import fairgrad
from jaxmtl.gradients.gradnorm import gradnorm
from jaxmtl.gradients.gradvac import gradvac
from jaxmtl.gradients.imtl import imtl
from jaxmtl.gradients.imtl_g import imtl_g
from jaxmtl.gradients.krum import krum
from jaxmtl.gradients.lr_annealing import lr_annealing
from jaxmtl.gradients.metabalance import metabalance
from jaxmtl.gradients.mgda import mgda
from jaxmtl.gradients.moco import moco
from jaxmtl.gradients.modo import modo
from jaxmtl.gradients.nash_mtl import nash_mtl
from jaxmtl.gradients.normalize import normalize
from jaxmtl.gradients.ntk import ntk, ntk_traces
from jaxmtl.gradients.pcd import pcd
from jaxmtl.gradients.pcgrad import pcgrad
from jaxmtl.gradients.sdmgrad import sdmgrad
from jaxmtl.gradients.upgrad import upgrad
from jaxmtl.gradients.vqgan_adaptive import vqgan_adaptive
from jaxmtl.losses._masks import masked_mean
from jaxmtl.losses.brdr import brdr
from jaxmtl.losses.cosmos import cosmos
from jaxmtl.losses.cov_weighting import cov_weighting
from jaxmtl.losses.dwa import dwa
from jaxmtl.losses.equal import equal
from jaxmtl.losses.famo import famo, famo_after_step
from jaxmtl.losses.gls import gls
from jaxmtl.losses.group_dro import group_dro
from jaxmtl.losses.imtl_l import imtl_l
from jaxmtl.losses.initial_loss import initial_loss
from jaxmtl.losses.lagrangian import lagrangian
from jaxmtl.losses.pbi import pbi
from jaxmtl.losses.power_mean import power_mean
from jaxmtl.losses.prior_loss import prior_loss
from jaxmtl.losses.real_time_loss import real_time_loss
from jaxmtl.losses.relobralo import relobralo
from jaxmtl.losses.residual_attention import residual_attention
from jaxmtl.losses.rlw import rlw
from jaxmtl.losses.softadapt import softadapt
from jaxmtl.losses.softmax_inverse import softmax_inverse
from jaxmtl.losses.static import static
from jaxmtl.losses.stch import stch
from jaxmtl.losses.tchebycheff import tchebycheff
from jaxmtl.losses.uncertainty import uncertainty, uncertainty_loss

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load on first use the parts that need more than jax and optax."""
    if name in ("plotting", "problems", "reproductions"):
        return importlib.import_module(f"jaxmtl.{name}")
    if name in ("Comparison", "Problem", "compare"):
        found = "problems" if name == "Problem" else "comparison"
        return getattr(importlib.import_module(f"jaxmtl.{found}"), name)
    raise AttributeError(f"module 'jaxmtl' has no attribute {name!r}")


__all__ = [
    "Balancer",
    "BalancerState",
    "Comparison",
    "Given",
    "Preparation",
    "Problem",
    "Reporting",
    "Timing",
    "Weighting",
    "aligned_mtl",
    "auto_lambda",
    "auxiliary_cosine",
    "brdr",
    "by_task",
    "cagrad",
    "compare",
    "conflict_free",
    "cosmos",
    "cov_weighting",
    "db_mtl",
    "diagnostics",
    "dualproj",
    "dwa",
    "epo",
    "equal",
    "every",
    "excess_mtl",
    "fairgrad",
    "famo",
    "famo_after_step",
    "find_state",
    "gls",
    "graddrop",
    "gradnorm",
    "gradvac",
    "group_advantages",
    "group_dro",
    "imtl",
    "imtl_g",
    "imtl_l",
    "in_turn",
    "initial_loss",
    "krum",
    "lagrangian",
    "lr_annealing",
    "make_balancer",
    "masked_mean",
    "metabalance",
    "methods",
    "mgda",
    "moco",
    "modo",
    "nash_mtl",
    "normalize",
    "ntk",
    "ntk_traces",
    "on_shared",
    "pareto",
    "pbi",
    "pcd",
    "pcgrad",
    "per_example",
    "per_task",
    "power_mean",
    "prior_loss",
    "prioritise",
    "real_time_loss",
    "relobralo",
    "report_only",
    "residual_attention",
    "rlw",
    "scalars",
    "sdmgrad",
    "shared_leaves",
    "skip_broken",
    "skip_rounding",
    "smooth",
    "softadapt",
    "softmax_inverse",
    "solvers",
    "static",
    "stch",
    "tchebycheff",
    "theory",
    "trimmed_mean",
    "uncertainty",
    "uncertainty_loss",
    "upgrad",
    "use_safe_cpu_compiler",
    "value_and_balanced_grad",
    "value_and_features_grad",
    "value_and_task_grads",
    "vqgan_adaptive",
    "warm_up",
    "with_fixed",
    "with_ridge",
]
