"""Weights from the losses of the moment."""

from jaxmtl._checks import optional_num_tasks
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.solvers.scaling import reciprocal


@described
def real_time_loss(*, num_tasks: int | None = None) -> Balancer:
    """Weigh each task by the reciprocal of its present loss, w_i = 1 / sg(L_i).

    Every weighted loss is one at every step, and the update is the gradient of sum_i log L_i.

    Args:
      num_tasks: T, if the state is to keep the task weights.

    Returns:
      A balancer that reads the losses. Scale: (sum_i 1/L_i) g on T identical gradients g. Degree 1
      in the gradients, -1 in the losses: the update does not change where a loss and its gradient
      change unit together. A loss below zero counts by its size, so that no task is ascended; at
      exactly zero the weight is zero.

    Raises:
      ValueError: at update, where ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.real_time_loss()
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, _ = balancer.update(jnp.eye(2), state, losses={"a": 2.0, "b": 4.0})
      >>> print(updates)
      [0.5  0.25]

    References:
      Su, `Multi-task learning (1): in the name of losses <https://spaces.ac.cn/archives/8870>`_,
      2022 (in Chinese)
    """

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        return reciprocal(given.losses), state

    return make_balancer(
        Weighting(lambda dtype: (), update, frozenset({"losses"}), optional_num_tasks(num_tasks))
    )
