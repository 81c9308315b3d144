"""One value per task: the accepted forms, and the messages for all others."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import is_real, shown
from jaxmtl._typing import Array, TaskVector


def task_vector(name: str, value: TaskVector, num_tasks: int | None = None) -> Array:
    """Read one number per task.

    Args:
      name: the argument's name, for the message.
      value: an array of shape (T,), or a tree of scalars in ``jax.tree.leaves`` order.
      num_tasks: the required length, if known.

    Returns:
      An array of shape (T,); a NumPy array if no part of the input is on a device, so that a
      balancer can be built before JAX chooses its devices.

    Raises:
      ValueError: if the value is not one scalar per task, or has another length.
    """
    leaves = jax.tree.leaves(value)
    if not all(is_real(leaf) for leaf in leaves):
        raise ValueError(f"{name} must hold one real number per task, but it is {shown(value)}.")
    shapes = [np.shape(leaf) for leaf in leaves]
    stack = jnp.stack if any(isinstance(leaf, jax.Array) for leaf in leaves) else np.stack
    if len(leaves) == 1 and len(shapes[0]) == 1:
        vector = leaves[0]
    elif leaves and not any(shapes):
        vector = stack(leaves)
    else:
        raise ValueError(
            f"{name} must hold one scalar per task, as an array of shape (T,) or a tree of scalars,"
            f" but its leaves have shapes {shapes}."
        )
    if num_tasks is not None and vector.shape != (num_tasks,):
        raise ValueError(
            f"{name} holds {vector.shape[0]} values, but there are {num_tasks} tasks: give one for"
            " each, in jax.tree.leaves order of the losses."
        )
    return vector


def task_mask(name: str, value: TaskVector, num_tasks: int | None = None) -> Array:
    """Read one bool per task.

    Raises:
      ValueError: if the value is not one scalar per task, or not of type bool.
    """
    mask = task_vector(name, value, num_tasks)
    if mask.dtype != bool:
        raise ValueError(
            f"{name} must be a mask of bools, one per task, but it has type {mask.dtype}: for"
            f" numbers, pass {name}=(mask != 0)."
        )
    return mask


def constant_vector(
    name: str,
    value: TaskVector,
    num_tasks: int | None = None,
    *,
    above: float | None = None,
    least: float | None = None,
) -> Array:
    """Read a constant vector: finite and, if requested, above a bound or at least a bound."""
    vector = task_vector(name, value, num_tasks)
    if vector.dtype == bool:
        raise ValueError(f"{name} must hold one number per task, but it is {shown(value)}.")
    if not isinstance(vector, jax.core.Tracer):
        values, limits = np.asarray(vector, dtype=float), np.finfo(np.float32)
        if not np.all(np.abs(values) <= limits.max):
            raise ValueError(f"{name} must be finite in float32, but it is {values}.")
        if least is not None and not np.all(values >= least):
            raise ValueError(f"{name} must be at least {least} for every task, but it is {values}.")
        if above is not None and not np.all(values > above):
            raise ValueError(f"{name} must be above {above} for every task, but it is {values}.")
        if above is not None and not np.all(values >= limits.tiny):
            raise ValueError(
                f"{name} must have reciprocals that are finite in float32, but it is {values}."
            )
    return vector
