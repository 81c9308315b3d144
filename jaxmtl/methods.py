"""Every method of the package and its claims, in one table.

The command line and the site print the table, and the tests check each method against its line.
"""

import difflib
from collections.abc import Callable, Collection
from typing import NamedTuple

import jax

from jaxmtl._checks import check_num_tasks
from jaxmtl._typing import Array
from jaxmtl.balancing._base import Balancer
from jaxmtl.balancing._random_keys import typed_key
from jaxmtl.coordinates.graddrop import graddrop
from jaxmtl.coordinates.trimmed_mean import trimmed_mean
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
from jaxmtl.gradients.ntk import ntk
from jaxmtl.gradients.pcd import pcd
from jaxmtl.gradients.pcgrad import pcgrad
from jaxmtl.gradients.sdmgrad import sdmgrad
from jaxmtl.gradients.upgrad import upgrad
from jaxmtl.gradients.vqgan_adaptive import vqgan_adaptive
from jaxmtl.losses.brdr import brdr
from jaxmtl.losses.cosmos import cosmos
from jaxmtl.losses.cov_weighting import cov_weighting
from jaxmtl.losses.dwa import dwa
from jaxmtl.losses.equal import equal
from jaxmtl.losses.famo import famo
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
from jaxmtl.losses.uncertainty import uncertainty


class Method(NamedTuple):
    """The line of a method in the table.

    Attributes:
      summary: its weights or its update, in a few words.
      reference: its paper.
      make: ``(num_tasks, key) -> Balancer`` with the defaults, or with placeholders (ones) for
        numbers that only the user can give.
      degree: k in A(c J) = c^k A(J) at the first step.
      identical: the length of the update on T identical unit gradients and unit losses, at the
        first step, as a function of T.
      descends_all: whether the update conflicts with no task.
      any_order: whether permuting the tasks permutes the weights.
      non_negative: whether no weight is ever below zero.
      rows: the effect of scaling single gradients by positive numbers, the same at all steps: the
        update is "linear" in them, or keeps its "direction", or both, or stays the "same"; "" if
        nothing is claimed.
      combines: whether the update is, at every step, the sum of the step's own gradients times the
        task weights.
      needs: further arguments that ``update`` requires.
      any_sign: whether the losses may be negative and cross zero: "yes" (also if the method does
        not read them), "no", or the argument that makes it possible: "lower_bounds", "ideal".
      holds: whether weights may be held, as by ``every``, that were computed when a task's loss and
        gradient were rounding errors: its weight is at most 10^4 times the largest of the others.
    """

    summary: str
    reference: str
    make: Callable[[int, Array], Balancer]
    degree: float = 1
    identical: Callable[[int], float] = lambda num_tasks: 1.0
    descends_all: bool = False
    any_order: bool = True
    non_negative: bool = True
    rows: str = ""
    combines: bool = True
    needs: tuple[str, ...] = ()
    any_sign: str = "yes"
    holds: bool = True


def make(name: str, num_tasks: int, key: Array | int | None = None) -> Balancer:
    """Make a balancer from the name of its method, with the defaults; for loops over methods.

    Args:
      name: a name in ``METHODS``, such as "mgda".
      num_tasks: T.
      key: random key or seed, for methods with random numbers; seed 0 if None.

    Returns:
      The balancer. Numbers that only the user can give (such as the weights of ``static``) are
      ones.

    Raises:
      ValueError: if there is no such method, or ``num_tasks`` is not a positive int.

    Examples:
      >>> from jaxmtl import methods
      >>> [methods.make(name, num_tasks=3) for name in ("mgda", "gls")]
      [mgda(num_tasks=3), gls(num_tasks=3)]
    """
    method = _find(name)
    num_tasks = check_num_tasks(num_tasks)
    return method.make(num_tasks, typed_key(0 if key is None else key))


def _find(name: str) -> Method:
    """The line of a method; an error with suggestions if there is none."""
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"There is no method {name!r}{suggestion(name, METHODS, 'method')}.")
    return METHODS[name]


def nearest(name: str, names: Collection[str]) -> list[str]:
    """The names the user may have meant: the same in small letters, or up to three similar ones."""
    plain = str(name).lower().replace("-", "_")
    return [plain] if plain in names else difflib.get_close_matches(plain, names)


def suggestion(name: str, names: Collection[str], kind: str) -> str:
    """The rest of a sentence about an unknown name: the nearest known names, and all names."""
    near = nearest(name, names)
    meant = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{meant} The {kind}s are {', '.join(names)}"


