"""The values of a step in an optimizer's state, as a flat dict for TensorBoard, W&B and so on."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmtl._checks import path_name
from jaxmtl._task_names import shown_names
from jaxmtl._task_values import task_vector
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._base import BalancerState
from jaxmtl.balancing._state import find_nodes
from jaxmtl.diagnostics import Report
from jaxmtl.losses.lagrangian import LagrangianState


def scalars(opt_state: PyTree, losses: TaskVector) -> dict[str, Array]:
    """Return the losses and the values of a step in the state as a flat dict of named scalars.

    With losses named ``depth`` and ``labels`` it has ``loss/depth``. If the balancer was built with
    ``num_tasks``, it has ``weight/depth`` and ``share/depth``, the weight over the sum of all
    weights (zero if the weight is). With ``report_only``, it has the values of
    ``jaxmtl.diagnostics.Report``: ``norm/depth``, ``cosine/depth-labels`` for each pair,
    ``update_cosine/depth``, ``broken/depth`` (the number of steps so far at which loss or gradient
    was not finite), ``conflicts``, ``norm_ratio``, ``similarity`` and ``stationarity``. With
    ``lagrangian``, it has ``multiplier/depth``, ``slack/depth`` (infinite for an objective) and
    ``at_largest/depth``.

    After a step that was not finite, the weights are those of the step before, and the report is
    that of the step itself; with ``every``, the report is that of the last step that computed
    weights. Values that are not finite are included as they are.

    If there are several balancers, as in ``optax.partition``, their names begin with the part of
    their paths in the tree that distinguishes them: ``trunk/weight/depth`` and
    ``head/weight/depth``.

    Measurements of ``optax.snapshot`` are included too, under their own names, if they are one
    scalar or have shape (T,), one for each task within ``per_task``. So the norms of the gradients
    before ``per_task`` can be shown beside ``norm/depth``, the norms that the balancer measured.

    Args:
      opt_state: any tree that holds states of balancers: of a chain, a named chain, a wrapper, a
        partition, several optimizers, or a whole ``TrainState``.
      losses: the losses that were passed to ``update``, a tree of scalars or a (T,) array. Tasks
        are named by their paths, ``depth`` or ``aux/0``, or by their numbers if there are no paths.

    Returns:
      A dict from names to scalars. They are NumPy's, with each array fetched whole, or traced if
      state or losses are, as within ``jit``. Within ``jit`` every scalar is a result for XLA to
      compile: with many tasks and a report, call it outside (20 tasks on CPU: 5 s to compile, or
      2 ms per call outside).

    Raises:
      ValueError: if no balancer's state is found, if it has another number of tasks than the
        losses, or if two scalars would have the same name.
    Examples:
      >>> import jax.numpy as jnp, jaxmtl, optax
      >>> optimizer = optax.chain(
      ...     jaxmtl.per_task(optax.snapshot("raw_norm", optax.tree.norm), 2),
      ...     jaxmtl.per_task(optax.clip_by_global_norm(1.0), 2),
      ...     jaxmtl.report_only(jaxmtl.static([3.0, 1.0])),
      ...     optax.sgd(0.1),
      ... )
      >>> losses = {"depth": jnp.array(2.0), "labels": jnp.array(0.5)}
      >>> grads, params = jnp.array([[3.0, 4.0], [0.0, 0.5]]), jnp.zeros(2)
      >>> _, opt_state = optimizer.update(grads, optimizer.init(params), params, losses=losses)
      >>> for name, value in jaxmtl.scalars(opt_state, losses).items():
      ...     print(name, round(float(value), 3))
      loss/depth 2.0
      loss/labels 0.5
      weight/depth 3.0
      weight/labels 1.0
      share/depth 0.75
      share/labels 0.25
      norm/depth 1.0
      norm/labels 0.5
      cosine/depth-labels 0.8
      update_cosine/depth 0.996
      update_cosine/labels 0.85
      broken/depth 0.0
      broken/labels 0.0
      conflicts 0.0
      norm_ratio 2.0
      similarity 0.8
      stationarity 0.949
      raw_norm/depth 5.0
      raw_norm/labels 0.5
    """
    vector, names = task_vector("losses", losses), list(shown_names(losses))
    balancers = _by_place(find_nodes(BalancerState, opt_state))
    if not balancers:
        raise ValueError(
            "opt_state must hold the state of a balancer, but it holds none: pass the state of an"
            " optimizer such as optax.chain(jaxmtl.mgda(num_tasks=2), optax.adam(1e-3))."
        )
    rows = [("loss", vector)]
    for place, state in balancers:
        if state.task_weights is not None and state.task_weights.shape != vector.shape:
            raise ValueError(
                f"losses holds {len(names)} values, but the task weights of the balancer"
                f"{place and f' at {place!r}'} have shape {state.task_weights.shape}: pass the"
                " losses that went into update. (Where jax.vmap made several states, call scalars"
                " within it.)"
            )
        rows += [(_joined(place, name), value) for name, value in _of_balancer(state)]
    rows += _of_snapshots(opt_state, vector.shape)
    found: dict[str, Array] = {}
    for row, values in rows:
        for name, value in _named(row, values, names):
            if name in found:
                raise ValueError(
                    f"Two scalars would have the name {name!r}: rename the tasks, the parts of the"
                    " optimizer or its snapshots, so that no two names are equal when they are"
                    ' joined by "/" and "-".'
                )
            found[name] = value
    return found


def _of_balancer(state: BalancerState) -> Iterator[tuple[str, Any]]:
    if state.task_weights is not None:
        yield "weight", state.task_weights
        yield "share", _shares(_leaf(state.task_weights))
    for _, kept in find_nodes(LagrangianState, state.method):
        yield "multiplier", kept.multipliers
        yield "slack", kept.slack
        yield "at_largest", kept.at_largest
    report = state.report
    if isinstance(report, Report):
        yield "norm", report.norms
        yield "cosine", report.cosines
        yield "update_cosine", report.update_cosines
        yield "broken", report.broken_steps
        for name in ("conflicts", "norm_ratio", "similarity", "stationarity"):
            yield name, getattr(report, name)


def _of_snapshots(opt_state: PyTree, shape: tuple[int, ...]) -> list[tuple[str, Any]]:
    """The measurements of ``optax.snapshot`` that are a scalar, or one scalar for each task."""
    by_name: dict[str, list[tuple[Any, Any]]] = {}
    for path, state in find_nodes(optax.SnapshotState, opt_state):
        for name, measured in state.measurement.items():
            if getattr(measured, "shape", None) in ((), shape):
                by_name.setdefault(name, []).append((path, measured))
    return [
        (_joined(place, name), measured)
        for name, entries in by_name.items()
        for place, measured in _by_place(entries)
    ]


@jax.jit
def _shares(weights: Array) -> Array:
    # A weight of zero has a share of zero: before the first step all weights are zero.
    return weights / jnp.where(weights == 0, 1, jnp.sum(weights))


def _named(row: str, values: Any, names: list[str]) -> Iterator[tuple[str, Array]]:
    """One scalar, one for each task, or one for each pair of tasks."""
    values = _leaf(values)
    if not isinstance(values, jax.core.Tracer):
        values = np.asarray(values)  # to the host, the whole array at once
    if values.ndim == 0:
        yield row, values[()]
        return
    if values.ndim == 2:
        pairs = np.triu_indices(len(names), 1)
        values = values[pairs]
        names = [f"{names[i]}-{names[j]}" for i, j in zip(*pairs, strict=True)]
    for name, value in zip(names, values, strict=True):
        yield f"{row}/{name}", value


def _leaf(value: Any) -> Any:
    """The array itself, without the variable in which flax nnx wraps it."""
    (leaf,) = jax.tree.leaves(value)
    return leaf


def _by_place(entries: list[tuple[Any, Any]]) -> list[tuple[str, Any]]:
    """The nodes, each with the keys of its path at which it differs from the other nodes' paths."""

    def parting(path: Any) -> Any:
        for depth, key in enumerate(path):
            beside = {other[depth] for other, _ in entries if other[:depth] == path[:depth]}
            if len(beside) > 1:
                yield key

    return [(path_name(tuple(parting(path))), node) for path, node in entries]


def _joined(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name
