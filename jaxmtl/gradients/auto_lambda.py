"""Auto-Lambda: weights of auxiliary tasks, learned from their effect on the main task."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_at_least, check_num_tasks
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import count_present
from jaxmtl.gradients._one_task import read_one_task
from jaxmtl.solvers.scaling import reciprocal


class AutoLambdaState(NamedTuple):
    """The (T,) weights of the next step; one for the main task."""

    weights: Array


@described
def auto_lambda(
    num_tasks: int, main: int | str | TaskVector, *, step_size: float = 0.1, initial: float = 0.1
) -> Balancer:
    """Learn the weights of auxiliary tasks from how much they lower the main loss.

    A step along -sum_i w_i g_i changes the main loss of another batch, to first order, by
    -sum_i w_i <h_main, g_i>, with h_main its gradient there. The weights descend this change,
    w_i <- max(0, w_i + step_size <h_main, g_i>), and the main task has weight one. The gradients of
    two further batches, independent of each other and of the step's own batch, are an argument:
    ``update(grads, state, params, independent_grads=(grads_1, grads_2))``; g_i is from the first
    batch and h_main from the second.

    Args:
      num_tasks: T.
      main: the name of the main task (the losses are then passed to ``update`` by name), its
        index, or one bool for each task, of which one is true.
      step_size: the change of a weight in one step for an auxiliary gradient of average length in
        the direction of the main gradient.
      initial: the initial value of the auxiliary weights.

    Returns:
      A balancer that reads the Gramian of the further batches, and the Gramian of the first batch
      for its size. Scale: (1 + (T - 1) initial) g on T identical gradients g, at the first step.
      Degree 1. Weights of a step are those before their update. Absent tasks keep their weights,
      and all tasks do if the main one is absent. A gradient that is only rounding error does not
      change its weight.

    Deviations from the paper: the form is first-order, without the second derivatives of the
    paper's look-ahead; <h_main, g_i> is measured in units of the mean of ||g_j||^2, so that the
    step size means the same for gradients of any size; weights are kept at or above zero.

    Raises:
      ValueError: if ``main`` is not one of T tasks, or ``step_size`` or ``initial`` is below 0; at
        update, if ``independent_grads`` are missing or do not fit, or the losses do not have the
        name.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.auto_lambda(3, main=0)
      >>> grads = jnp.array([[1.0, 0.0], [0.6, 0.8], [-0.6, 0.8]])
      >>> state = balancer.init(jnp.zeros(2))
      >>> for _ in range(3):
      ...     updates, state = balancer.update(grads, state, independent_grads=(grads, grads))
      >>> print(state.task_weights.round(2))  # + 0.06 and - 0.06 at each step, but not below zero
      [1.   0.22 0.  ]

    References:
      Liu, James, Davison & Johns, `Auto-Lambda: Disentangling Dynamic Task Relationships
      <https://arxiv.org/abs/2202.03091>`_, 2022
    """
    check_num_tasks(num_tasks)
    check_at_least("step_size", step_size, 0)
    check_at_least("initial", initial, 0)
    one = read_one_task("main", main, num_tasks)

    def update(given: Given, state: AutoLambdaState) -> tuple[Array, AutoLambdaState]:
        is_main, weights = one.place(given), state.weights
        weights = jnp.where(is_main, 1, weights)
        squares = jnp.diagonal(given.gramian)
        unit = reciprocal(jnp.sum(squares) / count_present(given.active, squares.dtype))
        helps = jnp.sum(jnp.where(is_main, given.cross_gramian, 0), axis=1) * unit
        moving = given.active & ~is_main & jnp.any(given.active & is_main)
        moved = jnp.maximum(weights + step_size * helps, 0)
        return weights, AutoLambdaState(jnp.where(moving, moved, weights))

    return make_balancer(
        Weighting(
            lambda dtype: AutoLambdaState(jnp.full(num_tasks, initial, dtype)),
            update,
            frozenset({"gramian", "cross_gramian"}),
            num_tasks,
            one.names,
            named=one.named,
        )
    )
