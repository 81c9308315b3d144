"""Balance several losses in JAX: every method a pure function and an optax transformation.

losses -> per-task gradients -> (Gramian, losses) -> task weights -> combined gradient -> optax
"""

from jaxmtl import solvers, theory
from jaxmtl._balancer import make_balancer
from jaxmtl._base import Balancer, BalancerState, Given, Weighting
from jaxmtl._combinators import on_shared, prioritise
from jaxmtl._task_grads import value_and_balanced_grad, value_and_task_grads
from jaxmtl._xla_cpu import use_safe_cpu_compiler
from jaxmtl.gradients.cagrad import cagrad
from jaxmtl.gradients.conflict_free import conflict_free
from jaxmtl.gradients.dualproj import dualproj
from jaxmtl.gradients.fairgrad import fairgrad
from jaxmtl.gradients.gradnorm import gradnorm
from jaxmtl.gradients.imtl_g import imtl_g
from jaxmtl.gradients.mgda import mgda
from jaxmtl.gradients.nash_mtl import nash_mtl
from jaxmtl.gradients.normalize import normalize
from jaxmtl.gradients.pcgrad import pcgrad
from jaxmtl.gradients.upgrad import upgrad
from jaxmtl.losses.dwa import dwa
from jaxmtl.losses.equal import equal
from jaxmtl.losses.gls import gls
from jaxmtl.losses.imtl_l import imtl_l
from jaxmtl.losses.initial_loss import initial_loss
from jaxmtl.losses.prior_loss import prior_loss
from jaxmtl.losses.real_time_loss import real_time_loss
from jaxmtl.losses.rlw import rlw
from jaxmtl.losses.static import static
from jaxmtl.losses.uncertainty import uncertainty, uncertainty_loss

__version__ = "0.1.0"

__all__ = [
    "Balancer",
    "BalancerState",
    "Given",
    "Weighting",
    "cagrad",
    "conflict_free",
    "dualproj",
    "dwa",
    "equal",
    "fairgrad",
    "gls",
    "gradnorm",
    "imtl_g",
    "imtl_l",
    "initial_loss",
    "make_balancer",
    "mgda",
    "nash_mtl",
    "normalize",
    "on_shared",
    "pcgrad",
    "prior_loss",
    "prioritise",
    "real_time_loss",
    "rlw",
    "solvers",
    "static",
    "theory",
    "uncertainty",
    "uncertainty_loss",
    "upgrad",
    "use_safe_cpu_compiler",
    "value_and_balanced_grad",
    "value_and_task_grads",
]
