"""DualProj: the mean gradient, projected on the dual cone of all gradients."""

from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._base import Balancer, Given
from jaxmtl.balancing._described import described
from jaxmtl.gradients._solved import solved
from jaxmtl.losses._preference import preferences, read_preference
from jaxmtl.solvers.dual_cone import dual_cone


@described
def dualproj(preference: TaskVector | None = None, *, num_tasks: int | None = None) -> Balancer:
    """Project the weighted mean gradient on the dual cone of all gradients.

    d = project(sum_i p_i g_i), the nearest point of {d : <g_j, d> >= 0 for all j}; in weights,
    w = argmin v'Gv over v >= p. GEM has p = (1, 0, ..., 0): the current task's gradient, projected
    so that it conflicts with no remembered task.

    Args:
      preference: (T,) array or tree of scalars p >= 0, not all 0; 1/T each if None (over the tasks
        present).
      num_tasks: T; needed to keep the task weights in the state, unless ``preference`` gives it.

    Returns:
      A balancer that reads the Gramian. Scale: g on T identical gradients g. Degree 1. It conflicts
      with no task, and equals the mean if the mean conflicts with none. The state keeps the
      solver's ``residual`` and ``iterations``.

    Raises:
      ValueError: if a preference is below zero or none is above zero, or their number is not the
        number of tasks.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.dualproj()
      >>> grads = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(3)))
      >>> print(updates.round(4))
      [0.5556 1.1111 1.1111]

    References:
      Lopez-Paz & Ranzato, `Gradient Episodic Memory for Continual Learning
      <https://arxiv.org/abs/1706.08840>`_, 2017
    """
    wanted = read_preference(preference, num_tasks, zeros=True)

    def solve(given: Given) -> tuple[Array, Array, Array]:
        found = dual_cone(given.gramian, preferences(wanted, given), given.active)
        return found.z, found.residual, found.iterations

    return solved(solve, wanted.num_tasks, wanted.names)
