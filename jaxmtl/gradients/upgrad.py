"""UPGrad: the mean of the gradients, each projected on the dual cone of all gradients."""

import jax.numpy as jnp

from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._base import Balancer, Given
from jaxmtl.balancing._described import described
from jaxmtl.gradients._solved import solved
from jaxmtl.losses._preference import preferences, read_preference
from jaxmtl.solvers.dual_cone import dual_cone


@described
def upgrad(preference: TaskVector | None = None, *, num_tasks: int | None = None) -> Balancer:
    """Project each gradient on the dual cone of all gradients, and sum the projections.

    d = sum_i project(p_i g_i), project(d) the nearest point of {d : <g_j, d> >= 0 for all j}; in
    weights, w = sum_i argmin v'Gv over v >= p_i e_i.

    Args:
      preference: (T,) array or tree of scalars p >= 0, not all 0; 1/T each if None (over the tasks
        present).
      num_tasks: T; needed to keep the task weights in the state, unless ``preference`` gives it.

    Returns:
      A balancer that reads the Gramian. Scale: g on T identical gradients g. Degree 1. It conflicts
      with no task, and a task's gradient has influence in proportion to its length. The state keeps
      the solver's largest ``residual`` and its ``iterations``.

    Raises:
      ValueError: if a preference is below zero or none is above zero, or their number is not the
        number of tasks.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.upgrad()
      >>> grads = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates)  # half of PCGrad's: (1/4, 1/4) + (0, 1/2)
      [0.25 0.75]

    References:
      Quinton & Rey, `Jacobian Descent for Multi-Objective Optimization
      <https://arxiv.org/abs/2406.16232>`_, 2024
    """
    wanted = read_preference(preference, num_tasks, zeros=True)

    def solve(given: Given) -> tuple[Array, Array, Array]:
        found = dual_cone(given.gramian, jnp.diag(preferences(wanted, given)), given.active)
        return jnp.sum(found.z, axis=0), jnp.max(found.residual), jnp.max(found.iterations)

    return solved(solve, wanted.num_tasks, wanted.names)
