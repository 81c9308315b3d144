"""ConFIG: the conflict-free direction, as long as the gradients reach along it."""

import jax.numpy as jnp

from jaxmtl._balancer import make_balancer
from jaxmtl._base import Balancer, Given, Weighting
from jaxmtl._checks import optional_num_tasks
from jaxmtl._gram import reciprocal
from jaxmtl._typing import Array, PyTree
from jaxmtl.gradients._equal_cosines import equal_cosines


def conflict_free(*, num_tasks: int | None = None) -> Balancer:
    """Follow the direction with equal cosines to all gradients, as far as they reach along it.

    u ~ J' D^-1 C^+ 1 of length one, d = (sum_i <g_i, u>) u, with norms D and cosines C.

    Args:
      num_tasks: T, if the state is to keep the task weights.

    Returns:
      A balancer that reads the Gramian. Scale: T g on T identical gradients g. Degree 1. With
      independent gradients it conflicts with no task. Tasks with a gradient of zero take no part.

    Raises:
      ValueError: where ``num_tasks`` is not a positive int.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.conflict_free()
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates.round(4))  # u = (1, 1)/sqrt(2), length 4/sqrt(2)
      [2. 2.]

    References:
      Liu et al., `ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks
      <https://arxiv.org/abs/2408.11104>`_, 2024
    """

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        weights, products = equal_cosines(given.gramian)
        square = weights @ products
        return weights * jnp.sum(products) * reciprocal(square), state

    return make_balancer(
        Weighting(lambda dtype: (), update, frozenset({"gramian"}), optional_num_tasks(num_tasks))
    )
