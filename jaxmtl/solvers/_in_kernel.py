"""Programs of small arrays, in the operations that a GPU kernel has (Triton's, by way of Pallas).

A kernel has no gather, no sort and no linear algebra, and its arrays' axes are powers of two. So
each axis is filled up to one, with numbers of no meaning, which every operation that looks along
an axis leaves out; an entry is found by a mask, a factorisation is a loop of rank-one steps. In
registers of one block that costs little, and the whole program is one launch.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxmtl.backward._programs import is_variable, opened

# Larger products go through their inner axis step by step: the terms would not fit the registers.
_MOST_TERMS = 2**12
_ELEMENTWISE = {
    *("abs", "add", "add_any", "and", "ceil", "cos", "div", "eq", "exp", "exp2", "expm1", "floor"),
    *("ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min"),
    *("mul", "ne", "neg", "not", "or", "pow", "rem", "rsqrt", "select_n", "sign", "sin", "sqrt"),
    *("square", "sub", "tanh", "xor"),
}
_SAME = frozenset({"copy", "copy_p", "stop_gradient", "optimization_barrier", "pvary", "reshard"})
_HOLDERS = frozenset({"call", "closed_call", "custom_jvp_call", "custom_vjp_call", "jit", "pjit"})
Rule = Callable[..., Any]


class NotInKernel(Exception):
    """A program that is not made for a kernel, by its size, its types or what it does."""


def filled(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape with every axis filled up to a power of two."""
    return tuple(1 << (int(size) - 1).bit_length() for size in shape)


def narrow(dtype: Any) -> Any:
    """The type of 32 bits for one of 64: in x64 mode the indices and some scalars are of these."""
    return jnp.dtype({"int64": "int32", "float64": "float32"}.get(str(dtype), dtype))


def run_in_kernel(program: Any, arguments: Sequence[Any]) -> list[Any]:
    """Run a program on arrays of filled shapes; its results have such shapes too."""
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        if is_variable(atom):
            return values[atom]
        return narrow(atom.aval.dtype).type(atom.val)  # an array would be one in memory

    inner = opened(program)
    values.update(zip(inner.invars, arguments, strict=True))
    values.update(zip(inner.constvars, getattr(program, "consts", ()), strict=True))
    for eqn in inner.eqns:
        results = _rule(eqn)(eqn, *map(read, eqn.invars))
        results = results if isinstance(results, tuple | list) else [results]
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in inner.outvars]


def _rule(eqn: Any) -> Rule:
    name = eqn.primitive.name
    if name in _ELEMENTWISE:
        return _elementwise
    if name in _SAME:
        return lambda eqn, *values: values
    if name in _HOLDERS:
        return _RULES_BY_NAME.get(eqn.params.get("name", ""), _hold)
    if name not in _RULES:
        raise NotInKernel(f"no rule for {name}")
    return _RULES[name]


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


def _index(array: Any, axis: int) -> Any:
    return lax.broadcasted_iota(jnp.int32, jnp.shape(array), axis)


def _at(array: Any, axis: int, index: Any) -> Any:
    """The entries at an index along an axis, which stays, of size one."""
    return _pick(_index(array, axis) == index, array, axis)


def _pick(mask: Any, array: Any, axis: int) -> Any:
    """The entries of a mask, at most one along an axis, which stays, of size one."""
    is_bool = array.dtype == bool
    numbers = array.astype(jnp.int32) if is_bool else array
    found = jnp.sum(jnp.where(mask, numbers, numbers.dtype.type(0)), axis, keepdims=True)
    return found != 0 if is_bool else found.astype(array.dtype)


def _only(array: Any, shape: Sequence[int], axis: int, instead: Any) -> Any:
    """The array with something else in what fills an axis up."""
    if array.shape[axis] == shape[axis]:
        return array
    return jnp.where(_index(array, axis) < shape[axis], array, array.dtype.type(instead))


