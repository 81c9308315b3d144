"""A problem with everything found out that the user left open, checked before any training."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import path_name
from jaxmtl._task_names import shown_names
from jaxmtl._typing import Array, LeafSelector, PyTree
from jaxmtl.backward._linearise import count_losses
from jaxmtl.backward._shared_leaves import shared_leaves
from jaxmtl.balancing._leaf_roles import select_leaves
from jaxmtl.problems._problem import Problem


class Completed(NamedTuple):
    """A problem whose functions all have one form, with and without a state.

    Attributes:
      problem: the problem, with ``tasks``, ``maximize``, ``metric_names`` and ``test`` filled in.
      start: ``key -> (params, state)``.
      losses: ``(params, state, batch, key) -> (losses, state)``.
      measure: ``(params, state, split) -> (T,) metrics``.
      shared: the leaves that are balanced.
      params: the shapes of the parameters.
    """

    problem: Problem
    start: Callable[[Array], tuple[PyTree, PyTree]]
    losses: Callable[[PyTree, PyTree, PyTree, Array], tuple[PyTree, PyTree]]
    measure: Callable[[PyTree, PyTree, PyTree], Array]
    shared: LeafSelector
    params: PyTree


def complete(problem: Problem) -> Completed:
    """Find out what the user left open.

    Raises:
      ValueError: where parts of the problem do not fit each other.
    """
    if not isinstance(problem, Problem):
        raise ValueError(
            "problem must be a jaxmtl.Problem(init=..., losses=..., train=...), but it is a"
            f" {type(problem).__name__}."
        )
    key = jax.eval_shape(jax.random.key, 0)
    begun = jax.eval_shape(problem.init, key)
    if problem.stateful and not (isinstance(begun, tuple | list) and len(begun) == 2):
        raise ValueError(
            "With stateful=True init must return a pair, (params, state), but it returned a"
            f" {type(begun).__name__}."
        )
    params, state = begun if problem.stateful else (begun, ())
    batch = _shapes(example(problem))

    def start(key: Array) -> tuple[PyTree, PyTree]:
        begun = problem.init(key)
        return (begun[0], begun[1]) if problem.stateful else (begun, ())

    def losses(params: PyTree, state: PyTree, batch: PyTree, key: Array) -> tuple[PyTree, PyTree]:
        if not problem.stateful:
            return problem.losses(params, batch), state
        found = problem.losses(params, state, batch, key)
        if not (isinstance(found, tuple | list) and len(found) == 2):
            raise ValueError(
                "With stateful=True losses must return a pair, (losses, state), but it returned a"
                f" {type(found).__name__}."
            )
        return found[0], found[1]

    values = jax.eval_shape(losses, params, state, batch, key)[0]
    values = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype), values)
    count_losses(values)  # raises where one is no scalar
    tasks = shown_names(values)
    if len(tasks) < 2:
        raise ValueError(f"losses must return two losses at least, but it returned {len(tasks)}.")
    if problem.tasks is not None and problem.tasks != tasks:
        raise ValueError(
            f"tasks are {', '.join(problem.tasks)}, but the losses bear the names"
            f" {', '.join(tasks)}, in this order."
        )
    problem = dataclasses.replace(
        problem,
        tasks=tasks,
        maximize=_by_task("maximize", problem.maximize, tasks, False),
        metric_names=_by_task(
            "metric_names", problem.metric_names, tasks, "metric" if problem.metrics else "loss"
        ),
        test=_test_split(problem),
    )
    measure = _measure(problem, losses, (params, state, problem.test, key))
    one_array = len(jax.tree.leaves(values)) == 1
    shared = _shared(problem, losses, (params, state, batch, key), one_array=one_array)
    return Completed(problem, start, losses, measure, shared, params)


def example(problem: Problem) -> PyTree:
    """A batch of the problem, or the first examples of its arrays."""
    if callable(problem.train):
        for batch in problem.train(0):
            return batch
        raise ValueError(
            "train gave no batch: it must return an iterator of batches, anew at each call."
        )
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(problem.train)}
    if len(sizes) != 1 or () in sizes or (0,) in sizes:
        raise ValueError(
            "train must be a tree of arrays whose first axis runs over the examples, or a function"
            f" from a seed to an iterator of batches, but its leaves have first axes of"
            f" {sorted(size[0] if size else 0 for size in sizes)}."
        )
    return jax.tree.map(lambda leaf: leaf[np.zeros(problem.batch, np.int32)], problem.train)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)), tree)


def _by_task(argument: str, value: Any, tasks: tuple[str, ...], default: Any) -> dict[str, Any]:
    """One value for each task, from one for all or a dict."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(tasks, default if value is None else value)
    if set(value) != set(tasks):
        raise ValueError(
            f"{argument} must have one entry for each task, {', '.join(tasks)}, but it has"
            f" {', '.join(map(str, value))}."
        )
    return {task: value[task] for task in tasks}


def _test_split(problem: Problem) -> PyTree:
    if problem.test is not None:
        return problem.test
    if callable(problem.train):
        raise ValueError(
            "test is needed where train is a function: arrays to report the metrics on."
        )
    return problem.train


def _measure(problem: Problem, losses: Callable[..., Any], shapes: Any) -> Callable[..., Array]:
    """The metrics as one vector, checked for names and shapes."""
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

    params, state, split, _ = shapes
    for part in (split, problem.validation):
        if part is not None:
            jax.eval_shape(measure, params, state, _shapes(part))
    return measure


def _shared(
    problem: Problem, losses: Callable[..., Any], shapes: Any, *, one_array: bool
) -> LeafSelector:
    """The leaves that are balanced: as told, or where two losses meet."""
    params, *rest = shapes
    shared: Any = problem.shared
    if shared is None and one_array:
        shared = True  # of one array nobody can tell which of its parts depends on what
    elif shared is None:
        shared = shared_leaves(lambda params, *rest: losses(params, *rest)[0], params, *rest)
        if not any(jax.tree.leaves(shared)):
            raise ValueError(
                "No parameter is shared: each loss depends on leaves of its own, so that there is"
                " nothing to balance."
            )
    select_leaves((shared,), params)
    return shared
