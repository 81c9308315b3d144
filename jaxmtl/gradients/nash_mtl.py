"""Nash-MTL: the Nash bargaining solution among the tasks."""

from jaxmtl.balancing._base import Balancer
from jaxmtl.balancing._described import described
from jaxmtl.gradients.fairgrad import fairgrad


@described
def nash_mtl(*, num_tasks: int | None = None) -> Balancer:
    """Find the Nash bargaining solution, G w = 1/w with w > 0.

    The tasks bargain over the direction within a ball; the utility of a task is <g_i, d>. The
    solution maximises the product of the utilities: argmin w'Gw/2 - sum_i log w_i. Then
    <g_i, d> = 1/w_i > 0: all losses fall.

    Args:
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads the Gramian. Scale: ||d|| = sqrt(T) for any gradients, so put a
      normalising optimizer after it, or clip: this method does not clip. Degree -1 in the weights
      and 0 in the update. Tasks with a gradient of zero take no part. A gradient that is only
      rounding error counts as much as any other, unless ``skip_rounding`` leaves it out. The state
      keeps the solver's ``residual`` (largest relative violation of G w = 1/w) and its
      ``iterations``; near a Pareto stationary point no solution exists, and the residual shows it.

    Deviations from the paper: the exact solution is found at every step, by damped Newton steps;
    the paper solves a sequence of convex problems every few steps, and clips the norm.

    Raises:
      ValueError: if ``num_tasks`` is not a positive int.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.nash_mtl(num_tasks=2)
      >>> grads = jnp.array([[4.0, 0.0], [0.0, 0.5]])
      >>> updates, state = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates, state.task_weights)
      [1. 1.] [0.25 2.  ]

    References:
      Navon et al., `Multi-Task Learning as a Bargaining Game <https://arxiv.org/abs/2202.01017>`_,
      2022
    """
    return fairgrad(1.0, num_tasks=num_tasks)