METHODS: dict[str, Method] = {
    # From the losses, or from nothing.
    "equal": Method(
        "1/T for each task",
        "baseline",
        lambda t, key: equal(num_tasks=t),
        rows="linear",
    ),
    "static": Method(
        "constants or schedules of the user's choice",
        "baseline",
        lambda t, key: static([1.0] * t),
        identical=float,
        rows="linear",
    ),
    "initial_loss": Method(
        "1 / first loss",
        "Su 2022",
        lambda t, key: initial_loss(t),
        identical=float,
        rows="linear",
        any_sign="lower_bounds",
        holds=False,
    ),
    "prior_loss": Method(
        "1 / loss of the best constant prediction",
        "Su 2022",
        lambda t, key: prior_loss([1.0] * t),
        identical=float,
        rows="linear",
    ),
    "real_time_loss": Method(
        "1 / current loss",
        "Su 2022",
        lambda t, key: real_time_loss(num_tasks=t),
        identical=float,
        rows="linear",
        any_sign="lower_bounds",
        holds=False,
    ),
    "uncertainty": Method(
        "1 / learned variance",
        "Kendall 2018",
        lambda t, key: uncertainty(t),
        identical=lambda t: t / 2,
        rows="linear",
        any_sign="lower_bounds",
    ),
    "imtl_l": Method(
        "learned: every weighted loss becomes 1",
        "Liu 2021",
        lambda t, key: imtl_l(t),
        identical=float,
        rows="linear",
        any_sign="lower_bounds",
    ),
    "gls": Method(
        "gradient of the losses' geometric mean",
        "Chennupati 2019",
        lambda t, key: gls(num_tasks=t),
        rows="linear",
        any_sign="lower_bounds",
        holds=False,
    ),
    "dwa": Method(
        "larger for losses that fall more slowly",
        "Liu 2019",
        lambda t, key: dwa(t, window=10),
        identical=float,
        rows="linear",
        any_sign="lower_bounds",
    ),
    "rlw": Method(
        "random at every step",
        "Lin 2022",
        lambda t, key: rlw(key, num_tasks=t),
        any_order=False,
        rows="linear",
    ),
    "famo": Method(
        "learned: all log losses fall at the same rate",
        "Liu 2023",
        lambda t, key: famo(t),
        rows="linear",
        any_sign="lower_bounds",
        holds=False,
    ),
    "softadapt": Method(
        "larger for losses that rise",
        "Heydari 2019",
        lambda t, key: softadapt(t),
        rows="linear",
    ),
    "relobralo": Method(
        "larger for losses that fall more slowly, with random look-backs",
        "Bischof & Kraus 2021",
        lambda t, key: relobralo(t, key),
        identical=float,
        rows="linear",
        any_sign="lower_bounds",
    ),
    "brdr": Method(
        "larger for losses that decay more slowly",
        "Chen 2024",
        lambda t, key: brdr(t),
        identical=float,
        rows="linear",
        any_sign="lower_bounds",
    ),
    "cov_weighting": Method(
        "larger for losses that vary more",
        "Groenendijk 2021",
        lambda t, key: cov_weighting(t),
        rows="linear",
        any_sign="lower_bounds",
    ),
    "softmax_inverse": Method(
        "softmax(1 / loss)",
        "Kirchdorfer 2024",
        lambda t, key: softmax_inverse(num_tasks=t),
        rows="linear",
        any_sign="lower_bounds",
        holds=False,
    ),
    "power_mean": Method(
        "a power of the loss",
        "Li 2020",
        lambda t, key: power_mean(num_tasks=t),
        rows="linear",
        any_sign="lower_bounds",
    ),
    "group_dro": Method(
        "multiplied by exp(rate * loss) at each step",
        "Sagawa 2020",
        lambda t, key: group_dro(t),
        rows="linear",
    ),
    "lagrangian": Method(
        "1 for objectives, learned multipliers for bounds (table: one objective)",
        "Platt & Barr 1987",
        lambda t, key: lagrangian([None] + [1.0] * (t - 1)),
        any_order=False,
        rows="linear",
    ),
    "residual_attention": Method(
        "squared averages of the residuals, for points",
        "Anagnostopoulos 2024",
        lambda t, key: residual_attention(t),
        identical=lambda t: 1e-4 * t,
        rows="linear",
        any_sign="no",
    ),
    "tchebycheff": Method(
        "the largest loss gets all the weight",
        "Bowman 1976",
        lambda t, key: tchebycheff(num_tasks=t),
        identical=lambda t: 1 / t,
        rows="linear",
    ),
    "stch": Method(
        "the largest losses get the most weight, smoothly",
        "Lin 2024",
        lambda t, key: stch(num_tasks=t),
        identical=lambda t: 1 / t,
        rows="linear",
    ),
    "pbi": Method(
        "gradient of the distances along and from a ray of losses",
        "Zhang & Li 2007",
        lambda t, key: pbi(num_tasks=t),
        identical=lambda t: t**0.5,
        non_negative=False,
        rows="linear",
        any_sign="ideal",
    ),
    "cosmos": Method(
        "weighted sum, with the losses held to a direction",
        "Ruchte & Grabocka 2021",
        lambda t, key: cosmos(num_tasks=t),
        non_negative=False,
        rows="linear",
        any_sign="ideal",
    ),
    "ntk": Method(
        "averaged: every loss falls at the same rate",
        "Wang 2022",
        lambda t, key: ntk(t),
        identical=float,
        needs=("ntk_traces",),
        rows="linear",
    ),
    # From the inner products of the gradients.
    "normalize": Method(
        "1 / gradient norm",
        "direct form of Chen 2018",
        lambda t, key: normalize(num_tasks=t),
        degree=0,
        identical=float,
        rows="same",
    ),
    "gradnorm": Method(
        "learned: equal gradient norms, larger for slow tasks",
        "Chen 2018",
        lambda t, key: gradnorm(t),
        identical=float,
        any_sign="lower_bounds",
    ),
    "lr_annealing": Method(
        "averaged: equal gradient norms",
        "Wang 2021",
        lambda t, key: lr_annealing(t),
        identical=float,
        rows="linear",
    ),
    "metabalance": Method(
        "auxiliary gradients scaled towards the main one's length",
        "He 2022",
        lambda t, key: metabalance(t, main=0),
        identical=float,
        any_order=False,
        rows="linear",
    ),
    "auxiliary_cosine": Method(
        "1 for auxiliaries that agree with the main task, else 0",
        "Du 2018",
        lambda t, key: auxiliary_cosine(t, main=0),
        identical=float,
        any_order=False,
        rows="linear",
    ),
    "pcd": Method(
        "main gradient, with a minimum progress for each other task",
        "Varam & Alhajri 2026",
        lambda t, key: pcd(t, main=0),
        any_order=False,
        rows="linear and direction",
    ),
    "vqgan_adaptive": Method(
        "adversarial gradients scaled to the others' length",
        "Esser 2021",
        lambda t, key: vqgan_adaptive([False] + [True] * (t - 1)),
        identical=lambda t: 1 + 0.8 * (t - 1),
        any_order=False,
    ),
    "pcgrad": Method(
        "each gradient projected off those it conflicts with",
        "Yu 2020",
        lambda t, key: pcgrad(key, num_tasks=t),
        identical=float,
        any_order=False,
        rows="linear",
    ),
    "gradvac": Method(
        "each gradient turned to its usual cosines with the others",
        "Wang 2021",
        lambda t, key: gradvac(t, key),
        identical=float,
        any_order=False,
        rows="linear",
    ),
    "mgda": Method(
        "shortest convex combination of the gradients",
        "Sener & Koltun 2018",
        lambda t, key: mgda(num_tasks=t),
        descends_all=True,
    ),
    "epo": Method(
        "first to equal preferred losses, then down",
        "Mahapatra & Rajan 2020",
        lambda t, key: epo(num_tasks=t),
        any_sign="lower_bounds",
    ),
    "upgrad": Method(
        "each gradient projected on the dual cone, then summed",
        "Quinton & Rey 2024",
        lambda t, key: upgrad(num_tasks=t),
        descends_all=True,
        rows="linear",
    ),
    "dualproj": Method(
        "mean gradient projected on the dual cone",
        "Lopez-Paz & Ranzato 2017",
        lambda t, key: dualproj(num_tasks=t),
        descends_all=True,
    ),
    "cagrad": Method(
        "best worst-case progress near the mean gradient",
        "Liu 2021",
        lambda t, key: cagrad(num_tasks=t),
        identical=lambda t: 1.5,
    ),
    "nash_mtl": Method(
        "Nash bargaining solution",
        "Navon 2022",
        lambda t, key: nash_mtl(num_tasks=t),
        degree=0,
        identical=lambda t: t**0.5,
        descends_all=True,
        rows="same",
    ),
    "fairgrad": Method(
        "alpha-fair bargaining solution (table: alpha = 2)",
        "Ban & Ji 2024",
        lambda t, key: fairgrad(2.0, num_tasks=t),
        degree=-1 / 3,
        identical=lambda t: t ** (1 / 3),
        descends_all=True,
    ),
    "imtl_g": Method(
        "equal projections on every gradient's direction",
        "Liu 2021",
        lambda t, key: imtl_g(num_tasks=t),
        descends_all=True,
        non_negative=False,
        rows="direction",
    ),
    "imtl": Method(
        "IMTL-L, followed by IMTL-G",
        "Liu 2021",
        lambda t, key: imtl(t),
        descends_all=True,
        non_negative=False,
        rows="direction",
        any_sign="lower_bounds",
    ),
    "conflict_free": Method(
        "ConFIG: equal cosines with all gradients, length of their projections",
        "Liu 2024",
        lambda t, key: conflict_free(num_tasks=t),
        identical=float,
        descends_all=True,
        non_negative=False,
        rows="linear and direction",
    ),
    "aligned_mtl": Method(
        "nearest orthogonal gradients of equal length",
        "Senushkin 2023",
        lambda t, key: aligned_mtl(num_tasks=t),
        non_negative=False,
    ),
    "krum": Method(
        "mean of gradients with near neighbours (table: none byzantine)",
        "Blanchard 2017",
        lambda t, key: krum(0, num_tasks=t),
    ),
    # With averages of the gradients, or further batches.
    "moco": Method(
        "tracked gradients, learned min-norm weights",
        "Fernando 2023",
        lambda t, key: moco(t),
        combines=False,
    ),
    "modo": Method(
        "learned min-norm weights, from further batches",
        "Chen 2023",
        lambda t, key: modo(t),
        needs=("independent_grads",),
    ),
    "sdmgrad": Method(
        "min-norm direction pulled to a preference, from further batches",
        "Xiao 2023",
        lambda t, key: sdmgrad(t),
        needs=("independent_grads",),
    ),
    "auto_lambda": Method(
        "learned: larger for auxiliaries that help the main task, from further batches",
        "Liu 2022",
        lambda t, key: auto_lambda(t, main=0),
        identical=lambda t: 1 + 0.1 * (t - 1),
        any_order=False,
        needs=("independent_grads",),
    ),
    "db_mtl": Method(
        "tracked gradients of the log losses, scaled to the longest",
        "Lin 2023",
        lambda t, key: db_mtl(t),
        identical=float,
        rows="direction",
        combines=False,
        any_sign="lower_bounds",
    ),
    "excess_mtl": Method(
        "learned: larger for tasks with more excess risk",
        "He 2024",
        lambda t, key: excess_mtl(t),
        rows="linear",
    ),
    # Coordinate by coordinate.
    "graddrop": Method(
        "at each coordinate, the gradients of one sign",
        "Chen 2020",
        lambda t, key: graddrop(key, num_tasks=t),
        identical=float,
        combines=False,
    ),
    "trimmed_mean": Method(
        "at each coordinate, the mean without extremes (table: one at either end)",
        "Yin 2018",
        lambda t, key: trimmed_mean(min(1, (t - 1) // 2), num_tasks=t),
        combines=False,
    ),
}


def describe(name: str) -> tuple[str, ...]:
    """Return the line of a method in the site's table.

    Returns:
      The weights, the inputs, the backward passes of a step, the degree, the length of the update
      on four identical unit gradients, the promises, whether losses may have any sign, whether the
      tasks may be points, whether weights may be held, and the reference.
    """
    method = _find(name)
    balancer = method.make(4, jax.random.key(0))
    # The table shows the further batches by the name of their argument.
    reads = sorted(balancer.weighting.reads - {"cross_gramian"}, reverse=True)
    if balancer.preparation is not None and not reads:
        reads = ["gradients"]
    passes = "T" if {"gramian", "gradients"} & set(reads) else "1"
    if "independent_grads" in method.needs:
        passes = "3T"
    promises = {
        "no conflict": method.descends_all,
        "weights >= 0": method.non_negative,
        "any order": method.any_order,
        f"rows: {method.rows}": bool(method.rows),
    }
    return (
        method.summary,
        " and ".join([*reads, *method.needs]) or "nothing",
        passes,
        f"{method.degree:.4g}",
        f"{method.identical(4):.4g}",
        ", ".join(promise for promise, held in promises.items() if held),
        method.any_sign if method.any_sign in ("yes", "no") else f"with `{method.any_sign}`",
        "yes" if passes == "1" else "no",
        "yes" if method.holds else "no",
        method.reference,
    )
