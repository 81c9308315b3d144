"""The gradients of several losses from the program of one backward pass.

The backward pass from T losses to the parameters is linear, and much of it belongs to one loss
alone: a head, a decoder, a batch of its own. That part is run once, not T times. T rows are carried
only from the point where contributions of several losses have met.
"""

import collections
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._manual_axes import vary_like
from jaxmtl.backward._programs import is_variable, opened, read_program, run_program

# The first operations of the backward pass from stacked losses, in this and earlier versions of
# JAX.
TAKE_APART = {"reshape", "slice", "split", "squeeze", "unstack"}


class Rows(dict[int, Any]):
    """The value of a variable for each task, by the task's number; missing tasks have none."""


class Stack(NamedTuple):
    """The value of a variable for several tasks, stacked in the order of their numbers."""

    tasks: tuple[int, ...]
    rows: Array


def task_rows(
    pull_back: Callable[[PyTree], PyTree],
    losses: PyTree,
    for_each: Callable[[Callable[[PyTree], PyTree], PyTree], PyTree],
) -> PyTree:
    """Stack the gradients of the single losses.

    Args:
      pull_back: from cotangents, a tree like ``losses``, to a gradient; linear.
      losses: a tree of T scalars, or of one array of shape (T,).
      for_each: applies a function to each row of a tree of stacked arrays; stacks the results.

    Returns:
      The gradient, with a leading axis of size T.
    """
    leaves = jax.tree.leaves(losses)
    whole, of_whole, gradient = read_program(pull_back, losses)
    # Jitted functions within the program show their parts only when they are inlined.
    program, constants, _ = read_program(functools.partial(_run_inlined, whole, of_whole), leaves)
    values: dict[Any, Any] = dict(zip(program.constvars, constants, strict=True))
    num_tasks = len(leaves)
    if leaves[0].ndim:
        num_tasks = leaves[0].size
        values[program.invars[0]] = Rows(enumerate(np.eye(num_tasks, dtype=leaves[0].dtype)))
    else:
        for task, (var, leaf) in enumerate(zip(program.invars, leaves, strict=True)):
            values[var] = Rows({task: jnp.ones_like(leaf)})
    reached: dict[Any, set[int]] = {}
    groups: dict[tuple[int, ...], list[Any]] = collections.defaultdict(list)
    for eqn in program.eqns:
        own = _by_task(program, eqn, values)
        if own is not None:
            values |= zip(eqn.outvars, own, strict=True)
            continue
        known = [values.get(var, reached.get(var)) for var in _read_by([eqn])]
        tasks: set[int] = set().union(*(v for v in known if isinstance(v, Rows | set)))
        reached |= dict.fromkeys(eqn.outvars, tasks)
        groups[tuple(sorted(tasks))].append(eqn)

    results = [var for var in program.outvars if is_variable(var)]
    # A group reads the results of groups with fewer tasks.
    for reach in sorted(groups, key=len):
        later = [eqn for other in groups if len(other) > len(reach) for eqn in groups[other]]
        wanted = dict.fromkeys(_read_by(later) + results)
        values |= _for_tasks(program, groups[reach], reach, wanted, values, for_each)

    everyone = tuple(range(num_tasks))
    rows = [_stack(_value(var, values), var.aval, everyone) for var in program.outvars]
    return jax.tree.unflatten(jax.tree.structure(gradient), rows)


def _for_tasks(
    program: Any,
    eqns: list[Any],
    tasks: tuple[int, ...],
    wanted: Iterable[Any],
    values: dict[Any, Any],
    for_each: Callable[[Callable[[PyTree], PyTree], PyTree], PyTree],
) -> dict[Any, Stack]:
    """Run operations for each of the tasks that reach them, and return the variables requested.

    No other task may go through them: a zero times an infinite derivative is NaN, and a
    ``custom_vjp`` that is not linear may turn zero into anything.
    """
    made = {var for eqn in eqns for var in eqn.outvars}
    found = [var for var in wanted if var in made]
    read = [var for var in _read_by(eqns) if isinstance(values.get(var), Rows | Stack)]

    def of_task(row: Sequence[Array]) -> list[Array]:
        return run_operations(program, eqns, found, values | dict(zip(read, row, strict=True)))

    stacked = for_each(of_task, [_stack(values[var], var.aval, tasks) for var in read])
    return {var: Stack(tasks, rows) for var, rows in zip(found, stacked, strict=True)}


