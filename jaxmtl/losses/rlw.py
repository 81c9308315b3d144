"""RLW: random weights, drawn again at every step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._checks import optional_num_tasks
from jaxmtl._typing import Array
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._random_keys import next_keys, stored, typed_key


class RLWState(NamedTuple):
    """The random key of the next step."""

    key_data: Array


@described
def rlw(key: Array | int, *, num_tasks: int | None = None) -> Balancer:
    """Weigh by the softmax of standard normal numbers, drawn again at every step.

    This is a baseline that every method should beat: the weights are equal on average, and noisy.

    Args:
      key: a JAX random key (or an int seed); it is kept in the state and split at every step.
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads nothing. Scale: g on T identical gradients g. Degree 1. The softmax is
      over the tasks present.

    Raises:
      ValueError: if ``key`` is not a random key.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.rlw(0)
      >>> updates, _ = balancer.update(jnp.ones((3, 1)), balancer.init(jnp.zeros(1)))
      >>> print(updates.round(4))  # the weights sum to one
      [1.]

    References:
      Lin et al., `Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task
      Learning <https://arxiv.org/abs/2111.10603>`_, 2022
    """
    key = typed_key(key)

    def update(given: Given, state: RLWState) -> tuple[Array, RLWState]:
        next_key, step_key = next_keys(state.key_data, key)
        # In float32 for every default type, so that the same key gives the same weights.
        logits = jax.random.normal(step_key, given.active.shape, jnp.float32)
        return jax.nn.softmax(logits, where=given.active), RLWState(next_key)

    return make_balancer(
        Weighting(
            lambda dtype: RLWState(stored(key)), update, frozenset(), optional_num_tasks(num_tasks)
        )
    )
