"""Weights that bring a size of every task to a common one, averaged over the steps."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmtl._typing import Array
from jaxmtl.balancing._averages import follow
from jaxmtl.balancing._gram import count_present


class AveragedShares(NamedTuple):
    """What a size of each task called for, averaged over the steps that measured it.

    Attributes:
      weights: (T,) averages, zero before the first.
      steps: (T,) int32, how many steps there were.
    """

    weights: Array
    steps: Array


def init_shares(num_tasks: int, dtype: Any) -> AveragedShares:
    """Start with nothing measured."""
    return AveragedShares(jnp.zeros(num_tasks, dtype), jnp.zeros(num_tasks, jnp.int32))


def average_shares(
    state: AveragedShares, sizes: Array, active: Array, decay: float, reference: Array | None = None
) -> tuple[Array, AveragedShares]:
    """The average over the steps of a / a_i, of the tasks present whose a_i is not zero.

    Args:
      state: the averages so far.
      sizes: (T,) sizes a_i.
      active: (T,) bool.
      decay: the share of the old average.
      reference: (T,) bool, the one task whose size is a and whose weight is one; if None, a is the
        mean of a_j over the tasks present.

    Returns:
      The (T,) weights, and the new averages. A task that was never measured has the least weight of
      those that were.
    """
    aimed_at = active if reference is None else active & reference
    common = jnp.sum(jnp.where(aimed_at, sizes, 0)) / count_present(aimed_at, sizes.dtype)
    moving = active & (sizes > 0) & (common > 0)
    if reference is not None:
        moving &= ~jnp.asarray(reference)
    new = jnp.where(moving, common / jnp.where(moving, sizes, 1), 0)
    state = AveragedShares(*follow(*state, new, moving, decay))
    known = state.steps > 0
    weights = state.weights
    if reference is not None:
        known, weights = known | reference, jnp.where(reference, 1, weights)
    least = jnp.min(jnp.where(known, weights, jnp.inf))
    return jnp.where(known, weights, jnp.where(jnp.any(known), least, 1)), state
