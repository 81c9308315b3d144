"""Running averages that are corrected for their start."""

from typing import Any

import jax.numpy as jnp

from jaxmtl._typing import Array


def started(decay: Any, steps: Array, dtype: Any) -> Array:
    """1 - decay^n, how much of an average that began at zero its n values make up.

    Args:
      decay: the share of the old average, from 0 to less than 1.
      steps: n; below one as one.
      dtype: the type of the average.
    """
    fresh = jnp.asarray(1 - decay, dtype)
    counted = jnp.maximum(steps, 1).astype(dtype)
    # Without the digits that differences from one would lose.
    return -jnp.expm1(counted * jnp.log1p(-fresh))


def fresh_share(decay: Any, steps: Array, dtype: Any) -> Array:
    """The share of the newest of n values, (1 - decay) / (1 - decay^n), in a corrected average.

    a <- a + share (x - a) is what a <- decay a + (1 - decay) x, from zero, over 1 - decay^n comes
    to: at the first value it is that value.

    Args:
      decay: the share of the old average, from 0 to less than 1.
      steps: n, how many values there are with the newest; below one as one.
      dtype: the type of the average.
    """
    return jnp.asarray(1 - decay, dtype) / started(decay, steps, dtype)
