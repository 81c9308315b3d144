"""Krum and Multi-Krum: the mean of the gradients with the nearest neighbours."""

import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import optional_num_tasks, static_count
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import equal_shares


@described
def krum(num_byzantine: int, *, num_selected: int = 1, num_tasks: int | None = None) -> Balancer:
    """Average the gradients that are nearest to their neighbours, leaving outliers out.

    The score of task i is the sum of its T - num_byzantine - 2 smallest squared distances
    ||g_i - g_j||^2; the tasks with the smallest scores share the weight.

    Args:
      num_byzantine: the number of gradients that may be arbitrary.
      num_selected: the number of gradients to average: 1 is Krum, more is Multi-Krum.
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads the Gramian. Scale: g on T identical gradients g. Degree 1. It is a
      robust method, not a balancing one: for tasks of which some may be wrong. Absent tasks are
      neither selected nor neighbours; if fewer than ``num_selected`` are present, all of them are
      averaged. Of equal scores the first task counts as smallest.

    Raises:
      ValueError: if ``num_byzantine`` is below 0 or ``num_selected`` is not a positive int; as soon
        as T is known, if T < num_byzantine + 3 (unless that is 0) or T < num_selected.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.krum(1, num_selected=2)
      >>> grads = jnp.array([[1.0], [2.0], [-100.0], [2.5]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(1)))
      >>> print(updates)
      [2.25]

    References:
      Blanchard et al., `Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent
      <https://papers.nips.cc/paper/6617>`_, 2017
    """
    static_count("num_byzantine", num_byzantine, 0)
    static_count("num_selected", num_selected)

    def check(num: int) -> None:
        least = max(num_byzantine + 3 if num_byzantine else 1, num_selected)
        if num < least:
            raise ValueError(
                f"krum with num_byzantine={num_byzantine} and num_selected={num_selected} needs at"
                f" least {least} tasks, but there are {num}: lower the two numbers or add tasks."
            )

    num_tasks = optional_num_tasks(num_tasks)
    if num_tasks is not None:
        check(num_tasks)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        num, active = given.active.shape[0], given.active
        check(num)
        squares = jnp.diagonal(given.gramian)
        distances = squares[:, None] + squares[None, :] - 2 * given.gramian
        both = active[:, None] & active[None, :] & ~jnp.eye(num, dtype=bool)
        distances = jnp.where(both, jnp.maximum(distances, 0), -1)
        # Remove the farthest ones: on CPU, sorting whole rows takes longer than everything else.
        farthest, _ = lax.top_k(distances, min(num_byzantine + 1, num))
        bound = jnp.maximum(farthest[:, -1:], 0)
        nearer = jnp.where(both & (distances < bound), distances, 0)
        as_far = jnp.sum(both & (distances >= bound), axis=1) - num_byzantine - 1
        farthest_ones = as_far.astype(bound.dtype) * bound[:, 0]
        scores = jnp.sum(nearer, axis=1) + jnp.where(as_far > 0, farthest_ones, 0)
        _, best = lax.top_k(jnp.where(active, -scores, -jnp.inf), num_selected)
        chosen = active & jnp.any(best[:, None] == jnp.arange(num)[None, :], axis=0)
        return equal_shares(chosen, squares.dtype), state

    return make_balancer(Weighting(lambda dtype: (), update, frozenset({"gramian"}), num_tasks))
