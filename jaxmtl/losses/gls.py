"""GLS: descend the geometric mean of the losses."""

import jax.numpy as jnp

from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import count_present
from jaxmtl.losses._lower_bounds import distance, read_lower_bounds
from jaxmtl.solvers.scaling import reciprocal


@described
def gls(*, lower_bounds: TaskVector | None = None, num_tasks: int | None = None) -> Balancer:
    """Weigh by the gradient of the geometric mean, w_i = (prod_j L_j)^(1/T) / (T L_i).

    Args:
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts with its distance from it.
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads the losses. Scale: g on T identical gradients g if the losses are
      equal. Degree 1 in the gradients, 0 in the losses. The mean is computed from logarithms, since
      the product would underflow. A negative loss counts with its absolute value; a loss of exactly
      zero makes all weights zero, since the geometric mean is then at its minimum.

    Raises:
      ValueError: at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.gls()
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, _ = balancer.update(jnp.eye(2), state, losses=jnp.array([4.0, 1.0]))
      >>> print(updates)  # geometric mean 2
      [0.25 1.  ]

    References:
      Chennupati et al., `MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy
      for Multi-Task Learning <https://arxiv.org/abs/1904.08492>`_, 2019
    """

    bounds, num_tasks = read_lower_bounds(lower_bounds, num_tasks)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        losses = distance(given.losses, bounds)
        present = count_present(given.active, losses.dtype)
        logs = jnp.where(given.active, jnp.log(jnp.abs(losses)), 0)
        mean = jnp.exp(jnp.sum(logs) / present)
        return mean / present * reciprocal(losses), state

    names = common_names(lower_bounds=lower_bounds)
    return make_balancer(
        Weighting(lambda dtype: (), update, frozenset({"losses"}), num_tasks, names)
    )