def _elementwise(eqn: Any, *values: Any) -> Any:
    shape = filled(_shape(eqn.outvars[0]))
    is_choice = eqn.primitive.name == "select_n"
    full = [
        value
        if jnp.shape(value) == shape or (is_choice and i == 0)
        else lax.broadcast_in_dim(value, shape, range(jnp.ndim(value)))
        for i, value in enumerate(values)
    ]
    result = eqn.primitive.bind(*full, **eqn.params)
    if eqn.primitive.name not in ("max", "min") or result.dtype == jnp.int32:
        return result
    # Of a NaN and a number Triton takes the number, and an error would be lost.
    return jnp.where((full[0] == full[0]) & (full[1] == full[1]), result, full[0] + full[1])


def _hold(eqn: Any, *values: Any) -> Any:
    part = next(v for key, v in eqn.params.items() if key in ("jaxpr", "call_jaxpr", "fun_jaxpr"))
    return run_in_kernel(part, values)


def _diagonal(eqn: Any, matrix: Any) -> Any:
    if matrix.shape[0] != matrix.shape[1]:
        raise NotInKernel("the diagonal of a matrix that is not square")
    return lax.squeeze(_pick(_index(matrix, 0) == _index(matrix, 1), matrix, 1), [1])


def _reduce(reduction: Any, identity: Any) -> Rule:
    def rule(eqn: Any, array: Any) -> Any:
        shape, axes = _shape(eqn.invars[0]), eqn.params["axes"]
        for axis in axes:
            array = _only(array, shape, axis, identity(array.dtype))
        return reduction(array, axis=axes).astype(narrow(eqn.outvars[0].aval.dtype))

    return rule


def _least(dtype: Any) -> Any:
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _most(dtype: Any) -> Any:
    return jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max


def _max(array: Any, axis: Any) -> Any:
    return _with_nan(jnp.max(array, axis), array, axis)


def _min(array: Any, axis: Any) -> Any:
    return _with_nan(jnp.min(array, axis), array, axis)


def _with_nan(found: Any, array: Any, axis: Any) -> Any:
    if array.dtype == jnp.int32:
        return found
    return jnp.where(_all(array == array, axis), found, jnp.nan)


def _any(array: Any, axis: Any) -> Any:
    return jnp.max(array.astype(jnp.int32), axis) > 0


def _all(array: Any, axis: Any) -> Any:
    return jnp.min(array.astype(jnp.int32), axis) > 0


def _arg(sign: int) -> Rule:
    def rule(eqn: Any, array: Any) -> Any:
        """The first of the smallest entries, or of the NaN ones, as NumPy has it."""
        (axis,) = eqn.params["axes"]
        array = sign * _only(array, _shape(eqn.invars[0]), axis, sign * _most(array.dtype))
        array = jnp.where(array == array, array, _least(array.dtype))
        smallest = array == jnp.min(array, axis, keepdims=True)
        index = jnp.where(smallest, _index(array, axis), array.shape[axis])
        return jnp.min(index, axis).astype(jnp.int32)

    return rule


def _dot_general(eqn: Any, left: Any, right: Any) -> Any:
    ((of_left,), (of_right,)), batch = eqn.params["dimension_numbers"]
    if batch != ((), ()) or max(left.ndim, right.ndim) > 2:
        raise NotInKernel("a product of more than two matrices")
    inner = _shape(eqn.invars[0])[of_left]
    left = left if of_left == left.ndim - 1 else left.T
    right = right if of_right == 0 else right.T
    rows, columns = left.ndim == 2, right.ndim == 2
    if rows and columns and math.prod((*left.shape, right.shape[1])) > _MOST_TERMS:

        def add(k: Any, total: Any) -> Any:
            return total + _at(left, 1, k) * _at(right, 0, k)

        zeros = jnp.zeros((left.shape[0], right.shape[1]), left.dtype)
        return lax.fori_loop(0, inner, add, zeros)
    # The inner axis last: (rows, columns, inner).
    right = right.T if columns else right
    if rows and columns:
        left, right = left[:, None, :], right[None, :, :]
    elif rows or columns:
        left, right = (left, right[None, :]) if rows else (left[None, :], right)
    terms = left * right
    shape = (*terms.shape[:-1], inner)
    return jnp.sum(_only(terms, shape, terms.ndim - 1, 0), axis=-1)


