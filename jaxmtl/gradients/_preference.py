"""How much each task counts, for the methods whose papers have such a vector."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmtl._base import Given
from jaxmtl._checks import constant_vector, optional_num_tasks, task_names
from jaxmtl._typing import Array, TaskVector


class Preference(NamedTuple):
    """A user's preference vector, or None for equal shares, and what it tells of the tasks."""

    vector: Any
    num_tasks: int | None
    names: tuple[str, ...] | None


def read_preference(preference: TaskVector | None, num_tasks: int | None) -> Preference:
    """Check a preference and the number of tasks against each other."""
    num_tasks = optional_num_tasks(num_tasks)
    if preference is None:
        return Preference(None, num_tasks, None)
    vector = constant_vector("preference", preference, num_tasks, above=0.0)
    return Preference(vector, vector.shape[0], task_names(preference))


def preferences(wanted: Preference, given: Given) -> Array:
    """The vector of this step: the user's, or equal shares of the tasks present; 0 where absent."""
    if wanted.vector is None:
        return equal_shares(given)
    return jnp.where(given.active, jnp.asarray(wanted.vector, given.gramian.dtype), 0)


def equal_shares(given: Given) -> Array:
    """1/T for each of the T tasks present, 0 for the absent ones."""
    return given.active.astype(given.gramian.dtype) / jnp.maximum(jnp.sum(given.active), 1)
