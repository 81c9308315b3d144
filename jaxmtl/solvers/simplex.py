"""Projection on the probability simplex."""

import jax
import jax.numpy as jnp

from jaxmtl._typing import Array
from jaxmtl.solvers._inputs import read_mask, read_vector


def simplex(point: Array, active: Array | None = None) -> Array:
    """Find the nearest convex weights, argmin ||w - v|| over w >= 0, sum_i w_i = 1.

    Args:
      point: (T,) v.
      active: (T,) bool, the entries that take part; all if None.

    Returns:
      (T,) w, zero where not active, and everywhere if none is. Exact up to rounding: the method
      sorts, and does not iterate. Differentiable almost everywhere.

    Raises:
      ValueError: if ``point`` is not a vector.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import simplex
      >>> print(simplex(jnp.array([1.0, 0.5, -3.0])))
      [0.75 0.25 0.  ]

    References:
      Duchi et al., `Efficient Projections onto the l1-Ball for Learning in High Dimensions
      <https://doi.org/10.1145/1390156.1390191>`_, 2008
    """
    point = read_vector("point", point)
    active = read_mask("active", active, len(point))
    # An entry two below the largest never reaches the simplex. With all entries between the two,
    # the sums keep their precision for any size of the point.
    largest = jnp.max(jnp.where(active, point, -jnp.inf))
    depth = point - jnp.where(jnp.any(active), largest, 0)
    shifted = jnp.where(active, jnp.maximum(depth, -2), -2)
    falling = jnp.sort(shifted)[::-1]
    counts = jnp.arange(1, len(point) + 1).astype(point.dtype)
    share, mean = 1 / counts, jnp.cumsum(falling) / counts
    last = jnp.sum(share + (falling - mean) > 0) - 1
    return jnp.where(active, jax.nn.relu(share[last] + (shifted - mean[last])), 0)
