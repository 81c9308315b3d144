"""Directions in the space of losses."""

import jax.numpy as jnp

from jaxmtl._typing import Array


def direction_and_length(vector: Array) -> tuple[Array, Array]:
    """The unit direction (zero for a zero vector) and the length of a vector."""
    size = jnp.max(jnp.abs(vector))
    usable = size >= jnp.finfo(vector.dtype).tiny
    # Scale to size one: the squares of small losses would underflow, those of large ones overflow.
    scaled = jnp.where(usable, vector / jnp.where(usable, size, 1), 0)
    length = jnp.sqrt(jnp.sum(scaled**2))
    return scaled / jnp.where(usable, length, 1), size * length


def part_off(axis: Array, direction: Array) -> Array:
    """The part of a unit vector orthogonal to another; zero if it is only rounding error."""
    off = direction - jnp.sum(axis * direction) * axis
    # On the axis itself a few rounding errors would remain, and would be taken for a direction.
    rounding = 4 * len(axis) ** 0.5 * jnp.finfo(axis.dtype).eps
    return jnp.where(jnp.sqrt(jnp.sum(off**2)) > rounding, off, 0)