def _by_task(program: Any, eqn: Any, values: dict[Any, Any]) -> Sequence[Any] | None:
    """The results of an operation; None after the contributions of several tasks have met."""
    inputs = {var: values.get(var) for var in _read_by([eqn])}
    rows = [value for value in inputs.values() if isinstance(value, Rows)]
    tasks = sorted(set().union(*rows))
    if any(value is None for value in inputs.values()):
        return None
    if rows and not tasks:
        return [Rows() for _ in eqn.outvars]
    if not tasks:
        return run_operations(program, [eqn], eqn.outvars, inputs)
    if len(tasks) == 1:
        [task] = tasks
        own = {
            var: value.get(task, _zero(var.aval)) if isinstance(value, Rows) else value
            for var, value in inputs.items()
        }
        return [Rows({task: result}) for result in run_operations(program, [eqn], eqn.outvars, own)]
    if eqn.primitive.name == "add_any" and len(rows) == 2:
        left, right = rows
        both = {task: left[task] + right[task] for task in left.keys() & right.keys()}
        return [Rows(left | right | both)]
    if eqn.primitive.name == "sharding_constraint":
        # For each row before they are stacked: XLA would shard the rows and the stack in
        # another way, and exchange data between the devices afterwards.
        pinned = Rows()
        for task, row in rows[0].items():
            [pinned[task]] = run_operations(program, [eqn], eqn.outvars, {eqn.invars[0]: row})
        return [pinned]
    if eqn.primitive.name in TAKE_APART:
        if not any(isinstance(row, np.ndarray) for row in rows[0].values()):
            return None
        parts = {task: _apart(program, eqn, row) for task, row in rows[0].items()}
        return [
            Rows({task: part[i] for task, part in parts.items() if _may_count(part[i])})
            for i in range(len(eqn.outvars))
        ]
    return None


def _apart(program: Any, eqn: Any, row: Any) -> list[Any]:
    """Split one row; constant rows are split at once, even while a function is traced."""
    if not isinstance(row, np.ndarray):
        return run_operations(program, [eqn], eqn.outvars, {eqn.invars[0]: row})
    part = program.replace(constvars=(), invars=eqn.invars, outvars=eqn.outvars, eqns=[eqn])
    with jax.ensure_compile_time_eval():
        return [np.asarray(x) for x in run_program(part, (), [row])]


def _may_count(row: Any) -> bool:
    """Whether a row may differ from zero."""
    return not isinstance(row, np.ndarray) or bool(np.any(row))


def run_operations(
    program: Any, eqns: list[Any], results: list[Any], values: dict[Any, Any]
) -> list[Array]:
    """Run some operations of a program, with their inputs in ``values``."""
    read = [var for var in _read_by(eqns) if var in values]
    part = program.replace(constvars=(), invars=read, outvars=results, eqns=eqns)
    return run_program(part, (), [vary_like(values[var], var.aval) for var in read])


def _run_inlined(
    program: Any, constants: Sequence[Array], arguments: Sequence[Array]
) -> list[Array]:
    """Run a program, and the jitted functions within it operation by operation."""
    values = dict(zip(program.constvars, constants, strict=True))
    values |= zip(program.invars, arguments, strict=True)
    for eqn in program.eqns:
        placed = (*eqn.params.get("in_shardings", ()), *eqn.params.get("out_shardings", ()))
        is_placed = any(isinstance(s, jax.sharding.Sharding) for s in placed)
        if eqn.primitive.name == "jit" and not is_placed:
            inputs = [_value(var, values) for var in eqn.invars]
            jitted = eqn.params["jaxpr"]
            results = _run_inlined(opened(jitted), jitted.consts, inputs)
        else:
            results = run_operations(program, [eqn], eqn.outvars, values)
        values |= zip(eqn.outvars, results, strict=True)
    return [_value(var, values) for var in program.outvars]


def _read_by(eqns: list[Any]) -> list[Any]:
    return list(dict.fromkeys(v for eqn in eqns for v in eqn.invars if is_variable(v)))


def _value(var: Any, values: dict[Any, Any]) -> Any:
    """The value of a variable or a literal; None if it is not known yet."""
    return values.get(var) if is_variable(var) else np.asarray(var.val, var.aval.dtype)


def _stack(value: Any, aval: Any, tasks: tuple[int, ...]) -> Array:
    """The values of a variable for these tasks, stacked; zero for tasks that do not reach it."""
    if isinstance(value, Stack):
        if value.tasks == tasks:
            return value.rows
        value = Rows(zip(value.tasks, value.rows, strict=True))
    if not isinstance(value, Rows):
        return jnp.broadcast_to(value, (len(tasks), *jnp.shape(value)))
    if len(value) == 1:
        # A pad is fused into its reader; on a GPU, a stack of one row and zeros is a launch.
        [(task, row)] = value.items()
        before = tasks.index(task)
        around = [(before, len(tasks) - before - 1, 0), *[(0, 0, 0)] * len(aval.shape)]
        return lax.pad(jnp.asarray(row)[None], jnp.zeros((), aval.dtype), around)
    zero = _zero(aval)
    return jnp.stack([value.get(task, zero) for task in tasks])


def _zero(aval: Any) -> Array:
    return jnp.zeros(aval.shape, aval.dtype)
