"""Entries at indices that the program computes."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxmtl.solvers._kernel.entries import (
    NotInKernel,
    Rule,
    entry_at,
    pick,
    places_along,
    shape_of,
)
from jaxmtl.solvers._kernel.reductions import any_of


def _dynamic_slice(eqn: Any, array: Any, *starts: Any) -> Any:
    shape, sizes = shape_of(eqn.invars[0]), eqn.params["slice_sizes"]
    for axis, start in enumerate(starts):
        if sizes[axis] == shape[axis]:
            continue
        if sizes[axis] != 1:
            raise NotInKernel("a slice of some of the entries")
        array = entry_at(array, axis, jnp.clip(start, 0, shape[axis] - 1))
    return array


def _gather(eqn: Any, array: Any, index: Any) -> Any:
    """Entries of a vector, or columns of a matrix."""
    numbers, shape = eqn.params["dimension_numbers"], shape_of(eqn.invars[0])
    axis = len(shape) - 1
    sizes = (*shape[:-1], 1)
    by_column = (numbers.collapsed_slice_dims, numbers.start_index_map) == ((axis,), (axis,))
    if not by_column or axis > 1 or tuple(eqn.params["slice_sizes"]) != sizes:
        raise NotInKernel("a gather of more than columns")
    if len(shape_of(eqn.invars[1])) != 2 or numbers.offset_dims != tuple(range(axis)):
        raise NotInKernel("a gather of more than columns")
    if axis == 0:
        wanted = index == lax.broadcasted_iota(jnp.int32, (index.shape[0], array.shape[0]), 1)
        return lax.squeeze(pick(wanted, array[None, :], 1), [1])

    def take(k: Any, found: Any) -> Any:
        column = entry_at(array, 1, lax.squeeze(entry_at(index, 0, k), [0, 1]))
        return jnp.where(places_along(found, 1) == k, column, found)

    found = jnp.zeros((array.shape[0], index.shape[0]), array.dtype)
    return lax.fori_loop(0, shape_of(eqn.invars[1])[0], take, found)


def _scatter(combine: Callable[[Any, Any], Any]) -> Rule:
    def rule(eqn: Any, array: Any, index: Any, update: Any) -> Any:
        """At one index along one axis, or at several of a vector."""
        numbers, shape = eqn.params["dimension_numbers"], shape_of(eqn.invars[1])
        axes = numbers.inserted_window_dims
        if axes != numbers.scatter_dims_to_operand_dims or len(axes) != 1:
            raise NotInKernel("scatter along several axes")
        if len(shape) == 1:
            update = jnp.expand_dims(update, axes[0])
            is_there = places_along(array, axes[0]) == lax.squeeze(index, [0])
        else:
            if len(shape_of(eqn.invars[0])) != 1 or eqn.primitive.name != "scatter":
                raise NotInKernel("scatter of several rows, or several sums")
            places = lax.broadcasted_iota(jnp.int32, (index.shape[0], array.shape[0]), 1)
            hit = (index == places) & (places_along(places, 0) < shape[0])
            update = lax.squeeze(pick(hit, update[:, None], 0), [0])
            is_there = any_of(hit, 0)
        return jnp.where(is_there, combine(array, update), array)

    return rule


RULES: dict[str, Rule] = {
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "scatter": _scatter(lambda array, update: update),
    "scatter-add": _scatter(lambda array, update: array + update),
}
