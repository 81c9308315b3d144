"""GradVac: each gradient is turned towards the others until their cosine is the usual one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_num_tasks, check_share
from jaxmtl._typing import Array
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._random_keys import next_keys, stored, typed_key
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.scaling import reciprocal


class GradVacState(NamedTuple):
    """The (T, T) target cosines, row i for task i, and the random key of the next step."""

    target_cosines: Array
    key_data: Array


@described
def gradvac(num_tasks: int, key: Array | int, *, decay: float = 0.99) -> Balancer:
    """Raise the cosine between gradients to its running average, pair by pair.

    For each task i, over the other tasks j in random order, with phi = cos(g_i', g_j) and target
    t = t_ij: if phi < t,
      g_i' += ||g_i'|| (t sqrt(1 - phi^2) - phi sqrt(1 - t^2)) / (||g_j|| sqrt(1 - t^2)) g_j,
    so that the cosine becomes t; in every case t <- decay t + (1 - decay) phi. The update is the
    sum of the g_i'. With a target of zero this is PCGrad; targets start at zero.

    Args:
      num_tasks: T.
      key: a JAX random key (or an int seed) for the order; kept in the state, split at every step.
      decay: the share of the old target, 1 - beta in the paper.

    Returns:
      A balancer that reads the Gramian. Scale: T g on T identical gradients g. Degree 1. Targets of
      absent tasks do not change. It may conflict with a task, as PCGrad may. There is one target
      for all leaves together; the paper tries one for each layer. If many gradients that used to be
      similar suddenly are not, the turns add up, and the update can be very long: clip it.

    Raises:
      ValueError: for a ``decay`` outside [0, 1), or a ``key`` that is not a random key.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.gradvac(2, 0)
      >>> grads = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> updates, state = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates.round(4))  # the first step is PCGrad's
      [0.5 1.5]

    References:
      Wang et al., `Gradient Vaccine: Investigating and Improving Multi-task Optimization in
      Massively Multilingual Models <https://arxiv.org/abs/2010.05874>`_, 2021
    """
    check_num_tasks(num_tasks)
    check_share("decay", decay)
    key = typed_key(key)

    def init(dtype: jnp.dtype) -> GradVacState:
        return GradVacState(jnp.zeros((num_tasks, num_tasks), dtype), stored(key))

    def update(given: Given, state: GradVacState) -> tuple[Array, GradVacState]:
        next_key, step_key = next_keys(state.key_data, key)
        gram, keys = given.gramian, jax.random.split(step_key, num_tasks)
        per_length = reciprocal(jnp.sqrt(jnp.diagonal(gram)))
        orders = jax.vmap(lambda k: jax.random.permutation(k, num_tasks))(keys)
        met = given.active & (per_length > 0)

        of_each = jax.vmap(_turn, in_axes=(None, None, None, None, 0, 0, 0))
        rows, targets = of_each(
            gram, per_length, met, decay, jnp.arange(num_tasks), orders, state.target_cosines
        )
        return given.active.astype(gram.dtype) @ rows, GradVacState(targets, next_key)

    return make_balancer(Weighting(init, update, frozenset({"gramian"}), num_tasks))


@one_launch
def _turn(
    gram: Array,
    per_length: Array,
    met: Array,
    decay: Array,
    i: Array,
    order: Array,
    targets: Array,
) -> tuple[Array, Array]:
    """Turn gradient i towards the others in the given order: its weights, and the new targets."""

    def towards(position: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        c, targets = state
        j = order[position]
        slopes = gram @ c
        length = jnp.sqrt(jnp.maximum(c @ slopes, 0))
        cosine = jnp.clip(slopes[j] * per_length[j] * reciprocal(length), -1, 1)
        target = targets[j]
        # Two identical gradients: no multiple of one can reach the other's direction.
        sine = jnp.sqrt(jnp.maximum(1 - target**2, jnp.finfo(c.dtype).eps))
        needed = target * jnp.sqrt(1 - cosine**2) - cosine * sine
        counts = (j != i) & met[i] & met[j]
        step = jnp.where(counts & (cosine < target), needed / sine, 0)
        moved = decay * target + (1 - decay) * cosine
        targets = targets.at[j].set(jnp.where(counts, moved, target))
        return c.at[j].add(length * per_length[j] * step), targets

    start = jax.nn.one_hot(i, len(order), dtype=gram.dtype), targets
    return jax.lax.fori_loop(0, len(order), towards, start)
