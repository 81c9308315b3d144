"""The operations of a backward pass that add up the examples, with the examples kept separate.

They are the operations that end at a parameter: the product of a layer's inputs with its
cotangents, the same for a convolution, the sum for a bias, the scatter for an embedding.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._typing import Array
from jaxmtl.backward._example_axis import Cotangents, index_axis
from jaxmtl.backward._outer_products import Outer, Whole


def taken_apart(
    eqn: Any,
    number: int,
    at: Cotangents,
    inputs: list[Array],
    run: Callable[[list[Array]], list[Array]],
) -> Outer | Whole | None:
    """The result of an operation for each example; None for an operation that is not supported.

    Args:
      eqn: the operation.
      number: which input holds the cotangents.
      at: the cotangents.
      inputs: all inputs, as arrays.
      run: runs the operation on other inputs.
    """
    rule = _RULES.get(eqn.primitive.name)
    return rule(eqn, number, at, inputs, run) if rule is not None else None


def _product(eqn: Any, number: int, at: Cotangents, inputs: list[Array], run: Any) -> Outer:
    """For ``dot_general``, which sums over the axis of the examples."""
    summed, batch = eqn.params["dimension_numbers"]
    place = summed[number].index(at.axis)
    factors: list[Array] = []
    free = []
    for x, over, groups in zip(inputs, summed, batch, strict=True):
        positions = [axis for n, axis in enumerate(over) if n != place]
        others = [axis for axis in range(x.ndim) if axis not in (*over, *groups)]
        order = (over[place], *groups, *positions, *others)
        sizes = [[x.shape[axis] for axis in axes] for axes in (groups, positions, others)]
        # An example's slices of a merged axis are positions too.
        apart = jnp.transpose(x, order).reshape(-1, at.inner, *(math.prod(s) for s in sizes))
        shape = len(apart), math.prod(sizes[0]), at.inner * math.prod(sizes[1]), -1
        factors.append(jnp.swapaxes(apart, 1, 2).reshape(shape))
        free.append((tuple(sizes[0]), tuple(sizes[2])))
    shapes = free[0][0], free[0][1], free[1][1]
    left, right = factors
    return Outer(left, right, shapes, tuple(range(sum(map(len, shapes)))))


def _sum(eqn: Any, number: int, at: Cotangents, inputs: list[Array], run: Any) -> Whole:
    """For ``reduce_sum`` over the examples, and possibly over positions."""
    apart = _split(at.array, at.axis, at.inner)
    axes = [axis + (axis > at.axis) for axis in eqn.params["axes"] if axis != at.axis]
    rows = jnp.sum(apart, axis=(*axes, at.axis + 1), keepdims=True)
    rows = jnp.squeeze(jnp.moveaxis(rows, at.axis, 0), axis=_after_move(axes, at.axis))
    return Whole(rows)


def _after_move(axes: Sequence[int], first: int) -> tuple[int, ...]:
    """The positions of the summed axes after the axis ``first`` has moved to the front."""
    return tuple(axis + (axis < first) for axis in (*axes, first + 1))


def _scatter(eqn: Any, number: int, at: Cotangents, inputs: list[Array], run: Any) -> Whole | None:
    """For ``scatter-add`` at indices of each example: the gradient of an embedding."""
    numbers = eqn.params["dimension_numbers"]
    if number != 2 or at.axis in numbers.update_window_dims:
        return None
    into, indices, updates = inputs
    place = index_axis(eqn, at)
    taken = _split(indices, place, at.inner), _split(updates, at.axis, at.inner)
    rows = jax.vmap(lambda i, u: run([into, i, u])[0], in_axes=(place, at.axis))(*taken)
    return Whole(rows)


def _convolution(
    eqn: Any, number: int, at: Cotangents, inputs: list[Array], run: Any
) -> Outer | Whole | None:
    """For the gradient of a kernel: a convolution of the images with the cotangents as kernel."""
    params, (images, cotangents) = eqn.params, inputs
    numbers = params["dimension_numbers"]
    if number != 1 or at.axis != numbers.rhs_spec[1] or at.inner != 1:
        return None
    axis = numbers.lhs_spec[1]
    if images.shape[axis] != cotangents.shape[at.axis]:
        return None
    taken = _split(images, axis, 1), _split(cotangents, at.axis, 1)

    def write() -> Array:
        return jax.vmap(lambda *x: run(list(x))[0], in_axes=(axis, at.axis))(*taken)

    if params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
        return Whole(write())
    # This convolution exchanges the roles of examples and channels, and the roles of strides and
    # dilations.
    channels, examples, *spatial = numbers.lhs_spec
    images = jnp.transpose(images, (examples, channels, *spatial))
    outputs, _, *positions = numbers.rhs_spec
    cotangents = jnp.transpose(cotangents, (at.axis, *positions, outputs))
    kernel = [eqn.outvars[0].aval.shape[axis] for axis in numbers.out_spec[2:]]
    padding = [
        (low, (count - 1) * stride + (size - 1) * dilation - (length - 1) * spread - low)
        for (low, _), count, stride, size, dilation, length, spread in zip(
            params["padding"],
            cotangents.shape[1:-1],
            params["rhs_dilation"],
            kernel,
            params["window_strides"],
            images.shape[2:],
            params["lhs_dilation"],
            strict=True,
        )
    ]
    patches = lax.conv_general_dilated_patches(
        images,
        kernel,
        params["rhs_dilation"],
        padding,
        lhs_dilation=params["lhs_dilation"],
        rhs_dilation=params["window_strides"],
        precision=lax.Precision.HIGHEST,
    )
    left = jnp.moveaxis(patches.reshape(*patches.shape[:2], -1), 1, 2)[:, None]
    right = cotangents.reshape(len(cotangents), 1, -1, cotangents.shape[-1])
    shapes = (), (images.shape[1], *kernel), (cotangents.shape[-1],)
    # The places of channels, kernel and outputs, one after the other, in the result.
    places = (0, 1 + len(kernel), *range(1, 1 + len(kernel)))
    order = tuple(places[numbers.out_spec.index(axis)] for axis in range(len(places)))
    return Outer(left, right, shapes, order, write=write)


def _split(x: Array, axis: int, inner: int) -> Array:
    """Split an axis of examples and their slices into two axes."""
    return x.reshape(*x.shape[:axis], -1, inner, *x.shape[axis + 1 :])


_RULES: dict[str, Callable[..., Outer | Whole | None]] = {
    "dot_general": _product,
    "reduce_sum": _sum,
    "scatter-add": _scatter,
    "conv_general_dilated": _convolution,
}
