"""Averages over the steps at which a task was present, corrected for their start at zero."""

from typing import Any

import jax.numpy as jnp

from jaxmtl._typing import Array
from jaxmtl.solvers.scaling import reciprocal


def started(decay: Any, steps: Array, dtype: Any) -> Array:
    """The sum of the weights, 1 - decay^n, of an average of n values that began at zero; n >= 1."""
    fresh = jnp.asarray(1 - decay, dtype)
    counted = jnp.maximum(steps, 1).astype(dtype)
    # A difference from one would lose digits.
    return -jnp.expm1(counted * jnp.log1p(-fresh))


def fresh_share(decay: Any, steps: Array, dtype: Any) -> Array:
    """The share (1 - decay) / (1 - decay^n) of the last value in a corrected average of n."""
    share = jnp.asarray(1 - decay, dtype) / started(decay, steps, dtype)
    # Exactly one for the first value: some backends' functions miss it by a rounding error.
    return jnp.where(steps > 1, share, 1)


def follow(
    average: Array, steps: Array, values: Array, moving: Array, decay: Any
) -> tuple[Array, Array]:
    """Add the values of this step to the averages of the tasks where ``moving`` is true.

    The average of n values is (1 - decay) sum_k decay^(n-k) v_k / (1 - decay^n): the first value
    alone at first, with no memory of where it started.

    Args:
      average: (T,) averages so far, zero before the first value.
      steps: (T,) int32, the number of values in each average.
      values: (T,) values of this step.
      moving: (T,) bool.
      decay: the share of the old average, in the long run.

    Returns:
      The averages, and the number of values in each.
    """
    steps = steps + moving.astype(steps.dtype)
    share = fresh_share(decay, steps, average.dtype)
    return jnp.where(moving, average + share * (values - average), average), steps


def follow_root(root: Array, steps: Array, sizes: Array, moving: Array, decay: Any) -> Array:
    """Roots of averaged squares, averaged like ``follow``; ``steps`` are those before this step."""
    share = fresh_share(decay, steps + moving.astype(steps.dtype), root.dtype)
    # Squares of ratios, since the squares of the sizes may leave the range of the type.
    largest = jnp.maximum(root, sizes)
    old, new = (x * reciprocal(largest) for x in (root, sizes))
    return jnp.where(moving, largest * jnp.sqrt((1 - share) * old**2 + share * new**2), root)
