"""The position of the example axis during the backward pass from one loss per example.

The backward pass is linear. Seeded with ones, it carries the cotangents of all examples side by
side, each in its own slice of one axis, as long as no operation adds up slices or mixes them. This
module determines for each operation where that axis goes; an operation that it does not support
counts as mixing.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from jaxmtl._typing import Array


class Cotangents(NamedTuple):
    """Cotangents of all examples side by side.

    Attributes:
      array: example n has the slices n * inner to (n + 1) * inner of the axis.
      axis: the axis of the examples.
      inner: number of slices per example: 1, unless the axis was merged with later ones.
    """

    array: Array
    axis: int
    inner: int = 1


class Mixed(Exception):
    """The backward pass from one example's loss passes through another example."""


def axis_after(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    """The axis and its slices in the result of an operation on this input; None if it is lost."""
    rule = _RULES.get(eqn.primitive.name)
    found = rule(eqn, number, at) if rule is not None else None
    return None if found is None else (int(found[0]), int(found[1]))  # some are NumPy's


def _besides(taken: Iterable[int], rank: int) -> list[int]:
    """The axes of an array that are not among these."""
    return sorted(set(range(rank)).difference(taken))


def _same(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    alike = eqn.outvars[0].aval.shape == at.array.shape
    return (at.axis, at.inner) if alike else None


def _transpose(eqn: Any, number: int, at: Cotangents) -> tuple[int, int]:
    return eqn.params["permutation"].index(at.axis), at.inner


def _reshape(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    if eqn.params.get("dimensions") is not None:  # which would be transposed first
        return None
    old, new = at.array.shape, eqn.outvars[0].aval.shape
    before, examples = math.prod(old[: at.axis]), old[at.axis] // at.inner
    for axis, size in enumerate(new):
        if math.prod(new[:axis]) == before and size and size % examples == 0:
            return axis, size // examples
    return None


def _broadcast(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    axis = eqn.params["broadcast_dimensions"][at.axis]
    kept = eqn.outvars[0].aval.shape[axis] == at.array.shape[at.axis]
    return (axis, at.inner) if kept else None


def _squeeze(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    return _without(eqn.params["dimensions"], at)


def _reduce(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    return _without(eqn.params["axes"], at)


def _without(axes: tuple[int, ...], at: Cotangents) -> tuple[int, int] | None:
    return None if at.axis in axes else (at.axis - sum(a < at.axis for a in axes), at.inner)


def _product(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    summed, batch = eqn.params["dimension_numbers"]
    if at.axis in summed[number]:
        return None
    if at.axis in batch[number]:
        return batch[number].index(at.axis), at.inner
    free = _besides((*summed[number], *batch[number]), at.array.ndim)
    ahead = len(batch[0])
    if number:
        ahead += eqn.invars[0].aval.ndim - len(batch[0]) - len(summed[0])
    return ahead + free.index(at.axis), at.inner


def _convolution(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    numbers = eqn.params["dimension_numbers"]
    is_batch = number == 0 and at.axis == numbers.lhs_spec[0]
    return (numbers.out_spec[0], at.inner) if is_batch and at.inner == 1 else None


def _of_other_axes(name: str) -> Callable[..., tuple[int, int] | None]:
    """A rule for operations along other axes, which a parameter names."""

    def rule(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
        axes = eqn.params[name]
        axes = axes if isinstance(axes, tuple) else (axes,)
        return None if at.axis in axes else (at.axis, at.inner)

    return rule


def _stack(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    return at.axis + (at.axis >= eqn.params["axis"]), at.inner


def _unstack(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    return _without((eqn.params["axis"],), at)


def _pad(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    kept = number == 0 and eqn.params["padding_config"][at.axis] == (0, 0, 0)
    return (at.axis, at.inner) if kept else None


def _whole(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    """A rule for operations that may take a part of an axis; this axis must stay whole."""
    kept = eqn.outvars[0].aval.shape[at.axis] == at.array.shape[at.axis]
    return (at.axis, at.inner) if kept and number < 2 else None


def _windows(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    params = eqn.params
    names = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    ones = all(params[name][at.axis] == 1 for name in names if name in params)
    return (at.axis, at.inner) if ones and params["padding"][at.axis] == (0, 0) else None


def _scatter(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    """The rule for gradients of entries that are chosen or replaced, at indices per example too."""
    numbers = eqn.params["dimension_numbers"]
    if number == 0:  # what is scattered into, all of which stays
        return at.axis, at.inner
    if number == 1:  # the indices, which are no cotangents
        return None
    if at.axis in numbers.update_window_dims:
        taken = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
        windows = _besides(taken, eqn.outvars[0].aval.ndim)
        axis = windows[numbers.update_window_dims.index(at.axis)]
        whole = eqn.outvars[0].aval.shape[axis] == at.array.shape[at.axis]
        return (axis, at.inner) if whole else None
    place = index_axis(eqn, at)
    if place not in numbers.scatter_indices_batching_dims:
        return None
    order = numbers.scatter_indices_batching_dims.index(place)
    return numbers.operand_batching_dims[order], at.inner


def _gather(eqn: Any, number: int, at: Cotangents) -> tuple[int, int] | None:
    """The rule for gradients of what is added up at indices, such as sums of segments."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    indexed = (*numbers.start_index_map, *numbers.collapsed_slice_dims)
    if number or at.axis in indexed:
        return None
    if at.axis in numbers.operand_batching_dims:
        order = numbers.operand_batching_dims.index(at.axis)
        batch = _besides(numbers.offset_dims, eqn.outvars[0].aval.ndim)
        return batch[numbers.start_indices_batching_dims[order]], at.inner
    taken = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    windows = _besides(taken, at.array.ndim)
    whole = sizes[at.axis] == at.array.shape[at.axis]
    return (numbers.offset_dims[windows.index(at.axis)], at.inner) if whole else None


def index_axis(eqn: Any, at: Cotangents) -> int:
    """The axis of a scatter's indices that runs over the examples, as one of its updates does."""
    window = eqn.params["dimension_numbers"].update_window_dims
    return _besides(window, at.array.ndim).index(at.axis)


_ELEMENTWISE = (
    *("mul", "div", "neg", "add_any", "add", "sub", "select_n", "convert_element_type", "copy"),
    *("copy_p", "reduce_precision", "real", "imag", "conj", "sharding_constraint"),
)
_RULES: dict[str, Callable[[Any, int, Cotangents], tuple[int, int] | None]] = {
    **dict.fromkeys(_ELEMENTWISE, _same),
    "transpose": _transpose,
    "reshape": _reshape,
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeeze,
    "reduce_sum": _reduce,
    "dot_general": _product,
    "conv_general_dilated": _convolution,
    "rev": _of_other_axes("dimensions"),
    "cumsum": _of_other_axes("axis"),
    "concatenate": _of_other_axes("dimension"),
    "split": _of_other_axes("axis"),
    "stack": _stack,
    "unstack": _unstack,
    "pad": _pad,
    "slice": _whole,
    "dynamic_slice": _whole,
    "dynamic_update_slice": _whole,
    "select_and_scatter_add": _windows,
    "reduce_window_sum": _windows,
    "scatter": _scatter,
    "scatter-add": _scatter,
    "gather": _gather,
}
