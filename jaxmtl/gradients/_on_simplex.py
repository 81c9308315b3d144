"""Convex weights that are learned step by step."""

import jax.numpy as jnp

from jaxmtl._typing import Array
from jaxmtl.balancing._base import Given
from jaxmtl.balancing._gram import equal_shares
from jaxmtl.solvers.scaling import reciprocal
from jaxmtl.solvers.simplex import simplex


def present_shares(weights: Array, active: Array) -> Array:
    """The weights of the tasks present, as shares of their sum; equal if the sum is zero."""
    kept = jnp.where(active, weights, 0)
    total = jnp.sum(kept)
    return jnp.where(total > 0, kept * reciprocal(total), equal_shares(active, weights.dtype))


def settle(point: Array, weights: Array, active: Array) -> tuple[Array, Array]:
    """Project the shares of the tasks present on the simplex after a step.

    Args:
      point: (T,) shares after the step.
      weights: (T,) weights before it, of sum one.
      active: (T,) bool.

    Returns:
      The new shares, and the new weights, in which absent tasks keep theirs.
    """
    shares = simplex(point, active)
    # Not exactly zero, or the shares of these tasks among themselves would be lost.
    least = len(weights) * jnp.finfo(weights.dtype).eps
    total = jnp.maximum(1 - jnp.sum(jnp.where(active, 0, weights)), least)
    return shares, jnp.where(active, shares * total, weights)


def step_to_min_norm(
    weights: Array, given: Given, products: Array, step_size: float, rho: float
) -> tuple[Array, Array]:
    """w <- project(w - step_size (M / tr G + rho I) w) for the tasks present.

    Args:
      weights: (T,) weights so far, of sum one.
      given: the tasks present, and the Gramian G, which sets the unit.
      products: (T, T) inner products M: G itself, or the inner products of further batches.
      step_size: the step.
      rho: regularisation towards equal weights.

    Returns:
      As ``settle``.
    """
    shares = present_shares(weights, given.active)
    slope = products @ shares * reciprocal(jnp.trace(given.gramian)) + rho * shares
    return settle(shares - step_size * slope, weights, given.active)
