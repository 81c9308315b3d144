"""MoDo: the min-norm direction from independent batches, approached step by step."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_at_least, check_num_tasks
from jaxmtl._typing import Array
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.gradients._on_simplex import step_to_min_norm


class MoDoState(NamedTuple):
    """The (T,) convex weights."""

    weights: Array


@described
def modo(num_tasks: int, *, step_size: float = 0.1, rho: float = 0.0) -> Balancer:
    """Let convex weights follow the min-norm point, measured on two further batches.

    w <- project(w - step_size (J_1 J_2' + rho I) w),  d = J' w, with the projection on the simplex
    and stacked gradients J_1, J_2 of batches independent of each other and of the batch of J, so
    that J_1 J_2' w is an unbiased estimate of the gradient in w. They are an argument:
    ``update(grads, state, params, independent_grads=(grads_1, grads_2))``.

    Args:
      num_tasks: T.
      step_size: gamma, the step of the weights.
      rho: regularisation towards equal weights.

    Returns:
      A balancer that reads the Gramian of the further batches, and the Gramian of the first batch
      for its size. Scale: g on T identical gradients g. Degree 1. Absent tasks keep their weights,
      and have no weight in the step.

    Deviations from the paper: J_1 J_2' is measured in units of the trace of J J', so that step size
    and rho mean the same for gradients of any size.

    Raises:
      ValueError: for ``step_size`` or ``rho`` below 0; at update, if ``independent_grads`` are
        missing or do not fit.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.modo(2, step_size=1.0)
      >>> state, grads = balancer.init(jnp.zeros(2)), jnp.diag(jnp.array([2.0, 1.0]))
      >>> for _ in range(100):
      ...     updates, state = balancer.update(grads, state, independent_grads=(grads, grads))
      >>> [f"{update:.4f}" for update in updates]  # without noise MGDA's, weights 1/5 and 4/5
      ['0.4000', '0.8000']

    References:
      Chen, Fernando, Ying & Chen, `Three-Way Trade-Off in Multi-Objective Learning: Optimization,
      Generalization and Conflict-Avoidance <https://arxiv.org/abs/2305.20057>`_, 2023
    """
    check_num_tasks(num_tasks)
    check_at_least("step_size", step_size, 0)
    check_at_least("rho", rho, 0)

    def update(given: Given, state: MoDoState) -> tuple[Array, MoDoState]:
        weights, kept = step_to_min_norm(state.weights, given, given.cross_gramian, step_size, rho)
        return weights, MoDoState(kept)

    return make_balancer(
        Weighting(
            lambda dtype: MoDoState(jnp.full(num_tasks, 1 / num_tasks, dtype)),
            update,
            frozenset({"gramian", "cross_gramian"}),
            num_tasks,
        )
    )
