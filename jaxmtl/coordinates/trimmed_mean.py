"""Trimmed mean: at each coordinate, the mean without the extreme entries."""

import jax
import jax.numpy as jnp

from jaxmtl._checks import optional_num_tasks, static_count
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Preparation, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import rows


@described
def trimmed_mean(num_trimmed: int, *, num_tasks: int | None = None) -> Balancer:
    """Average the gradients, at each coordinate, without the largest and the smallest entries.

    Args:
      num_trimmed: the number of entries left out at either end.
      num_tasks: T; needed to keep the task weights, which are all 1 / (T - 2 num_trimmed), in the
        state.

    Returns:
      A balancer that works on coordinates, not on task weights: it reads neither losses nor
      Gramian. Scale: g on T identical gradients g. Degree 1. It is a robust method, not a balancing
      one: up to ``num_trimmed`` gradients may be arbitrary. Absent tasks are not counted; if
      no more than 2 num_trimmed are present, the update is zero.

    Raises:
      ValueError: if ``num_trimmed`` is below 0, or, as soon as T is known, if T is not above
        2 num_trimmed.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.trimmed_mean(1)
      >>> grads = jnp.array([[1e11, 3.0], [1.0, -1e11], [-1e10, 1e10], [2.0, 2.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates)
      [1.5 2.5]

    References:
      Yin et al., `Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates
      <https://arxiv.org/abs/1803.01498>`_, 2018
    """
    static_count("num_trimmed", num_trimmed, 0)

    def check(num: int) -> None:
        if num <= 2 * num_trimmed:
            raise ValueError(
                f"trimmed_mean with num_trimmed={num_trimmed} needs more than {2 * num_trimmed}"
                f" tasks, but there are {num}: lower num_trimmed or add tasks."
            )

    num_tasks = optional_num_tasks(num_tasks)
    if num_tasks is not None:
        check(num_tasks)

    def trim(grads: PyTree, given: Given, state: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        check(given.active.shape[0])
        present = jnp.sum(given.active)

        def of_leaf(leaf: Array) -> Array:
            last = jnp.where(rows(given.active, leaf), leaf, jnp.inf)
            # Counted rather than sorted: XLA fuses comparisons, and sorts slowly on CPU.
            before = last[None] < last[:, None]
            earlier = jnp.tril(jnp.ones((len(leaf), len(leaf)), bool), -1)
            ties = (last[None] == last[:, None]) & rows(earlier, before)
            rank = jnp.sum(before | ties, axis=1)
            kept = (rank >= num_trimmed) & (rank < present - num_trimmed)
            broken = jnp.any(~jnp.isfinite(leaf), axis=0, keepdims=True)
            return jnp.where(broken, jnp.nan, jnp.where(kept, leaf, 0))

        kept = jax.tree.map(of_leaf, grads)
        return kept, kept, state

    def mean(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        ones = jnp.ones(given.active.shape)
        counted = jnp.sum(given.active, dtype=ones.dtype) - 2 * num_trimmed
        return ones / jnp.maximum(counted, 1), state

    return make_balancer(
        Weighting(lambda dtype: (), mean, frozenset(), num_tasks),
        preparation=Preparation(lambda params: (), trim),
    )