def _cholesky(eqn: Any, matrix: Any) -> Any:
    num = _shape(eqn.invars[0])[0]
    row, column = _index(matrix, 0), _index(matrix, 1)

    def step(j: Any, carry: Any) -> Any:
        left, factor = carry
        here = _at(left, 1, j)
        pivot = _at(here, 0, j)
        line = jnp.where(_index(here, 0) >= j, here / jnp.sqrt(pivot), 0)
        # The same numbers along the other axis: a transpose goes through memory.
        across = _at(left, 0, j)
        across = jnp.where(_index(across, 1) >= j, across / jnp.sqrt(pivot), 0)
        return left - line * across, jnp.where(column == j, line, factor)

    # Of the lower half alone, as LAPACK does.
    lower = jnp.where((row >= column) & (row < num), matrix, 0)
    whole = jnp.where(row >= column, lower, lower.T)
    return lax.fori_loop(0, num, step, (whole, jnp.zeros_like(matrix)))[1]


def _lu(eqn: Any, matrix: Any) -> Any:
    """Gaussian elimination with the largest pivot of a column."""
    shape = _shape(eqn.invars[0])
    if shape[0] != shape[1]:
        raise NotInKernel("factors of a matrix that is not square")
    row, column = _index(matrix, 0), _index(matrix, 1)

    def step(j: Any, carry: Any) -> Any:
        left, order = carry
        here = _at(left, 1, j)
        rows = _index(here, 0)
        size = jnp.where((rows >= j) & (rows < shape[0]), jnp.abs(here), -1)
        pivot = jnp.min(jnp.where(size == jnp.max(size), rows, matrix.shape[0]))
        upper, line = _at(left, 0, j), _at(left, 0, pivot)
        left = jnp.where(row == j, line, jnp.where(row == pivot, upper, left))
        index = _index(order, 0)
        swapped = jnp.where(index == j, _at(order, 0, pivot), order)
        order = jnp.where(index == pivot, _at(order, 0, j), swapped)
        share = jnp.where(rows > j, _at(left, 1, j) / _at(line, 1, j), 0)
        cleared = left - share * line
        return jnp.where(rows > j, jnp.where(column == j, share, cleared), left), order

    whole = jnp.where((row < shape[0]) & (column < shape[0]), matrix, 0)
    places = jnp.arange(matrix.shape[0], dtype=jnp.int32)
    factors, order = lax.fori_loop(0, shape[0], step, (whole, places))
    return factors, places, order


def _triangular_solve(eqn: Any, matrix: Any, target: Any) -> Any:
    params = eqn.params
    if not params["left_side"]:
        raise NotInKernel("a triangular system from the right")
    num = _shape(eqn.invars[0])[0]
    turned = params["transpose_a"]
    forwards = params["lower"] != turned

    def step(i: Any, carry: Any) -> Any:
        left, found = carry
        j = i if forwards else num - 1 - i
        # Column j of the matrix, or of its transpose.
        line = _at(matrix, 0, j).reshape(-1, 1) if turned else _at(matrix, 1, j)
        entry = _at(left, 0, j)
        entry = entry if params["unit_diagonal"] else entry / _at(line, 0, j)
        later = _index(line, 0) > j if forwards else _index(line, 0) < j
        is_here = _index(found, 0) == j
        return left - jnp.where(later, line, 0) * entry, jnp.where(is_here, entry, found)

    target = _only(target, _shape(eqn.invars[1]), 0, 0)
    return lax.fori_loop(0, num, step, (target, jnp.zeros_like(target)))[1]


