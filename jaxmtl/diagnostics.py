"""Quantities of a step from its Gramian: conflicts, sizes, and the update's effect on each task.

>>> import jax.numpy as jnp, optax, jaxmtl
>>> balancer = jaxmtl.report_only(jaxmtl.mgda(num_tasks=2))
>>> optimizer = optax.chain(balancer, optax.sgd(0.1))
>>> opt_state = optimizer.init(jnp.zeros(2))
>>> losses = {"near": jnp.array(1.0), "far": jnp.array(2.0)}
>>> _, opt_state = optimizer.update(jnp.array([[1.0, 0.0], [-1.0, 1.0]]), opt_state, losses=losses)
>>> report = jaxmtl.find_state(opt_state).report
>>> float(report.conflicts)
1.0
>>> jaxmtl.by_task(losses, report.norms.round(2))
{'far': Array(1., dtype=float32), 'near': Array(1.41, dtype=float32)}
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._checks import real_array
from jaxmtl._task_values import task_vector
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import rebuild
from jaxmtl.balancing._base import (
    Balancer,
    BalancerState,
    Given,
    Reporting,
    check_balancer,
    known_num_tasks,
)
from jaxmtl.balancing._described import described
from jaxmtl.balancing._state import find_nodes
from jaxmtl.solvers.min_norm import min_norm
from jaxmtl.solvers.scaling import reciprocal


class Report(NamedTuple):
    """Quantities of a step from its Gramian; values of absent tasks are zero.

    A gradient that is not finite counts as absent in everything but its own norm. So the values of
    the other tasks remain readable, and the report shows which task broke the step.

    Attributes:
      norms: (T,) lengths of the gradients; NaN or infinite if a gradient is not finite.
      cosines: (T, T) cosines between them.
      conflicts: share of the pairs with a negative cosine.
      norm_ratio: longest over shortest gradient.
      similarity: mean over pairs of 2 n_i n_j / (n_i^2 + n_j^2), 1 if all are equally long.
      update_cosines: (T,) cosine of the update with each gradient; below zero, that loss rises.
      stationarity: length of the shortest convex combination of the gradients divided by their
        lengths: 0 at a Pareto-stationary point, at most 1.
      finite_losses: (T,) bool, which losses are finite.
      finite_gradients: (T,) bool, which gradients are finite.
      broken_steps: (T,) int32, the number of steps so far at which a task's loss or gradient was
        not finite.
    """

    norms: Array
    cosines: Array
    conflicts: Array
    norm_ratio: Array
    similarity: Array
    update_cosines: Array
    stationarity: Array
    finite_losses: Array
    finite_gradients: Array
    broken_steps: Array


def report(gramian: Array, weights: Array) -> Report:
    """Compute the quantities of a step from its Gramian and task weights.

    Args:
      gramian: (T, T) inner products of the gradients.
      weights: (T,) task weights.

    Returns:
      A ``Report`` of one step, whose losses are assumed to be finite. A gradient of zero has
      cosines of zero and takes no part in ratios and pairs.

    Raises:
      ValueError: if the shapes do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.diagnostics import report
      >>> found = report(jnp.array([[4.0, -1.0], [-1.0, 1.0]]), jnp.array([0.5, 0.5]))
      >>> print(found.norms, found.cosines[0, 1], found.norm_ratio, found.similarity)
      [2. 1.] -0.5 2.0 0.8
    """
    gramian = jnp.asarray(real_array("gramian", gramian, "(T, T)", ndim=2))
    weights = jnp.asarray(real_array("weights", weights, "(T,)", ndim=1))
    if gramian.shape != 2 * weights.shape:
        raise ValueError(
            f"gramian must have shape (T, T) for weights of shape (T,), but they have"
            f" {gramian.shape} and {weights.shape}."
        )
    return _report(gramian, weights)


@jax.jit
def _report(gramian: Array, weights: Array) -> Report:
    with jax.default_matmul_precision("highest"):
        lengths = jnp.sqrt(jnp.diagonal(gramian))
        sound = jnp.isfinite(lengths)
        gramian = jnp.where(sound[:, None] & sound[None, :], gramian, 0)
        norms = jnp.where(sound, lengths, 0)
        inverse = reciprocal(norms)
        cosines = gramian * inverse[:, None] * inverse[None, :]
        there = norms > 0
        pairs = there[:, None] & there[None, :] & ~jnp.eye(len(norms), dtype=bool)
        count = jnp.maximum(jnp.sum(pairs), 1)
        # Use ratios of at most one, so that no square leaves the range of float32.
        ratio = jnp.minimum(norms[:, None] * inverse[None, :], norms[None, :] * inverse[:, None])
        along = cosines @ (weights * norms)
        length = jnp.sqrt(jnp.maximum((weights * norms) @ along, 0))
        shortest = jnp.min(jnp.where(there, norms, jnp.inf))
        point = min_norm(cosines, there)
        found = jnp.sqrt(jnp.maximum(point.weights @ (cosines @ point.weights), 0))
    return Report(
        lengths,
        cosines,
        jnp.sum(pairs & (cosines < 0), dtype=norms.dtype) / count.astype(norms.dtype),
        jnp.where(jnp.any(there), jnp.max(norms) / shortest, 0),
        jnp.sum(jnp.where(pairs, 2 * ratio / (1 + ratio**2), 0)) / count.astype(norms.dtype),
        along * reciprocal(length),
        jnp.where(jnp.any(there), found, 0),
        jnp.ones_like(sound),
        sound,
        (~sound).astype(jnp.int32),
    )


@described
def report_only(balancer: Balancer) -> Balancer:
    """Keep a ``Report`` of every step in the state, and change nothing else.

    At a step that is not finite the rest of the state does not change, but the report is written.
    It shows the tasks whose loss or gradient was not finite, and counts how often that happened.

    Args:
      balancer: any balancer built with ``num_tasks``. For a balancer that reads the losses only,
        the Gramian is measured for the report, which needs stacked gradients.

    Returns:
      A balancer with the same updates; ``find_state(opt_state).report`` is the report of the last
      step at which the method computed weights.

    Raises:
      ValueError: if the balancer was built without ``num_tasks``.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.report_only(jaxmtl.equal(num_tasks=2))
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, state = balancer.update(jnp.array([[3.0, 0.0], [-1.0, 0.0]]), state)
      >>> print(updates, state.report.update_cosines)  # the second loss rises
      [1. 0.] [ 1. -1.]
    """
    check_balancer(balancer)
    known_num_tasks(balancer, "report_only keeps a number")

    def init(num_tasks: int, dtype: jnp.dtype) -> Report:
        zero, vector = jnp.zeros((), dtype), jnp.zeros(num_tasks, dtype)
        fine, matrix = jnp.ones(num_tasks, bool), jnp.zeros((num_tasks, num_tasks), dtype)
        never = jnp.zeros(num_tasks, jnp.int32)
        return Report(vector, matrix, zero, zero, zero, vector, zero, fine, fine, never)

    def write(given: Given, weights: Array, last: Report) -> Report:
        broken = ~(given.finite_losses & given.finite_gradients)
        return _report(given.gramian, weights.astype(given.gramian.dtype))._replace(
            finite_losses=given.finite_losses,
            finite_gradients=given.finite_gradients,
            broken_steps=last.broken_steps + broken.astype(last.broken_steps.dtype),
        )

    weighting = balancer.weighting
    weighting = weighting._replace(reads=weighting.reads | {"gramian"})
    return rebuild(balancer, weighting=weighting, reporting=Reporting(init, write))


def find_state(opt_state: PyTree) -> BalancerState:
    """Find the balancer's state in the state of any optimizer that contains it.

    Args:
      opt_state: the state of a chain, named chain, wrapper and so on.

    Returns:
      The ``BalancerState``.

    Raises:
      ValueError: if there is none, or more than one.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl, optax
      >>> optimizer = optax.chain(jaxmtl.equal(num_tasks=2), optax.adam(1e-3))
      >>> print(jaxmtl.find_state(optimizer.init(jnp.zeros(2))).task_weights)
      [0. 0.]
    """
    found = [state for _, state in find_nodes(BalancerState, opt_state)]
    if len(found) != 1:
        raise ValueError(
            f"opt_state must hold the state of one balancer, but it holds {len(found)}: pass the"
            " state of an optimizer such as optax.chain(jaxmtl.mgda(), optax.adam(1e-3))."
        )
    return found[0]


def by_task(losses: PyTree, values: Array) -> PyTree:
    """Give the names of the losses to values that have one entry per task.

    Args:
      losses: the losses, a tree of scalars (or a (T,) array, which has no names).
      values: (T, ...) task weights, norms, or rows of cosines.

    Returns:
      A tree like ``losses`` with the tasks' values; ``values`` itself if there are no names.

    Raises:
      ValueError: if their numbers differ.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> named = jaxmtl.by_task({"depth": 1.0, "labels": 2.0}, jnp.array([0.25, 0.75]))
      >>> {name: float(weight) for name, weight in named.items()}
      {'depth': 0.25, 'labels': 0.75}
    """
    leaves, treedef = jax.tree.flatten(losses)
    num = task_vector("losses", losses).shape[0]
    values = jnp.asarray(real_array("values", values, "(T, ...)"))
    if values.shape[:1] != (num,):
        raise ValueError(
            f"values must have one entry for each of the {num} losses, but its shape is"
            f" {values.shape}."
        )
    if len(leaves) == 1 and jnp.ndim(leaves[0]) == 1:
        return values
    return jax.tree.unflatten(treedef, list(values))
