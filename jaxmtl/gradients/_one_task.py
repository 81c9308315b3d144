"""One task that a method treats differently from the others: a reference, or the main task."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import STATIC, shown
from jaxmtl._task_names import TaskNames, common_names
from jaxmtl._task_values import task_vector
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._base import Given


class OneTask(NamedTuple):
    """The place of one task among the others.

    Attributes:
      place: ``Given -> (T,) bool``, true at that task.
      names: the tasks' names, if the task was given by one bool for each.
      named: the entry for ``Weighting.named`` if the task was given by name.
    """

    place: Callable[[Given], Array]
    names: TaskNames
    named: tuple[tuple[str, str], ...] = ()


def read_one_task(argument: str, value: int | str | TaskVector, num_tasks: int) -> OneTask:
    """Read the name of a task, its index, or one bool for each task, of which one is true.

    Raises:
      ValueError: if it is none of these.
    """
    if isinstance(value, str):
        named = ((argument, str(value)),)
        return OneTask(lambda given: given.named[argument], common_names(), named)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        index = _checked(argument, value, np.arange(num_tasks) == value)
        return OneTask(lambda given: jnp.asarray(index), common_names())
    for leaf in jax.tree.leaves(value):
        if isinstance(leaf, jax.core.Tracer):
            raise ValueError(f"{argument} must be known, but it is {shown(leaf)}. {STATIC}")
    mask = _checked(argument, value, np.asarray(task_vector(argument, value, num_tasks)))
    return OneTask(lambda given: jnp.asarray(mask), common_names(**{argument: value}))


def _checked(argument: str, value: object, mask: np.ndarray) -> np.ndarray:
    if mask.dtype != bool or mask.sum() != 1:
        raise ValueError(
            f"{argument} must be the name or the index of one of the {len(mask)} tasks, or one bool"
            " for each of them of which one is true, such as"
            f' {{"boundary": False, "residual": True}}, but it is {shown(value)}.'
        )
    return mask
