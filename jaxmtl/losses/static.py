"""Constant weights from the user's domain knowledge."""

from jaxmtl._task_names import common_names
from jaxmtl._task_values import constant_vector
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described


@described
def static(weights: TaskVector) -> Balancer:
    """Weigh the tasks by constants, d = sum_i w_i g_i.

    Args:
      weights: (T,) array or tree of scalars in ``jax.tree.leaves`` order of the losses, used as
        they are: neither normalised nor required to be positive.

    Returns:
      A balancer that reads nothing. Scale: (sum_i w_i) g on T identical gradients g. Degree 1.

    Raises:
      ValueError: where a weight is not finite, or their number is not that of the tasks.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.static({"depth": 0.5, "labels": 2.0})
      >>> updates, state = balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)))
      >>> print(updates, state.task_weights)
      [0.5 2. ] [0.5 2. ]
    """
    constant = constant_vector("weights", weights)
    known = constant.shape[0], common_names(weights=weights)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        del given
        return constant, state

    return make_balancer(Weighting(lambda dtype: (), update, frozenset(), *known))
