"""IMTL-G: an update that advances equally along every gradient."""

import jax.numpy as jnp

from jaxmtl._checks import optional_num_tasks
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.gradients._equal_cosines import equal_cosines
from jaxmtl.solvers.scaling import reciprocal


@described
def imtl_g(*, num_tasks: int | None = None) -> Balancer:
    """Weigh so that the update has the same projection on every gradient's direction.

    w ~ D^-1 C^+ 1 with norms D and cosines C, divided by |sum_i w_i|.

    Args:
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads the Gramian. Scale: g on T identical gradients g. Degree 1. Weights may
      be negative, and are large if their sum is close to zero. With independent gradients it
      conflicts with no task. Tasks with a gradient of zero take no part. A gradient that is only
      rounding error makes the update as short as itself; ``skip_rounding`` leaves it out.

    Deviations from the paper: the sum is divided by its absolute value; if it is negative, the
    paper's rule increases every loss.

    Raises:
      ValueError: if ``num_tasks`` is not a positive int.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.imtl_g()
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates)  # weights 1/4 and 3/4
      [0.75 0.75]

    References:
      Liu et al., `Towards Impartial Multi-task Learning
      <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021
    """

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        weights = equal_cosines(given.gramian).weights
        return weights * reciprocal(jnp.sum(weights)), state

    return make_balancer(
        Weighting(lambda dtype: (), update, frozenset({"gramian"}), optional_num_tasks(num_tasks))
    )
