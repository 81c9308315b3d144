"""A softmax over some of the tasks."""

import jax
import jax.numpy as jnp

from jaxmtl._typing import Array


def softmax(logits: Array, where: Array) -> Array:
    """The softmax over the tasks in a mask; zero for the others, and for all if it is empty."""
    # An empty mask would divide zero by zero.
    shares = jax.nn.softmax(jnp.where(where, logits, 0), where=where | ~jnp.any(where))
    return jnp.where(where, shares, 0)
