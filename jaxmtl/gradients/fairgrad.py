"""FairGrad: alpha-fair shares of the progress."""

from jaxmtl._checks import check_range, optional_num_tasks
from jaxmtl._typing import Array
from jaxmtl.balancing._base import Balancer, Given
from jaxmtl.balancing._described import described
from jaxmtl.gradients._solved import solved
from jaxmtl.solvers.barrier import barrier


@described
def fairgrad(alpha: float, *, num_tasks: int | None = None) -> Balancer:
    """Share the progress alpha-fairly: G w = w^(-1/alpha) with w > 0.

    Maximises sum_i u_i^(1-alpha)/(1-alpha) of the utilities u_i = <g_i, d> over the directions in a
    ball; alpha = 1 is Nash-MTL, and a large alpha approaches the largest smallest utility.

    Args:
      alpha: from 0.1 to 10; not checked if it is traced.
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads the Gramian. Scale: ||d|| = T^(1/(1+alpha)) on T identical unit
      gradients. Degree (1-alpha)/(1+alpha). It conflicts with no task. Tasks with a gradient of
      zero take no part; ``skip_rounding`` also leaves out gradients of rounding error. The state
      keeps the solver's ``residual`` (largest relative violation of the equation) and its
      ``iterations``. Over stacks whose lengths span 10^3, of any rank, a float32 update is right to
      2e-4 at alpha = 0.1, and to 2e-5 from 0.2 on; outside 0.1 to 10 the powers leave float32's
      range.

    Raises:
      ValueError: if alpha is not from 0.1 to 10.

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
    why = (
        ": beyond, powers of lengths leave float32's range; 1 is Nash-MTL, and from 2 on the"
        " worst-off tasks count most"
    )
    check_range("alpha", alpha, 0.1, 10, why)

    def solve(given: Given) -> tuple[Array, Array, Array]:
        found = barrier(given.gramian, alpha, given.active)
        return found.weights, found.residual, found.iterations

    return solved(solve, optional_num_tasks(num_tasks))
