"""Gradients that are only rounding error compared with the longest gradient."""

from typing import Any

import jax.numpy as jnp

from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._base import Given, Weighting
from jaxmtl.balancing._step import only_present

# In ``every`` and ``smooth``, a gradient shorter than this many rounding errors of the longest one
# counts as rounding error.
ROUNDINGS = 8.0


def is_rounding(sizes: Array, active: Array, roundings: Any) -> Array:
    """Which of the tasks present have a size below so many roundings of the largest."""
    largest = jnp.max(jnp.where(active, sizes, 0))
    floor = jnp.asarray(roundings, sizes.dtype) * jnp.finfo(sizes.dtype).eps * largest
    return active & (sizes < floor)


def leave_out_rounding(weighting: Weighting, roundings: Any = ROUNDINGS) -> Weighting:
    """Compute a method's weights from the Gramian without tasks whose gradient is rounding error.

    These tasks get the smallest of the other tasks' weights, or zero if that is negative. A method
    that does not read the Gramian, or that leaves such tasks out already, stays as it is.
    """
    if "gramian" not in weighting.reads or weighting.roundings is not None:
        return weighting

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        lengths = jnp.sqrt(jnp.diagonal(given.gramian))
        balanced = given.active & ~jnp.asarray(weighting.fixed)
        out = is_rounding(lengths, balanced, roundings)
        weights, state = weighting.update(only_present(given, given.active & ~out), state)
        weights = jnp.asarray(weights)  # NumPy's float64, where they are constants
        least = jnp.maximum(jnp.min(jnp.where(balanced & ~out, weights, jnp.inf)), 0)
        return jnp.where(out, least, weights), state

    return weighting._replace(update=update, roundings=roundings)
