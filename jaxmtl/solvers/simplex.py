"""Projection on the probability simplex."""

import jax.numpy as jnp
import optax

from jaxmtl._typing import Array


def simplex(point: Array, active: Array | None = None) -> Array:
    """Find the nearest convex weights, argmin ||w - v|| over w >= 0, sum_i w_i = 1.

    Args:
      point: (T,) v.
      active: (T,) bool, the entries that take part; all if None.

    Returns:
      (T,) w, zero where not active, and everywhere if none is. Exact up to rounding: a sort, no
      iteration. Differentiable almost everywhere.

    Raises:
      ValueError: where ``point`` is not a vector.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import simplex
      >>> print(simplex(jnp.array([1.0, 0.5, -3.0])))
      [0.75 0.25 0.  ]

    References:
      Duchi et al., `Efficient Projections onto the l1-Ball for Learning in High Dimensions
      <https://doi.org/10.1145/1390156.1390191>`_, 2008
    """
    if point.ndim != 1:
        raise ValueError(f"point must have shape (T,), but it has {point.shape}.")
    active = jnp.ones(point.shape, bool) if active is None else active
    # An entry two below the largest never reaches the simplex, and where all are between the two
    # the sums keep their precision, whatever the size of the point.
    largest = jnp.max(jnp.where(active, point, -jnp.inf))
    depth = point - jnp.where(jnp.any(active), largest, 0)
    shifted = jnp.where(active, jnp.maximum(depth, -2), -2)
    nearest = optax.projections.projection_simplex(shifted).astype(point.dtype)
    return jnp.where(active, nearest, 0)
