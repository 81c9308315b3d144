"""PCGrad: project each gradient off the gradients with which it conflicts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_choice, optional_num_tasks
from jaxmtl._typing import Array
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import count_present
from jaxmtl.balancing._random_keys import next_keys, stored, typed_key
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.scaling import reciprocal


class PCGradState(NamedTuple):
    """The random key of the next step."""

    key_data: Array


@described
def pcgrad(key: Array | int, *, reduction: str = "sum", num_tasks: int | None = None) -> Balancer:
    """Project each task's gradient off every gradient with which it conflicts, in random order.

    For each i, over the other tasks j in random order, starting from g' = g_i:
      g' <- g' - (g'.g_j / ||g_j||^2) g_j   if g'.g_j < 0, with the original g_j.
    The update is the sum, or the mean, of the g'. All of this is computed on coefficients: with
    g' = sum_j c_j g_j and the Gramian G, g'.g_j is (G c)_j, and a projection is
    c_j <- c_j - (G c)_j / G_jj.

    Args:
      key: a JAX random key (or an int seed); it is kept in the state and split at every step.
      reduction: "sum" or "mean" of the projected gradients.
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads the Gramian. Scale: T g on T identical gradients g for "sum", g for
      "mean". Degree 1. For two tasks the order does not matter, and the update conflicts with
      neither; for more tasks it may still conflict. The paper projects the shared parameters as one
      vector and leaves the others alone: ``on_shared(pcgrad(key), shared)``. A gradient of zero
      conflicts with nothing.

    Raises:
      ValueError: for an unknown ``reduction`` or a ``key`` that is not a random key.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.pcgrad(jax.random.key(0))
      >>> grads = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates)  # (1/2, 1/2) + (0, 1)
      [0.5 1.5]

    References:
      Yu et al., `Gradient Surgery for Multi-Task Learning <https://arxiv.org/abs/2001.06782>`_,
      2020
    """
    check_choice("reduction", reduction, ("sum", "mean"))
    key = typed_key(key)

    def update(given: Given, state: PCGradState) -> tuple[Array, PCGradState]:
        next_key, step_key = next_keys(state.key_data, key)
        num = given.active.shape[0]
        gram, per_square = given.gramian, reciprocal(jnp.diagonal(given.gramian))
        orders = jax.vmap(lambda k: jax.random.permutation(k, num))(jax.random.split(step_key, num))

        of_each = jax.vmap(_project, in_axes=(None, None, 0, 0))
        projected = of_each(gram, per_square, jnp.arange(num), orders)
        weights = given.active.astype(gram.dtype) @ projected
        if reduction == "mean":
            weights = weights / count_present(given.active, weights.dtype)
        return weights, PCGradState(next_key)

    return make_balancer(
        Weighting(
            lambda dtype: PCGradState(stored(key)),
            update,
            frozenset({"gramian"}),
            optional_num_tasks(num_tasks),
        )
    )


@one_launch
def _project(gram: Array, per_square: Array, i: Array, order: Array) -> Array:
    """The weights of gradient i, projected off those with which it conflicts, in a given order."""
    num = len(order)

    def off(position: Array, c: Array) -> Array:
        j = order[position]
        overlap = jnp.where(j == i, 0, jnp.minimum(gram[j] @ c, 0))
        return c.at[j].add(-overlap * per_square[j])

    return jax.lax.fori_loop(0, num, off, jax.nn.one_hot(i, num, dtype=gram.dtype))
