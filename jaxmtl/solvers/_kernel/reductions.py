"""Sums, extremes and orders along axes."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxmtl.solvers._kernel.entries import (
    NotInKernel,
    Rule,
    narrow,
    pick,
    places_along,
    refilled,
    shape_of,
)


def _reduce(reduction: Any, identity: Any) -> Rule:
    def rule(eqn: Any, array: Any) -> Any:
        shape, axes = shape_of(eqn.invars[0]), eqn.params["axes"]
        for axis in axes:
            array = refilled(array, shape, axis, identity(array.dtype))
        return reduction(array, axis=axes).astype(narrow(eqn.outvars[0].aval.dtype))

    return rule


def least(dtype: Any) -> Any:
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def most(dtype: Any) -> Any:
    return jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max


def _max(array: Any, axis: Any) -> Any:
    return _with_nan(jnp.max(array, axis), array, axis)


def _min(array: Any, axis: Any) -> Any:
    return _with_nan(jnp.min(array, axis), array, axis)


def _with_nan(found: Any, array: Any, axis: Any) -> Any:
    if array.dtype == jnp.int32:
        return found
    return jnp.where(all_of(array == array, axis), found, jnp.nan)


def any_of(array: Any, axis: Any) -> Any:
    return jnp.max(array.astype(jnp.int32), axis) > 0


def all_of(array: Any, axis: Any) -> Any:
    return jnp.min(array.astype(jnp.int32), axis) > 0


def _arg(sign: int) -> Rule:
    def rule(eqn: Any, array: Any) -> Any:
        """The first of the smallest entries, or the first NaN, as in NumPy."""
        (axis,) = eqn.params["axes"]
        array = sign * refilled(array, shape_of(eqn.invars[0]), axis, sign * most(array.dtype))
        array = jnp.where(array == array, array, least(array.dtype))
        smallest = array == jnp.min(array, axis, keepdims=True)
        index = jnp.where(smallest, places_along(array, axis), array.shape[axis])
        return jnp.min(index, axis).astype(jnp.int32)

    return rule


def _sort(eqn: Any, array: Any) -> Any:
    """By the rank of each entry, ties in their order."""
    if array.ndim != 1 or len(eqn.invars) != 1:
        raise NotInKernel("sorting more than one vector")
    (num,) = shape_of(eqn.invars[0])
    array = refilled(array, (num,), 0, most(array.dtype))
    one, other = array[:, None], array[None, :]
    index = jnp.arange(array.shape[0])
    before = (other < one) | ((other == one) & (index[None, :] < index[:, None]))
    rank = jnp.sum(before.astype(jnp.int32), axis=1)
    return lax.squeeze(pick(rank[:, None] == index[None, :], array[:, None], 0), [0])


def _cumsum(eqn: Any, array: Any) -> Any:
    if array.ndim != 1 or eqn.params["reverse"]:
        raise NotInKernel("sums from the end, or of more than a vector")
    index = jnp.arange(array.shape[0])
    return jnp.sum(jnp.where(index[:, None] <= index[None, :], array[:, None], 0), axis=0)


RULES: dict[str, Rule] = {
    "reduce_sum": _reduce(jnp.sum, lambda dtype: 0),
    "reduce_max": _reduce(_max, least),
    "reduce_min": _reduce(_min, most),
    "reduce_or": _reduce(any_of, lambda dtype: False),
    "reduce_and": _reduce(all_of, lambda dtype: True),
    "argmin": _arg(1),
    "argmax": _arg(-1),
    "sort": _sort,
    "cumsum": _cumsum,
}
