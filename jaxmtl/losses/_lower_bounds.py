"""Lower bounds of the losses, above which methods with ratios or logarithms measure them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import optional_num_tasks
from jaxmtl._task_values import constant_vector
from jaxmtl._typing import Array, TaskVector


def read_lower_bounds(
    lower_bounds: TaskVector | None, num_tasks: int | None
) -> tuple[Array | None, int | None]:
    """Check the bounds and the number of tasks, which the bounds may give."""
    num_tasks = optional_num_tasks(num_tasks)
    if lower_bounds is None:
        return None, num_tasks
    bounds = constant_vector("lower_bounds", lower_bounds, num_tasks)
    return bounds, bounds.shape[0]


def distance(losses: Array, bounds: Array | None) -> Array:
    """The losses minus their bounds, L - b: below zero if a loss is below its bound."""
    return losses if bounds is None else losses - jnp.asarray(bounds, losses.dtype)


def excess(losses: Array, bounds: Array | None) -> Array:
    """How far the losses are above their bounds, max(L - b, 0)."""
    return jnp.maximum(distance(losses, bounds), 0)


def known_excess(
    name: str, values: TaskVector | None, num_tasks: int, bounds: Array | None
) -> Array | None:
    """Losses that are known beforehand minus their bounds; every difference must be positive."""
    if values is None:
        return None
    if bounds is None:
        return constant_vector(name, values, num_tasks, above=0.0)
    above = distance(jnp.asarray(constant_vector(name, values, num_tasks)), bounds)
    if not isinstance(above, jax.core.Tracer) and not np.all(np.asarray(above) > 0):
        raise ValueError(
            f"{name} must be above lower_bounds for every task, but the differences are {above}."
        )
    return above
