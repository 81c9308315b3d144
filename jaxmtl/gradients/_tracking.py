"""Running averages of each task's gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._gram import rows, solve_dtype


class Tracked(NamedTuple):
    """A running average of each task's gradient, and the number of steps in it.

    Attributes:
      average: leaves of shape (T, *leaf.shape), in float32 or better.
      seen: (T,) int32.
    """

    average: PyTree
    seen: Array


def init_tracked(params: PyTree, num_tasks: int) -> Tracked:
    """Start with empty averages."""
    return Tracked(stacked_zeros(params, num_tasks), jnp.zeros(num_tasks, jnp.int32))


def stacked_zeros(params: PyTree, num_tasks: int) -> PyTree:
    """Zeros of shape (T, *leaf.shape) for every leaf, in float32 or better, sharded as it is."""

    def zeros(leaf: Array) -> Array:
        one = jnp.zeros_like(leaf, solve_dtype([leaf]))
        return jnp.broadcast_to(one[None], (num_tasks, *one.shape))

    return jax.tree.map(zeros, params)


def track(tracked: Tracked, grads: PyTree, active: Array, decay: Any) -> Tracked:
    """y_i <- decay y_i + (1 - decay) g_i for the tasks present; y_i starts at the first gradient.

    Args:
      tracked: the averages so far.
      grads: leaves of shape (T, *leaf.shape).
      active: (T,) bool.
      decay: the share of the old value, a number or (T,) numbers.
    """
    share = jnp.where(tracked.seen > 0, decay, 0)
    share = jnp.where(active, share, 1)

    def mix(average: Array, grad: Array) -> Array:
        old = rows(share.astype(average.dtype), average)
        # Not old * average + (1 - old) * grad: an absent gradient may be NaN, and 0 * NaN is too.
        return jnp.where(old == 1, average, old * average + (1 - old) * grad.astype(average.dtype))

    average = jax.tree.map(mix, tracked.average, grads)
    return Tracked(average, tracked.seen + active.astype(tracked.seen.dtype))
