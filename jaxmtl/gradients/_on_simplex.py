"""Convex weights that are learned step by step."""

import jax.numpy as jnp

from jaxmtl._gram import reciprocal
from jaxmtl._typing import Array
from jaxmtl.solvers.simplex import simplex


def present_shares(weights: Array, active: Array) -> Array:
    """The weights of the tasks present, as shares of their sum; equal where that is zero."""
    kept = jnp.where(active, weights, 0)
    total = jnp.sum(kept)
    equal = active.astype(weights.dtype) / jnp.maximum(jnp.sum(active), 1)
    return jnp.where(total > 0, kept * reciprocal(total), equal)


def settle(point: Array, weights: Array, active: Array) -> tuple[Array, Array]:
    """Project the shares of the tasks present on the simplex, wherever a step has taken them.

    Args:
      point: (T,) shares after the step.
      weights: (T,) weights before it, of sum one.
      active: (T,) bool.

    Returns:
      The new shares, and the new weights, in which absent tasks keep theirs.
    """
    shares = simplex(point, active)
    # Never quite nothing, or the shares of these tasks would be forgotten.
    least = len(weights) * jnp.finfo(weights.dtype).eps
    total = jnp.maximum(1 - jnp.sum(jnp.where(active, 0, weights)), least)
    return shares, jnp.where(active, shares * total, weights)
