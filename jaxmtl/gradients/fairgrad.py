"""FairGrad: alpha-fair shares of the progress."""

import numbers

import jax

from jaxmtl._checks import optional_num_tasks
from jaxmtl._typing import Array
from jaxmtl.balancing._base import Balancer, Given
from jaxmtl.balancing._described import described
from jaxmtl.gradients._solved import solved
from jaxmtl.solvers.barrier import barrier


@described
def fairgrad(alpha: float, *, num_tasks: int | None = None) -> Balancer:
    """Share the progress alpha-fairly: G w = w^(-1/alpha) with w > 0.

    Maximises sum_i u_i^(1-alpha)/(1-alpha) of the utilities u_i = <g_i, d> over the directions of a
    ball; alpha = 1 is Nash-MTL, large alpha approaches the largest least utility.

    Args:
      alpha: above zero.
      num_tasks: T, if the state is to keep the task weights.

    Returns:
      A balancer that reads the Gramian. Scale: ||d|| = T^(1/(1+alpha)) on T identical unit
      gradients. Degree (1-alpha)/(1+alpha). It conflicts with no task. Tasks with a gradient of
      zero take no part. The state keeps the solver's ``residual`` (largest relative violation of
      the equation) and its ``iterations``.

    Raises:
      ValueError: where alpha is not above zero.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.fairgrad(2.0)
      >>> grads = jnp.array([[8.0, 0.0], [0.0, 1.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates.round(4))  # w = (1/16, 1)
      [0.5 1. ]

    References:
      Ban & Ji, `Fair Resource Allocation in Multi-Task Learning
      <https://arxiv.org/abs/2402.15638>`_, 2024
    """
    if not isinstance(alpha, jax.Array) and not (isinstance(alpha, numbers.Real) and alpha > 0):
        raise ValueError(f"alpha must be a number above 0, but it is {alpha!r}.")

    def solve(given: Given) -> tuple[Array, Array, Array]:
        found = barrier(given.gramian, alpha, given.active)
        return found.weights, found.residual, found.iterations

    return solved(solve, optional_num_tasks(num_tasks))
