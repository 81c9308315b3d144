"""PCD: the main gradient, with a guaranteed share of progress for every other task."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_num_tasks, check_range, check_share
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._averages import follow_root
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._rounding import leave_out_rounding
from jaxmtl.gradients._one_task import read_one_task
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.complementarity import complementarity
from jaxmtl.solvers.scaling import reciprocal


class PCDState(NamedTuple):
    """Averaged lengths of the gradients, and the accuracy of the last step's solution.

    Attributes:
      norms: (T,) roots of the averaged squares of the norms, zero before the first.
      steps: (T,) int32, the number of steps in each average.
      feasible: whether a direction was found that gives every other task its share; if not, the
        update is the main gradient alone.
      residual: the solver's relative residual; 0 if the solution is exact.
      iterations: number of linear systems solved.
    """

    norms: Array
    steps: Array
    feasible: Array
    residual: Array
    iterations: Array


@described
def pcd(
    num_tasks: int, main: int | str | TaskVector, *, share: float = 0.02, decay: float = 0.999
) -> Balancer:
    """Follow the main gradient as closely as the other tasks' minimum progress allows.

    With n_i the root of the average of ||g_i||^2 over the steps and h_i = g_i / n_i:

    d = argmin ||d - h_main||^2 with <h_j, d> >= share ||h_j||^2 for every other task j, then scaled
    to the length of g_main. The weights solve a linear complementarity problem in the Gramian. If
    no such direction exists, the update is g_main, and ``feasible`` in the state is False.

    Args:
      num_tasks: T.
      main: the name of the main task (the losses are then passed to ``update`` by name), its
        index, or one bool for each task, of which one is true.
      share: the minimum progress of each other task, as a share of its progress under a step along
        its own gradient; from 0 to 1.
      decay: the share of the old squares in the average, which is corrected for its start.

    Returns:
      A balancer that reads the Gramian. Scale: g on T identical gradients g. Degree 1. With a share
      above 0 the update may conflict with the main gradient, if another gradient is opposed to it.
      Absent tasks set no condition and keep their averages. If the main task is absent the update
      is zero, and so is an update whose terms cancel. A gradient that is zero, or rounding error
      compared with the longest (8 eps, as for ``skip_rounding``), sets no condition either, and
      does not change its average.

    Raises:
      ValueError: if ``main`` is not one of T tasks, ``share`` is not from 0 to 1, or ``decay`` is
        not from 0 to less than 1; at update, if the losses do not have the name.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.pcd(2, main=0, share=0.0)
      >>> grads = jnp.array([[2.0, 0.0], [-3.0, 3.0]])
      >>> updates, state = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates.round(4))  # at a right angle to the other gradient, as long as the main one
      [1.4142 1.4142]

    References:
      Varam & Alhajri, `Not All Objectives Are Born Equal: Priority-Constrained Descent for
      Hierarchical Multi-Objective Optimization <https://arxiv.org/abs/2606.29521>`_, 2026
    """
    check_num_tasks(num_tasks)
    check_range("share", share, 0, 1)
    check_share("decay", decay)
    one = read_one_task("main", main, num_tasks)

    def init(dtype: jnp.dtype) -> PCDState:
        zeros, none = jnp.zeros(num_tasks, dtype), jnp.zeros(num_tasks, jnp.int32)
        return PCDState(zeros, none, jnp.asarray(True), zeros[0], none[0])

    def update(given: Given, state: PCDState) -> tuple[Array, PCDState]:
        gram, active, is_main = given.gramian, given.active, one.place(given)
        lengths = jnp.sqrt(jnp.diagonal(gram))
        norms = follow_root(state.norms, state.steps, lengths, active, decay)
        steps = state.steps + active.astype(state.steps.dtype)
        scale = reciprocal(norms)
        # Rows first, then columns: the product of two scales may be out of range if neither is.
        scaled = gram * scale[:, None] * scale[None, :]
        squares = jnp.diagonal(scaled)
        asks = active & ~is_main & (squares > 0)
        to_main = jnp.sum(jnp.where(is_main, scaled, 0), axis=1)
        wanted = share * squares
        found = complementarity(scaled, to_main - wanted, active=asks)
        shares, feasible = _unit_direction(scaled, to_main, wanted, found.z, asks, is_main)
        length = jnp.sum(jnp.where(is_main & active, lengths, 0))
        weights = shares * scale * length
        return weights, PCDState(norms, steps, feasible, found.residual, found.iterations)

    weighting = Weighting(
        init, update, frozenset({"gramian"}), num_tasks, one.names, named=one.named
    )
    return make_balancer(leave_out_rounding(weighting))


@one_launch
def _unit_direction(
    scaled: Array, to_main: Array, wanted: Array, z: Array, asks: Array, is_main: Array
) -> tuple[Array, Array]:
    """The weights of the direction of length one, and whether it meets all conditions."""
    squares, eps = jnp.diagonal(scaled), jnp.finfo(scaled.dtype).eps
    missing = wanted - to_main - scaled @ z
    # Without a solution z grows until its rounding error hides the violation: no bound by z here.
    bound = 1e-3 * wanted + 16 * eps * (jnp.abs(to_main) + squares)
    feasible = ~jnp.any((missing > bound) & asks)
    shares = jnp.where(is_main, 1, jnp.where(feasible, z, 0))
    # If the terms cancel, their rounding error is no direction.
    square, terms = jnp.sum(shares * (scaled @ shares)), jnp.sum(shares * jnp.sqrt(squares))
    usable = square > 16 * len(z) * eps * terms**2
    return shares * reciprocal(jnp.where(usable, jnp.sqrt(jnp.maximum(square, 0)), 0)), feasible
