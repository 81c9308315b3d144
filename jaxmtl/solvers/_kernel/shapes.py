"""Changes of shapes and types."""

import functools
import itertools
import operator
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxmtl.solvers._kernel.entries import (
    NotInKernel,
    Rule,
    entry_at,
    filled,
    narrow,
    pick,
    places_along,
    refilled,
    shape_of,
    shifted,
)


def _broadcast(eqn: Any, array: Any, *_: Any) -> Any:
    shape, dims = filled(eqn.params["shape"]), eqn.params["broadcast_dimensions"]
    return lax.broadcast_in_dim(array, shape, dims)


def _squeeze(eqn: Any, array: Any) -> Any:
    return lax.squeeze(array, eqn.params["dimensions"])


def _reshape(eqn: Any, array: Any) -> Any:
    """Reshapes that only add or remove axes of size one."""
    before, after = (shape_of(atom) for atom in (eqn.invars[0], eqn.outvars[0]))
    if [n for n in before if n != 1] != [n for n in after if n != 1]:
        raise NotInKernel("a reshape of more than axes of size one")
    return array.reshape(filled(after))


def _transpose(eqn: Any, array: Any) -> Any:
    return lax.transpose(array, eqn.params["permutation"])


def _iota(eqn: Any, *_: Any) -> Any:
    shape, dimension = filled(eqn.params["shape"]), eqn.params["dimension"]
    return lax.broadcasted_iota(jnp.int32, shape, dimension).astype(narrow(eqn.params["dtype"]))


def _convert(eqn: Any, array: Any) -> Any:
    return array.astype(narrow(eqn.params["new_dtype"]))


def _round(eqn: Any, array: Any) -> Any:
    """The nearest power of two, the only rounding that the solvers use."""
    if (eqn.params["exponent_bits"], eqn.params["mantissa_bits"]) != (8, 0):
        raise NotInKernel("rounding to anything but a power of two")
    bits = lax.bitcast_convert_type(array, jnp.int32) + (1 << 22)
    return lax.bitcast_convert_type(bits & jnp.int32(-(1 << 23)), array.dtype)


def _slice(eqn: Any, array: Any) -> Any:
    shape, result = shape_of(eqn.invars[0]), filled(shape_of(eqn.outvars[0]))
    if eqn.params["strides"] is not None:
        raise NotInKernel("a slice with strides")
    for axis, start in enumerate(eqn.params["start_indices"]):
        size = eqn.params["limit_indices"][axis] - start
        if size == shape[axis]:
            continue
        if size != 1 and array.ndim > 1:
            raise NotInKernel("a slice of some of the rows")
        array = entry_at(array, axis, start) if size == 1 else shifted(array, result[0], -start)
    return array


def _pad(eqn: Any, array: Any, padding: Any) -> Any:
    """At the ends of axes."""
    shape = shape_of(eqn.invars[0])
    for axis, (low, high, between) in enumerate(eqn.params["padding_config"]):
        if low or between or high < 0:
            raise NotInKernel("padding but at the ends")
        if not high:
            continue
        whole = filled((shape[axis] + high,))[0]
        if whole > array.shape[axis]:
            # Repeat it as often as it fits, and use only the first copy.
            times = (*array.shape[:axis], whole // array.shape[axis], *array.shape[axis:])
            rest = [i for i in range(len(times)) if i != axis]
            longer = (*array.shape[:axis], whole, *array.shape[axis + 1 :])
            array = lax.broadcast_in_dim(array, times, rest).reshape(longer)
        array = jnp.where(places_along(array, axis) < shape[axis], array, padding)
    return array


def _join(eqn: Any, *parts: Any) -> Any:
    """Along a new axis (stack), or along one where each part is of size one (concatenate)."""
    axis = eqn.params.get("axis", eqn.params.get("dimension"))
    shape = shape_of(eqn.outvars[0])
    if eqn.primitive.name == "stack":
        parts = tuple(jnp.expand_dims(part, axis) for part in parts)
    elif len(shape) == 1:
        ends = itertools.accumulate(shape_of(atom)[0] for atom in eqn.invars)
        moved = [
            shifted(refilled(part, shape_of(atom), 0, 0), filled(shape)[0], end - shape_of(atom)[0])
            for part, atom, end in zip(parts, eqn.invars, ends, strict=True)
        ]
        return functools.reduce(operator.or_ if moved[0].dtype == bool else operator.add, moved)
    elif any(shape_of(atom)[axis] != 1 for atom in eqn.invars):
        raise NotInKernel("a concatenation of rows")
    joined = jnp.broadcast_to(parts[0], filled(shape))
    for i, part in enumerate(parts[1:], 1):
        joined = jnp.where(places_along(joined, axis) == i, part, joined)
    return joined


def _reverse(eqn: Any, array: Any) -> Any:
    if array.ndim != 1:
        raise NotInKernel("reversing more than a vector")
    index, last = jnp.arange(array.shape[0]), shape_of(eqn.invars[0])[0] - 1
    return lax.squeeze(pick(index[:, None] + index[None, :] == last, array[:, None], 0), [0])


RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeeze,
    "reshape": _reshape,
    "transpose": _transpose,
    "iota": _iota,
    "convert_element_type": _convert,
    "reduce_precision": _round,
    "slice": _slice,
    "pad": _pad,
    "stack": _join,
    "concatenate": _join,
    "rev": _reverse,
}
