"""The metrics of a problem, measured on a split: one number for each task."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import path_name
from jaxmtl._typing import Array, PyTree
from jaxmtl.problems._problem import Problem


def measuring(problem: Problem, losses: Callable[..., Any]) -> Callable[..., Array]:
    """Write ``(params, state, split) -> (T,) metrics``, which checks their names and shapes.

    Args:
      problem: the problem, with its tasks' names.
      losses: ``(params, state, batch, key) -> (losses, state)``, the metrics if there are none.
    """
    tasks: Any = problem.tasks

    def measure(params: PyTree, state: PyTree, split: PyTree) -> Array:
        if problem.metrics is None:
            values = losses(params, state, split, jax.random.key(0))[0]
        elif problem.stateful:
            values = problem.metrics(params, state, split)
        else:
            values = problem.metrics(params, split)
        entries = jax.tree.leaves_with_path(values)
        if len(entries) == 1 and jnp.shape(entries[0][1]) == (len(tasks),):
            return jnp.asarray(entries[0][1], jnp.float32)
        names = tuple(path_name(path) for path, _ in entries)
        if names != tasks:
            raise ValueError(
                f"metrics must return one scalar for each task, {', '.join(tasks)}, but on test it"
                f" returned {', '.join(names)}."
            )
        for name, (_, value) in zip(names, entries, strict=True):
            if jnp.shape(value) != ():
                raise ValueError(
                    f"The metric of {name!r} must be a scalar, but on test it has shape"
                    f" {jnp.shape(value)}: reduce it over the examples."
                )
        return jnp.stack([jnp.asarray(value, jnp.float32) for _, value in entries])

    return measure
