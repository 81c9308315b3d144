"""Averages over the steps at which a task was there, corrected for their start."""

from typing import Any

import jax.numpy as jnp

from jaxmtl._typing import Array
from jaxmtl.solvers.scaling import reciprocal


def started(decay: Any, steps: Array, dtype: Any) -> Array:
    """1 - decay^n, how much of an average that began at zero its n values make up; n at least 1."""
    fresh = jnp.asarray(1 - decay, dtype)
    counted = jnp.maximum(steps, 1).astype(dtype)
    # Without the digits that differences from one would lose.
    return -jnp.expm1(counted * jnp.log1p(-fresh))


def fresh_share(decay: Any, steps: Array, dtype: Any) -> Array:
    """The share (1 - decay) / (1 - decay^n) of the n-th value in a corrected average of n."""
    share = jnp.asarray(1 - decay, dtype) / started(decay, steps, dtype)
    # One for the first, which the functions of some backends miss by a rounding.
    return jnp.where(steps > 1, share, 1)


def follow(
    average: Array, steps: Array, values: Array, moving: Array, decay: Any
) -> tuple[Array, Array]:
    """Take values into the averages of the tasks that move.

    The average of n values is (1 - decay) sum_k decay^(n-k) v_k / (1 - decay^n): the first value
    alone at first, with no memory of where it started.

    Args:
      average: (T,) averages so far, zero before the first value.
      steps: (T,) int32, how many values are in them.
      values: (T,) values of this step.
      moving: (T,) bool.
      decay: the share of the old average, in the long run.

    Returns:
      The averages, and the numbers of values in them.
    """
    steps = steps + moving.astype(steps.dtype)
    share = fresh_share(decay, steps, average.dtype)
    return jnp.where(moving, average + share * (values - average), average), steps


def follow_root(root: Array, steps: Array, sizes: Array, moving: Array, decay: Any) -> Array:
    """The roots of the averaged squares, as ``follow`` averages; ``steps`` are those before it."""
    share = fresh_share(decay, steps + moving.astype(steps.dtype), root.dtype)
    # Squares of ratios, since those of the sizes may leave the range of the type.
    largest = jnp.maximum(root, sizes)
    old, new = (x * reciprocal(largest) for x in (root, sizes))
    return jnp.where(moving, largest * jnp.sqrt((1 - share) * old**2 + share * new**2), root)
