"""The rows of the tables on equations: methods, and the optimizer after them."""

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
    "ConFIG": _before(lambda key: conflict_free(num_tasks=3), rates=(1e-4, 5e-4)),
    "M-ConFIG": _before(lambda key: in_turn(conflict_free(num_tasks=3)), rates=(5e-4,)),
}
