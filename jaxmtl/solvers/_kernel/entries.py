"""Entries of padded arrays, selected by masks: the building blocks of the rules."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

Rule = Callable[..., Any]


class NotInKernel(Exception):
    """A program that cannot be a kernel, because of its size, its types or its operations."""


def filled(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape with every axis padded to a power of two."""
    return tuple(1 << (int(size) - 1).bit_length() for size in shape)


def narrow(dtype: Any) -> Any:
    """The 32-bit type for a 64-bit one: in x64 mode indices and some scalars have 64 bits."""
    return jnp.dtype({"int64": "int32", "float64": "float32"}.get(str(dtype), dtype))


def shape_of(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


def places_along(array: Any, axis: int) -> Any:
    return lax.broadcasted_iota(jnp.int32, jnp.shape(array), axis)


def entry_at(array: Any, axis: int, index: Any) -> Any:
    """The entries at an index along an axis, which is kept with size one."""
    return pick(places_along(array, axis) == index, array, axis)


def pick(mask: Any, array: Any, axis: int) -> Any:
    """The entries of a mask, at most one along an axis, which is kept with size one."""
    is_bool = array.dtype == bool
    numbers = array.astype(jnp.int32) if is_bool else array
    found = jnp.sum(jnp.where(mask, numbers, numbers.dtype.type(0)), axis, keepdims=True)
    return found != 0 if is_bool else found.astype(array.dtype)


def refilled(array: Any, shape: Sequence[int], axis: int, instead: Any) -> Any:
    """The array with other numbers in the padding of an axis."""
    if array.shape[axis] == shape[axis]:
        return array
    return jnp.where(places_along(array, axis) < shape[axis], array, array.dtype.type(instead))


def shifted(array: Any, size: int, by: int) -> Any:
    """A vector whose entry k is entry k - by of the array, or zero if there is none."""
    source = jnp.arange(array.shape[0])[:, None] + by == jnp.arange(size)[None, :]
    return lax.squeeze(pick(source, array[:, None], 0), [0])
