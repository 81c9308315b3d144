"""Checks of the solvers' inputs before anything is traced."""

from typing import Any

import jax.numpy as jnp

from jaxmtl._checks import real_array
from jaxmtl._typing import Array


def read_matrix(name: str, value: Any, shape: str = "(T, T)") -> Array:
    """Read a matrix of real numbers, a square one unless ``shape`` says otherwise."""
    matrix = _floating(name, real_array(name, value, shape, ndim=2))
    if shape == "(T, T)" and matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"{name} must have shape (T, T), but it has {matrix.shape}: for stacked vectors J pass"
            " J @ J.T."
        )
    return matrix


def read_vector(name: str, value: Any, shape: str = "(T,)") -> Array:
    """Read a vector of real numbers."""
    return _floating(name, real_array(name, value, shape, ndim=1))


def read_mask(name: str, value: Any, num: int) -> Array:
    """Read ``num`` bools; all True if None."""
    if value is None:
        return jnp.ones(num, bool)
    mask = real_array(name, value, "(T,)", ndim=1)
    if mask.dtype != bool or mask.shape != (num,):
        raise ValueError(
            f"{name} must be {num} bools, but it has type {mask.dtype} and shape {mask.shape}: for"
            f" numbers, pass {name} != 0."
        )
    return jnp.asarray(mask)


def _floating(name: str, array: Any) -> Array:
    """Raise for an empty array; whole numbers become floating-point numbers."""
    array = jnp.asarray(array)
    if not array.size:
        raise ValueError(f"{name} must have at least one entry, but its shape is {array.shape}.")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)
