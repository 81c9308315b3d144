"""CAGrad: the best worst-case progress near the mean gradient."""

from jaxmtl._checks import check_at_least, check_choice, optional_num_tasks
from jaxmtl._typing import Array
from jaxmtl.balancing._base import Balancer, Given
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import equal_shares
from jaxmtl.gradients._solved import solved
from jaxmtl.solvers.worst_case import worst_case


@described
def cagrad(c: float = 0.5, *, rescale: str = "none", num_tasks: int | None = None) -> Balancer:
    """Maximise the smallest progress of any task within a ball around the mean gradient.

    max_d min_i <g_i, d> with ||d - g_0|| <= c ||g_0||, g_0 the mean; that is
    d = g_0 + c ||g_0|| g_w/||g_w|| with w the minimiser of <g_w, g_0> + c ||g_0|| ||g_w|| on the
    simplex.

    Args:
      c: the radius; 0 gives the mean, and with c >= 1 the update conflicts with no task.
      rescale: the divisor of the update: "none", "1+c" or "1+c^2".
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads the Gramian. Scale: (1+c) g on T identical gradients g, before
      rescaling. Degree 1. Tasks with a gradient of zero count in the mean but not in the smallest
      progress. The state keeps the solver's ``residual`` and ``iterations``.

    Deviations from the paper: an active-set method finds the exact solution, in place of a general
    solver or of gradient steps. If gradients cancel, so that no direction serves all tasks and the
    best smallest progress is zero, many d reach it; this method returns the one nearest to the
    mean. At c >= 1 this is the mean's projection on the dual cone, which is zero if all gradients
    cancel.

    Raises:
      ValueError: for c < 0 or an unknown ``rescale``.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.cagrad(1.0)
      >>> grads = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(3)))
      >>> [f"{abs(update):.3f}" for update in updates]
      ['0.000', '2.000', '2.000']

    References:
      Liu et al., `Conflict-Averse Gradient Descent for Multi-task Learning
      <https://arxiv.org/abs/2110.14048>`_, 2021
    """
    check_at_least("c", c, 0)
    check_choice("rescale", rescale, ("none", "1+c", "1+c^2"))
    divisor = {"none": 1.0, "1+c": 1 + c, "1+c^2": 1 + c**2}[rescale]

    def solve(given: Given) -> tuple[Array, Array, Array]:
        shares = equal_shares(given.active, given.gramian.dtype)
        found = worst_case(given.gramian, shares, c, given.active)
        return (shares + found.z) / divisor, found.residual, found.iterations

    return solved(solve, optional_num_tasks(num_tasks))
