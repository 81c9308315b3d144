"""Preference vectors, for the methods whose papers have one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import optional_num_tasks
from jaxmtl._task_names import TaskNames, common_names
from jaxmtl._task_values import constant_vector
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._base import Given
from jaxmtl.balancing._gram import equal_shares


class Preference(NamedTuple):
    """The user's preference among the tasks, and what it says about them.

    Attributes:
      vector: the preference, or None for equal shares.
      num_tasks: T if it is known, else None.
      names: the tasks' names if an argument was given by name.
      ideal: the losses at which the method aims, or None for zeros.
    """

    vector: Any
    num_tasks: int | None
    names: TaskNames | None
    ideal: Any = None


def read_preference(
    preference: TaskVector | None,
    num_tasks: int | None,
    ideal: TaskVector | None = None,
    *,
    zeros: bool = False,
) -> Preference:
    """Check a preference, an ideal point and the number of tasks against each other.

    With ``zeros``, a preference may be zero for some of the tasks, but not for all.
    """
    num_tasks = optional_num_tasks(num_tasks)
    vector, point = None, None
    if preference is not None:
        bound = {"least": 0.0} if zeros else {"above": 0.0}
        vector = constant_vector("preference", preference, num_tasks, **bound)
        if not isinstance(vector, jax.core.Tracer) and not np.any(np.asarray(vector) > 0):
            raise ValueError(
                f"preference must be above 0 for at least one task, but it is {vector}."
            )
        num_tasks = vector.shape[0]
    if ideal is not None:
        point = constant_vector("ideal", ideal, num_tasks)
        num_tasks = point.shape[0]
    names = common_names(preference=preference, ideal=ideal)
    return Preference(vector, num_tasks, names, point)


def preferences(wanted: Preference, given: Given) -> Array:
    """The vector of this step: the user's, or equal shares of the tasks present; 0 if absent."""
    if wanted.vector is None:
        return equal_shares(given.active, _dtype(given))
    return jnp.where(given.active, jnp.asarray(wanted.vector, _dtype(given)), 0)


def above_ideal(wanted: Preference, given: Given) -> Array:
    """The losses minus the ideal point, L - z; 0 for absent tasks."""
    losses = given.losses
    if wanted.ideal is not None:
        losses = losses - jnp.asarray(wanted.ideal, losses.dtype)
    return jnp.where(given.active, losses, 0)


def _dtype(given: Given) -> jnp.dtype:
    """The type of what the method reads."""
    return (given.losses if given.gramian is None else given.gramian).dtype