def _broadcast(eqn: Any, array: Any, *_: Any) -> Any:
    shape, dims = filled(eqn.params["shape"]), eqn.params["broadcast_dimensions"]
    return lax.broadcast_in_dim(array, shape, dims)


def _squeeze(eqn: Any, array: Any) -> Any:
    return lax.squeeze(array, eqn.params["dimensions"])


def _reshape(eqn: Any, array: Any) -> Any:
    """Only where axes of size one come or go."""
    before, after = (_shape(atom) for atom in (eqn.invars[0], eqn.outvars[0]))
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
    """The nearest power of two, which is all that the solvers ask for."""
    if (eqn.params["exponent_bits"], eqn.params["mantissa_bits"]) != (8, 0):
        raise NotInKernel("rounding to anything but a power of two")
    bits = lax.bitcast_convert_type(array, jnp.int32) + (1 << 22)
    return lax.bitcast_convert_type(bits & jnp.int32(-(1 << 23)), array.dtype)


def _dynamic_slice(eqn: Any, array: Any, *starts: Any) -> Any:
    shape, sizes = _shape(eqn.invars[0]), eqn.params["slice_sizes"]
    for axis, start in enumerate(starts):
        if sizes[axis] == shape[axis]:
            continue
        if sizes[axis] != 1:
            raise NotInKernel("a slice of some of the entries")
        array = _at(array, axis, jnp.clip(start, 0, shape[axis] - 1))
    return array


def _moved(array: Any, size: int, by: int) -> Any:
    """A vector whose entry k is that of k - by; zero where there is none."""
    source = jnp.arange(array.shape[0])[:, None] + by == jnp.arange(size)[None, :]
    return lax.squeeze(_pick(source, array[:, None], 0), [0])


def _slice(eqn: Any, array: Any) -> Any:
    shape, result = _shape(eqn.invars[0]), filled(_shape(eqn.outvars[0]))
    if eqn.params["strides"] is not None:
        raise NotInKernel("a slice with strides")
    for axis, start in enumerate(eqn.params["start_indices"]):
        size = eqn.params["limit_indices"][axis] - start
        if size == shape[axis]:
            continue
        if size != 1 and array.ndim > 1:
            raise NotInKernel("a slice of some of the rows")
        array = _at(array, axis, start) if size == 1 else _moved(array, *result, -start)
    return array


