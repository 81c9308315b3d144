"""Every method of the package and what it claims, in one table.

The command line lists it, the README prints it, and the tests hold each method to its line.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxmtl._base import Balancer
from jaxmtl._typing import Array
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
from jaxmtl.losses.uncertainty import uncertainty


class Method(NamedTuple):
    """A method's line in the table.

    Attributes:
      summary: its weights, in a few words.
      reference: where it comes from.
      make: ``(num_tasks, key) -> Balancer`` with the defaults, or with stand-ins (ones) where the
        user's own numbers are required.
      degree: k in A(c J) = c^k A(J) at the first step.
      identical: the length of the update on T identical unit gradients and unit losses, at the
        first step, as a function of T.
      descends_all: whether the update conflicts with no task.
      any_order: whether permuting the tasks permutes the weights.
    """

    summary: str
    reference: str
    make: Callable[[int, Array], Balancer]
    degree: float
    identical: Callable[[int], float]
    descends_all: bool = False
    any_order: bool = True


def one(num_tasks: int) -> float:
    """The length of a mean of identical unit gradients."""
    del num_tasks
    return 1.0


METHODS: dict[str, Method] = {
    "equal": Method("1/T each", "baseline", lambda t, key: equal(num_tasks=t), 1, one),
    "static": Method(
        "the user's constants", "baseline", lambda t, key: static([1.0] * t), 1, float
    ),
    "initial_loss": Method("1 / first loss", "Su 2022", lambda t, key: initial_loss(t), 1, float),
    "prior_loss": Method(
        "1 / loss of the best constant output",
        "Su 2022",
        lambda t, key: prior_loss([1.0] * t),
        1,
        float,
    ),
    "real_time_loss": Method(
        "1 / present loss", "Su 2022", lambda t, key: real_time_loss(num_tasks=t), 1, float
    ),
    "uncertainty": Method(
        "1 / learned variance", "Kendall 2018", lambda t, key: uncertainty(t), 1, lambda t: t / 2
    ),
    "gradnorm": Method(
        "learned: equal norms, slow tasks more",
        "Chen 2018",
        lambda t, key: gradnorm(t),
        1,
        float,
    ),
    "normalize": Method(
        "1 / gradient norm",
        "direct form of Chen 2018",
        lambda t, key: normalize(num_tasks=t),
        0,
        float,
    ),
    "pcgrad": Method(
        "projections off conflicting gradients",
        "Yu 2020",
        lambda t, key: pcgrad(key, num_tasks=t),
        1,
        float,
        any_order=False,
    ),
    "mgda": Method(
        "shortest convex combination",
        "Sener & Koltun 2018",
        lambda t, key: mgda(num_tasks=t),
        1,
        one,
        descends_all=True,
    ),
    "gls": Method(
        "gradient of the geometric mean", "Chennupati 2019", lambda t, key: gls(num_tasks=t), 1, one
    ),
    "dwa": Method("slower losses more", "Liu 2019", lambda t, key: dwa(t, window=10), 1, float),
    "rlw": Method(
        "random", "Lin 2022", lambda t, key: rlw(key, num_tasks=t), 1, one, any_order=False
    ),
    "imtl_l": Method(
        "learned: every weighted loss is 1", "Liu 2021", lambda t, key: imtl_l(t), 1, float
    ),
    "upgrad": Method(
        "each gradient projected on the dual cone",
        "Quinton & Rey 2024",
        lambda t, key: upgrad(num_tasks=t),
        1,
        one,
        descends_all=True,
    ),
    "dualproj": Method(
        "the mean projected on the dual cone",
        "Lopez-Paz & Ranzato 2017",
        lambda t, key: dualproj(num_tasks=t),
        1,
        one,
        descends_all=True,
    ),
    "cagrad": Method(
        "best worst-case progress near the mean",
        "Liu 2021",
        lambda t, key: cagrad(num_tasks=t),
        1,
        lambda t: 1.5,
    ),
    "nash_mtl": Method(
        "Nash bargaining solution",
        "Navon 2022",
        lambda t, key: nash_mtl(num_tasks=t),
        0,
        lambda t: t**0.5,
        descends_all=True,
    ),
    "fairgrad": Method(
        "alpha-fair bargain (table: alpha = 2)",
        "Ban & Ji 2024",
        lambda t, key: fairgrad(2.0, num_tasks=t),
        -1 / 3,
        lambda t: t ** (1 / 3),
        descends_all=True,
    ),
    "imtl_g": Method(
        "equal projections on every direction",
        "Liu 2021",
        lambda t, key: imtl_g(num_tasks=t),
        1,
        one,
        descends_all=True,
    ),
    "conflict_free": Method(
        "equal cosines, as long as the gradients reach",
        "Liu 2024",
        lambda t, key: conflict_free(num_tasks=t),
        1,
        float,
        descends_all=True,
    ),
}
