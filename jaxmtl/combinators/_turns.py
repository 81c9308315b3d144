"""One step of a balancer that takes its tasks in turn: moments, weights, pseudo-gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._task_values import task_mask
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._averages import fresh_share, started
from jaxmtl.balancing._base import Balancer, BalancerState
from jaxmtl.balancing._entries import all_finite
from jaxmtl.balancing._gram import solve_dtype
from jaxmtl.balancing._state import check_is_state, keep
from jaxmtl.gradients._tracking import stacked_zeros


class TurnsState(NamedTuple):
    """The number of the step, and what is kept for each task from its own turns.

    Attributes:
      finite_steps: int32, the number of finite steps; modulo T, the task whose turn it is.
      seen: (T,) int32, the number of gradients in each task's moment.
      losses: (T,) each task's loss at its last turn; infinite before the first.
      moments: leaves of shape (T, *leaf.shape), corrected for their start, in float32 or better.
      momentum: the average of the updates so far, with the same decay.
      preparation: what the method keeps of the gradients.
    """

    finite_steps: Array
    seen: Array
    losses: Array
    moments: PyTree
    momentum: PyTree
    preparation: PyTree


def init_turns(balancer: Balancer, params: PyTree) -> BalancerState:
    """The state of the inner balancer, with the empty moments of each task in its preparation.

    Args:
      balancer: the inner balancer, built with ``num_tasks``.
      params: the parameters.
    """
    num_tasks: Any = balancer.weighting.num_tasks
    inner, dtype = balancer.init(params), solve_dtype(jax.tree.leaves(params))
    kept = TurnsState(
        jnp.zeros((), jnp.int32),
        jnp.zeros(num_tasks, jnp.int32),
        jnp.full(num_tasks, jnp.inf, dtype),
        jax.tree.map(jnp.array, stacked_zeros(params, num_tasks)),
        jax.tree.map(lambda leaf: jnp.zeros_like(leaf, solve_dtype([leaf])), params),
        inner.preparation,
    )
    return inner._replace(preparation=kept)


def due(state: Any) -> Array:
    """The task whose turn it is.

    Raises:
      ValueError: if the state does not belong to a balancer made by ``in_turn``.
    """
    check_is_state(state)
    if not isinstance(state.preparation, TurnsState):
        raise ValueError(
            "The state was made by another method: it holds no moments. A state comes from"
            " balancer.init(params), and from update, of the same balancer."
        )
    return state.preparation.finite_steps % state.preparation.seen.shape[0]


def take_turn(
    balancer: Balancer,
    decay: Any,
    grad: PyTree,
    losses: tuple[Array, Callable[[Array], TaskVector]] | None,
    state: BalancerState,
    params: PyTree | None,
    *,
    active: TaskVector | None = None,
    **extra: Any,
) -> tuple[PyTree, Array, BalancerState]:
    """Take the step of the task whose turn it is.

    Args:
      balancer: the inner balancer.
      decay: the share of the old moment.
      grad: the gradient of the task whose turn it is.
      losses: its loss, and a function that gives the (T,) losses their names; None if there are no
        losses.
      state: a state of turns.
      params: the parameters, if they are known.
      active: the tasks present.
      **extra: further arguments that the method reads.

    Returns:
      The updates, the (T,) losses of each task's last turn, and the new state.
    """
    turn, kept = due(state), state.preparation
    dtype = kept.losses.dtype
    comes = jnp.asarray(True)
    if active is not None:
        comes = jnp.asarray(task_mask("active", active, len(kept.seen)))[turn]
    seen = kept.seen.at[turn].add(comes.astype(kept.seen.dtype))
    share = fresh_share(decay, seen[turn], dtype)

    def of_turn(moments: Array) -> Array:
        return lax.dynamic_index_in_dim(moments, turn, keepdims=False)

    def move(old: Array, grad: Array) -> Array:
        step = share.astype(old.dtype) * (grad.astype(old.dtype) - old)
        return jnp.where(comes, old + step, old)

    def put(moments: Array, row: Array) -> Array:
        return lax.dynamic_update_index_in_dim(moments, row, turn, 0)

    old = jax.tree.map(of_turn, kept.moments)
    new = jax.tree.map(move, old, grad)
    moments = jax.tree.map(put, kept.moments, new)
    known, options = kept.losses, dict(extra)
    if losses is not None:
        now, named = losses
        known = known.at[turn].set(jnp.where(comes, now.astype(dtype), known[turn]))
        options["losses"] = named(known)
    direction, inner = balancer.update(
        moments,
        state._replace(preparation=kept.preparation),
        params,
        active=seen > 0,
        **options,
    )
    finite = all_finite(jax.tree.leaves(direction))
    steps = kept.finite_steps + 1
    begun = started(decay, steps, dtype)
    momentum = jax.tree.map(lambda leaf: begun.astype(leaf.dtype) * leaf, direction)
    updates = jax.tree.map(
        lambda new, old, like: ((new - decay * old) / (1 - decay)).astype(like.dtype),
        momentum,
        kept.momentum,
        grad,
    )
    small = TurnsState(steps, seen, known, None, momentum, None)
    small = keep(finite, small, kept._replace(moments=None, preparation=None))
    # Write only the row that changed, in place: the others are as large as T - 1 gradients.
    rows = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
    moments = jax.tree.map(put, moments, rows)
    preparation = small._replace(moments=moments, preparation=inner.preparation)
    return updates, known, inner._replace(preparation=preparation)
