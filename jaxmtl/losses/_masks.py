"""Losses over the examples that have a label."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import real_array, shown, wide_dtype
from jaxmtl._typing import Array


def masked_mean(values: Array, mask: Array, axis: int | Sequence[int] | None = None) -> Array:
    """Average over the entries that the mask selects; zero, with zero gradient, if it is empty.

    Use it with ``active=mask.any()`` for a task without labels in part of a batch:
    sum_i m_i v_i / max(sum_i m_i, 1). Entries outside the mask, also NaN and infinity, change
    neither the mean nor its gradient with respect to ``values``.

    This function cannot undo how the values were computed, and zero times an infinite or NaN
    derivative is NaN. If missing labels are NaN, they must be replaced before they are compared
    with a prediction: ``jnp.where(mask, labels, 0.0)``.

    Args:
      values: the losses of the examples, or of their pixels.
      mask: bools of the shape of ``values``, True where there is a label.
      axis: the axis or axes to average over; all if None.

    Returns:
      The mean, in the type of ``values`` (float32 for whole numbers and bools), accumulated in
      float32 or better.

    Raises:
      ValueError: if ``mask`` is not of type bool, or does not have the shape of ``values``.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxmtl
      >>> labels = jnp.array([1.0, jnp.nan, 3.0])
      >>> mask = ~jnp.isnan(labels)
      >>> def loss(prediction, mask):
      ...     errors = prediction - jnp.where(mask, labels, 0.0)
      ...     return jaxmtl.masked_mean(errors**2, mask)
      >>> print(jax.grad(loss)(jnp.zeros(3), mask))
      [-1.  0. -3.]
      >>> print(jax.grad(loss)(jnp.zeros(3), jnp.zeros(3, bool)))
      [0. 0. 0.]
    """
    values, mask = jnp.asarray(real_array("values", values)), jnp.asarray(real_array("mask", mask))
    axes: Any = axis if isinstance(axis, tuple | list) else [] if axis is None else [axis]
    for number in axes:
        is_int = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not is_int or not -values.ndim <= number < values.ndim:
            raise ValueError(
                f"axis must be an int or a tuple of ints that are axes of values, whose shape is"
                f" {values.shape}, but it is {shown(axis)}."
            )
    axis = None if axis is None else tuple(axes)
    if mask.dtype != bool:
        raise ValueError(
            f"mask must be of type bool, but it has type {mask.dtype}: for numbers, pass mask != 0."
        )
    if mask.shape != values.shape:
        raise ValueError(
            f"mask must have the shape of values, {values.shape}, but it has {mask.shape}: average"
            " values over the other axes first, or broadcast the mask."
        )
    dtype = wide_dtype(values.dtype)
    result = values.dtype if jnp.issubdtype(values.dtype, jnp.floating) else dtype
    total = jnp.sum(jnp.where(mask, values, 0), axis, dtype=dtype)
    return (total / jnp.maximum(jnp.sum(mask, axis, dtype=dtype), 1)).astype(result)
