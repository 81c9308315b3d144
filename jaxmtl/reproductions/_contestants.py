"""The rows of the tables on equations, with the published numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._base import Balancer
from jaxmtl.combinators._in_turn import in_turn
from jaxmtl.combinators._per_task import per_task
from jaxmtl.gradients.conflict_free import conflict_free
from jaxmtl.gradients.lr_annealing import lr_annealing
from jaxmtl.gradients.ntk import ntk
from jaxmtl.losses.equal import equal
from jaxmtl.losses.static import static
from jaxmtl.methods import make as make_method

RATIOS = (0.1, 3.0, 10.0, 30.0, 100.0, 300.0)


class Contestant(NamedTuple):
    """One row of a table.

    Attributes:
      make: ``(key, optimizer) -> transformation`` of stacked gradients, the optimizer in it.
      traces: whether it is given ``ntk_traces``, anew after every thousand steps.
      rates: the learning rates that it is run with; all of the experiment if empty.
    """

    make: Callable[[Array, optax.GradientTransformation], optax.GradientTransformation]
    traces: bool = False
    rates: tuple[float, ...] = ()


def _before(
    balancer: Callable[[Array], Balancer], *, traces: bool = False, rates: tuple[float, ...] = ()
) -> Contestant:
    return Contestant(lambda key, optimizer: optax.chain(balancer(key), optimizer), traces, rates)


def _by_name(name: str, num_tasks: int) -> Contestant:
    return _before(lambda key: make_method(name, num_tasks, key))


def _fixed(ratio: float) -> Contestant:
    return _before(lambda key: static([ratio, 1.0]))


def annealed_as_coded() -> optax.GradientTransformationExtraArgs:
    """Learning-rate annealing as the code published with it has it; boundary first, then residual.

    At every tenth step w <- 0.9 w + 0.1 max |g_residual| / mean |w g_boundary|, the mean over each
    kernel's entries and then over the kernels. The gradient in the denominator is weighted already,
    so that w comes to rest at the *square root* of max |g_residual| / mean |g_boundary|; the paper,
    and ``lr_annealing``, divide by the gradient itself.
    """

    def init(params: PyTree) -> tuple[Array, Array]:
        return jnp.ones(()), jnp.int32(0)

    def update(
        grads: PyTree, state: tuple[Array, Array], params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, tuple[Array, Array]]:
        weight, count = state
        kernels = [jnp.abs(leaf) for leaf in jax.tree.leaves(grads) if leaf.ndim == 3]
        largest = jnp.max(jnp.stack([jnp.max(kernel[1]) for kernel in kernels]))
        mean = jnp.mean(jnp.stack([jnp.mean(kernel[0]) for kernel in kernels]))
        updates = jax.tree.map(lambda leaf: weight * leaf[0] + leaf[1], grads)
        new = 0.9 * weight + 0.1 * largest / (weight * mean)
        return updates, (jnp.where(count % 10 == 0, new, weight), count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


# The tasks, in their order, are "boundary" and "residual". First those of the paper.
DCGD = {
    "equal": _by_name("equal", 2),
    "lr_annealing": _before(lambda key: lr_annealing(2, decay=0.9, reference="residual")),
    "ntk": _before(lambda key: ntk(2, decay=0.0), traces=True),
    "pcgrad": _by_name("pcgrad", 2),
    "mgda": _by_name("mgda", 2),
    "cagrad": _by_name("cagrad", 2),
    "aligned_mtl": _by_name("aligned_mtl", 2),
    "MultiAdam": Contestant(lambda key, optimizer: optax.chain(per_task(optimizer, 2), equal())),
    "conflict_free": _by_name("conflict_free", 2),
    "lr_annealing as coded": Contestant(
        lambda key, optimizer: optax.chain(annealed_as_coded(), optimizer)
    ),
    "lr_annealing by norms": _by_name("lr_annealing", 2),
    "normalize": _by_name("normalize", 2),
    "real_time_loss": _by_name("real_time_loss", 2),
    "upgrad": _by_name("upgrad", 2),
    "nash_mtl": _by_name("nash_mtl", 2),
    "brdr": _by_name("brdr", 2),
} | {f"static {ratio:g}:1": _fixed(ratio) for ratio in RATIOS}

CONFIG = {
    "Adam": _before(lambda key: equal(num_tasks=3), rates=(1e-4, 5e-4)),
    "ConFIG": _before(lambda key: conflict_free(num_tasks=3), rates=(1e-4,)),
    "M-ConFIG": _before(lambda key: in_turn(conflict_free(num_tasks=3)), rates=(5e-4,)),
}

# problem -> row -> mean and standard deviation, None where there was one seed or none was given;
# ConFIG's rows are known by the learning rate too.
PUBLISHED = {
    "helmholtz": {
        "equal": (0.0609, 0.0231),
        "lr_annealing": (0.0066, 0.0025),
        "ntk": (0.0358, None),
        "pcgrad": (0.0109, 0.0031),
        "mgda": (0.7590, None),
        "cagrad": (0.0735, None),
        "aligned_mtl": (0.6570, None),
        "MultiAdam": (0.0211, None),
        "conflict_free": (0.0029, 0.0005),
    },
    "klein_gordon": {
        "equal": (0.0792, 0.0386),
        "lr_annealing": (0.0069, 0.0037),
        "ntk": (0.0223, None),
        "pcgrad": (0.0286, 0.0064),
        "mgda": (0.6690, None),
        "cagrad": (0.1850, None),
        "aligned_mtl": (0.5571, None),
        "MultiAdam": (0.0228, None),
        "conflict_free": (0.0069, 0.0027),
    },
    "burgers": {
        ("Adam", 1e-4): (0.0310, None),
        ("ConFIG", 1e-4): (0.00638, None),
        ("M-ConFIG", 5e-4): (0.00186, None),
    },
    # Not an error but delta-m in percent, as FAMO's table has it.
    "qm9": {
        "equal": (177.6, None),
        "real_time_loss": (77.8, None),
        "rlw": (203.8, None),
        "dwa": (175.3, None),
        "uncertainty": (108.0, None),
        "mgda": (120.5, None),
        "pcgrad": (125.7, None),
        "cagrad": (112.8, None),
        "imtl_g": (77.2, None),
        "nash_mtl": (62.0, None),
        "famo": (58.5, None),
    },
}
