"""Weights that give each task an equal share of a size, averaged over the steps."""

import jax.numpy as jnp

from jaxmtl._typing import Array


def inverse_shares(sizes: Array, active: Array) -> Array:
    """sum_j a_j / a_i over the tasks present; zero where a_i is zero."""
    total = jnp.sum(jnp.where(active, sizes, 0))
    usable = active & (sizes > 0)
    return jnp.where(usable, total / jnp.where(usable, sizes, 1), 0)


def averaged(old: Array, new: Array, active: Array, decay: float) -> Array:
    """decay old + (1 - decay) new for the tasks present."""
    share = jnp.asarray(decay, old.dtype)
    return jnp.where(active, share * old + (1 - share) * new, old)
