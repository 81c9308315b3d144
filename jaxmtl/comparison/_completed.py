"""A problem with all defaults filled in, checked before any training."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import leaf_path, path_name
from jaxmtl._task_names import shown_names
from jaxmtl._typing import Array, LeafSelector, PyTree
from jaxmtl.backward._linearise import count_losses
from jaxmtl.backward._shared_leaves import shared_leaves
from jaxmtl.balancing._leaf_roles import select_leaves
from jaxmtl.comparison._metrics import measuring
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
      balanced: the paths of the leaves that are balanced.
      own: the paths of all others, which receive their own task's gradient.
    """

    problem: Problem
    start: Callable[[Array], tuple[PyTree, PyTree]]
    losses: Callable[[PyTree, PyTree, PyTree, Array], tuple[PyTree, PyTree]]
    measure: Callable[[PyTree, PyTree, PyTree], Array]
    shared: LeafSelector
    params: PyTree
    balanced: tuple[str, ...]
    own: tuple[str, ...]


def complete(problem: Problem) -> Completed:
    """Fill in everything that the user left out.

    Raises:
      ValueError: if parts of the problem do not fit each other.
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
            "With stateful=True init must return a pair, (params, state), but it returned"
            f" {_returned(begun)}."
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
                "With stateful=True losses must return a pair, (losses, state), but it returned"
                f" {_returned(found)}."
            )
        _check_state(state, found[1])
        return found[0], found[1]

    values = jax.eval_shape(losses, params, state, batch, key)[0]
    values = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype), values)
    count_losses(values)  # raises if one is not a scalar
    tasks = shown_names(values)
    if len(tasks) < 2:
        raise ValueError(f"losses must return at least two losses, but it returned {len(tasks)}.")
    if problem.tasks is not None and problem.tasks != tasks:
        raise ValueError(
            f"tasks are {', '.join(problem.tasks)}, but the losses have the names"
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
        **{name: _constants(problem, name, tasks) for name in ("prior_values", "standardisation")},
    )
    measure = measuring(problem, losses)
    for split in (problem.test, problem.validation):
        if split is not None:
            jax.eval_shape(measure, params, state, _shapes(split))
    one_array = len(jax.tree.leaves(values)) == 1
    shared = _shared(problem, losses, (params, state, batch, key), one_array=one_array)
    paths = [leaf_path(path) for path, _ in jax.tree.leaves_with_path(params)]
    chosen = list(zip(paths, select_leaves((shared,), params), strict=True))
    balanced = tuple(path for path, is_shared in chosen if is_shared)
    own = tuple(path for path, is_shared in chosen if not is_shared)
    return Completed(problem, start, losses, measure, shared, params, balanced, own)


def example(problem: Problem) -> PyTree:
    """A batch of the problem, or the first examples of its arrays."""
    if problem.sample is not None:
        return problem.sample(jax.random.key(0))
    if callable(problem.train):
        for batch in problem.train(0):
            return batch
        raise ValueError(
            "train gave no batch: it must return a new iterator of batches at each call."
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


def _constants(problem: Problem, argument: str, tasks: tuple[str, ...]) -> Any:
    value = getattr(problem, argument)
    return None if value is None else _by_task(argument, value, tasks, None)


def _returned(found: Any) -> str:
    """Write "a dict", or "a tuple of 3"."""
    many = f" of {len(found)}" if isinstance(found, tuple | list) else ""
    return f"a {type(found).__name__}{many}"


def _check_state(before: PyTree, after: PyTree) -> None:
    """Raise if a step would return a state of another form than it received."""
    old, new = (
        {
            path_name(path): f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
            for path, leaf in jax.tree.leaves_with_path(state)
        }
        for state in (before, after)
    )
    structures: list[Any] = [jax.tree.structure(state) for state in (before, after)]
    if structures[0] == structures[1] and old == new:
        return
    odd = [n for n in old | new if old.get(n) != new.get(n)]
    where = ""
    if odd:
        where = f" {odd[0] or 'The state'} was {old.get(odd[0], 'absent')} and became"
        where += f" {new.get(odd[0], 'absent')}."
    raise ValueError(
        "losses must return a state of the structure, shapes and types that init returned, but it"
        f" is another.{where}"
    )


def _test_split(problem: Problem) -> PyTree:
    if problem.test is not None:
        return problem.test
    if problem.sample is not None or callable(problem.train):
        raise ValueError(
            "test is needed if batches come from a function: pass arrays for the metrics."
        )
    return problem.train


def _shared(
    problem: Problem, losses: Callable[..., Any], shapes: Any, *, one_array: bool
) -> LeafSelector:
    """The leaves that are balanced: as given, or the leaves on which two losses depend."""
    params, *rest = shapes
    shared: Any = problem.shared
    if shared is None and one_array:
        shared = True  # the entries of one array cannot be traced back separately
    elif shared is None:
        shared = shared_leaves(losses, params, *rest, has_aux=True)
        if not any(jax.tree.leaves(shared)):
            raise ValueError(
                "No parameter is shared: each loss depends on leaves of its own, so there is"
                " nothing to balance."
            )
    return shared
