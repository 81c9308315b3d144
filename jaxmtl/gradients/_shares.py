"""Weights that give each task an equal share of a size, averaged over the steps."""

import jax.numpy as jnp

from jaxmtl._typing import Array


def average_shares(weights: Array, sizes: Array, active: Array, decay: float) -> Array:
    """w_i <- decay w_i + (1 - decay) sum_j a_j / a_i over the tasks present; 0 for a_i of zero."""
    total = jnp.sum(jnp.where(active, sizes, 0))
    usable = active & (sizes > 0)
    new = jnp.where(usable, total / jnp.where(usable, sizes, 1), 0)
    share = jnp.asarray(decay, weights.dtype)
    return jnp.where(active, share * weights + (1 - share) * new, weights)