def _pad(eqn: Any, array: Any, padding: Any) -> Any:
    """At the ends of axes."""
    shape = _shape(eqn.invars[0])
    for axis, (low, high, between) in enumerate(eqn.params["padding_config"]):
        if low or between or high < 0:
            raise NotInKernel("padding but at the ends")
        whole = filled((shape[axis] + high,))[0]
        array = _only(array, shape, axis, padding) if high else array
        if whole > array.shape[axis]:
            # As often as it fits, and only the first of these taken.
            times = (*array.shape[:axis], whole // array.shape[axis], *array.shape[axis:])
            rest = [i for i in range(len(times)) if i != axis]
            longer = (*array.shape[:axis], whole, *array.shape[axis + 1 :])
            array = lax.broadcast_in_dim(array, times, rest).reshape(longer)
        array = jnp.where(_index(array, axis) < shape[axis], array, padding) if high else array
    return array


def _gather(eqn: Any, array: Any, index: Any) -> Any:
    """Entries of a vector, or columns of a matrix."""
    numbers, shape = eqn.params["dimension_numbers"], _shape(eqn.invars[0])
    axis = len(shape) - 1
    sizes = (*shape[:-1], 1)
    by_column = (numbers.collapsed_slice_dims, numbers.start_index_map) == ((axis,), (axis,))
    if not by_column or axis > 1 or tuple(eqn.params["slice_sizes"]) != sizes:
        raise NotInKernel("a gather of more than columns")
    if len(_shape(eqn.invars[1])) != 2 or numbers.offset_dims != tuple(range(axis)):
        raise NotInKernel("a gather of more than columns")
    if axis == 0:
        wanted = index == lax.broadcasted_iota(jnp.int32, (index.shape[0], array.shape[0]), 1)
        return lax.squeeze(_pick(wanted, array[None, :], 1), [1])

    def take(k: Any, found: Any) -> Any:
        column = _at(array, 1, lax.squeeze(_at(index, 0, k), [0, 1]))
        return jnp.where(_index(found, 1) == k, column, found)

    found = jnp.zeros((array.shape[0], index.shape[0]), array.dtype)
    return lax.fori_loop(0, _shape(eqn.invars[1])[0], take, found)


def _scatter(combine: Callable[[Any, Any], Any]) -> Rule:
    def rule(eqn: Any, array: Any, index: Any, update: Any) -> Any:
        """At one index along one axis, or at several of a vector."""
        numbers, shape = eqn.params["dimension_numbers"], _shape(eqn.invars[1])
        axes = numbers.inserted_window_dims
        if axes != numbers.scatter_dims_to_operand_dims or len(axes) != 1:
            raise NotInKernel("scatter along several axes")
        if len(shape) == 1:
            update = jnp.expand_dims(update, axes[0])
            is_there = _index(array, axes[0]) == lax.squeeze(index, [0])
        else:
            if len(_shape(eqn.invars[0])) != 1 or eqn.primitive.name != "scatter":
                raise NotInKernel("scatter of several rows, or several sums")
            places = lax.broadcasted_iota(jnp.int32, (index.shape[0], array.shape[0]), 1)
            hit = (index == places) & (_index(places, 0) < shape[0])
            update = lax.squeeze(_pick(hit, update[:, None], 0), [0])
            is_there = _any(hit, 0)
        return jnp.where(is_there, combine(array, update), array)

    return rule


def _join(eqn: Any, *parts: Any) -> Any:
    """Along a new axis (stack), or along one where each part is of size one (concatenate)."""
    axis = eqn.params.get("axis", eqn.params.get("dimension"))
    shape = _shape(eqn.outvars[0])
    if eqn.primitive.name == "stack":
        parts = tuple(jnp.expand_dims(part, axis) for part in parts)
    elif len(shape) == 1:
        ends = itertools.accumulate(_shape(atom)[0] for atom in eqn.invars)
        moved = [
            _moved(_only(part, _shape(atom), 0, 0), filled(shape)[0], end - _shape(atom)[0])
            for part, atom, end in zip(parts, eqn.invars, ends, strict=True)
        ]
        return functools.reduce(operator.or_ if moved[0].dtype == bool else operator.add, moved)
    elif any(_shape(atom)[axis] != 1 for atom in eqn.invars):
        raise NotInKernel("a concatenation of rows")
    joined = jnp.broadcast_to(parts[0], filled(shape))
    for i, part in enumerate(parts[1:], 1):
        joined = jnp.where(_index(joined, axis) == i, part, joined)
    return joined


def _sort(eqn: Any, array: Any) -> Any:
    """By the rank of each entry, ties in their order."""
    if array.ndim != 1 or len(eqn.invars) != 1:
        raise NotInKernel("sorting more than one vector")
    (num,) = _shape(eqn.invars[0])
    array = _only(array, (num,), 0, _most(array.dtype))
    one, other = array[:, None], array[None, :]
    index = jnp.arange(array.shape[0])
    before = (other < one) | ((other == one) & (index[None, :] < index[:, None]))
    rank = jnp.sum(before.astype(jnp.int32), axis=1)
    return lax.squeeze(_pick(rank[:, None] == index[None, :], array[:, None], 0), [0])


def _reverse(eqn: Any, array: Any) -> Any:
    if array.ndim != 1:
        raise NotInKernel("reversing more than a vector")
    index, last = jnp.arange(array.shape[0]), _shape(eqn.invars[0])[0] - 1
    return lax.squeeze(_pick(index[:, None] + index[None, :] == last, array[:, None], 0), [0])


def _cumsum(eqn: Any, array: Any) -> Any:
    if array.ndim != 1 or eqn.params["reverse"]:
        raise NotInKernel("sums from the end, or of more than a vector")
    index = jnp.arange(array.shape[0])
    return jnp.sum(jnp.where(index[:, None] <= index[None, :], array[:, None], 0), axis=0)


def _carried(values: Sequence[Any]) -> tuple[Callable[..., Any], Callable[..., Any], list[Any]]:
    """Bools are carried as numbers: Triton's loops hold none that came of a choice."""
    are_bools = [value.dtype == bool for value in values]

    def hold(values: Sequence[Any]) -> list[Any]:
        return [v.astype(jnp.int32) if b else v for v, b in zip(values, are_bools, strict=True)]

    def free(values: Sequence[Any]) -> list[Any]:
        return [v != 0 if b else v for v, b in zip(values, are_bools, strict=True)]

    return hold, free, hold(values)


def _while(eqn: Any, *values: Any) -> Any:
    params = eqn.params
    first = params["cond_nconsts"]
    second = first + params["body_nconsts"]
    of_condition, of_body = values[:first], values[first:second]
    hold, free, carry = _carried(values[second:])

    def condition(carry: Any) -> Any:
        return run_in_kernel(params["cond_jaxpr"], [*of_condition, *free(carry)])[0]

    def body(carry: Any) -> Any:
        return hold(run_in_kernel(params["body_jaxpr"], [*of_body, *free(carry)]))

    return free(lax.while_loop(condition, body, carry))


def _scan(eqn: Any, *values: Any) -> Any:
    """A loop of known length, without anything by turn."""
    part = opened(eqn.params["jaxpr"])
    pairs = [(eqn.invars, part.invars), (eqn.outvars, part.outvars)]
    by_turn = any(list(map(_shape, outer)) != list(map(_shape, inner)) for outer, inner in pairs)
    if by_turn or eqn.params["reverse"]:
        raise NotInKernel("a scan over arrays")
    number = len(values) - len(eqn.outvars)
    constants, (hold, free, carry) = values[:number], _carried(values[number:])

    def body(_: Any, carry: Any) -> Any:
        return hold(run_in_kernel(eqn.params["jaxpr"], [*constants, *free(carry)]))

    return free(lax.fori_loop(0, eqn.params["length"], body, carry))


def _nested(eqn: Any, *values: Any) -> Any:
    if eqn.params["axes"]:
        raise NotInKernel("a kernel for each of several problems")
    return run_in_kernel(eqn.params["program"], values)


_RULES_BY_NAME: dict[str, Rule] = {"diagonal": _diagonal}
_RULES: dict[str, Rule] = {
    "reduce_sum": _reduce(jnp.sum, lambda dtype: 0),
    "reduce_max": _reduce(_max, _least),
    "reduce_min": _reduce(_min, _most),
    "reduce_or": _reduce(_any, lambda dtype: False),
    "reduce_and": _reduce(_all, lambda dtype: True),
    "argmin": _arg(1),
    "argmax": _arg(-1),
    "dot_general": _dot_general,
    "cholesky": _cholesky,
    "lu": _lu,
    "triangular_solve": _triangular_solve,
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeeze,
    "reshape": _reshape,
    "transpose": _transpose,
    "iota": _iota,
    "convert_element_type": _convert,
    "reduce_precision": _round,
    "dynamic_slice": _dynamic_slice,
    "slice": _slice,
    "pad": _pad,
    "gather": _gather,
    "scatter": _scatter(lambda array, update: update),
    "scatter-add": _scatter(lambda array, update: array + update),
    "stack": _join,
    "concatenate": _join,
    "sort": _sort,
    "rev": _reverse,
    "cumsum": _cumsum,
    "while": _while,
    "scan": _scan,
    "one_launch": _nested,
}
