"""Equal weights, the baseline."""

from jaxmtl._checks import optional_num_tasks
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import equal_shares


@described
def equal(*, num_tasks: int | None = None) -> Balancer:
    """Weigh all tasks equally, w_i = 1/T.

    Args:
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads nothing. Scale: g on T identical gradients g. Degree 1. With
      ``active``, it averages over the tasks present.

    Raises:
      ValueError: if ``num_tasks`` is not a positive int.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.equal()
      >>> updates, _ = balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)))
      >>> print(updates)
      [0.5 0.5]
    """

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        return equal_shares(given.active, float), state

    return make_balancer(
        Weighting(lambda dtype: (), update, frozenset(), optional_num_tasks(num_tasks))
    )
