"""Directions in the space of losses."""

import jax.numpy as jnp

from jaxmtl._typing import Array


def direction_and_length(vector: Array) -> tuple[Array, Array]:
    """A vector as its unit direction, zero for a vector of zero, and its length."""
    size = jnp.max(jnp.abs(vector))
    usable = size >= jnp.finfo(vector.dtype).tiny
    # At size one: the squares of small losses vanish, and those of large ones are infinite.
    scaled = jnp.where(usable, vector / jnp.where(usable, size, 1), 0)
    length = jnp.sqrt(jnp.sum(scaled**2))
    return scaled / jnp.where(usable, length, 1), size * length


def part_off(axis: Array, direction: Array) -> Array:
    """The part of a unit vector at right angles to another one, zero where it is but rounding."""
    off = direction - jnp.sum(axis * direction) * axis
    # On the axis itself a few roundings would be left, and taken for a direction.
    rounding = 4 * len(axis) ** 0.5 * jnp.finfo(axis.dtype).eps
    return jnp.where(jnp.sqrt(jnp.sum(off**2)) > rounding, off, 0)
