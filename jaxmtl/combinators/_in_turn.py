"""Balancer -> Balancer: one task's gradient a step, the method on the moments of all."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._averages import fresh_share, started
from jaxmtl._checks import check_share
from jaxmtl._task_values import task_mask
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.backward._losses import like_losses
from jaxmtl.balancing._base import (
    Balancer,
    BalancerState,
    Turns,
    check_balancer,
    known_num_tasks,
)
from jaxmtl.balancing._described import described
from jaxmtl.balancing._entries import all_finite
from jaxmtl.balancing._gram import solve_dtype
from jaxmtl.balancing._stacked import count_stacked
from jaxmtl.balancing._state import check_is_state, keep
from jaxmtl.balancing._step import read_inputs
from jaxmtl.gradients._tracking import stacked_zeros


class TurnsState(NamedTuple):
    """Whose turn it is, and what is known of each task from its own.

    Attributes:
      finite_steps: int32, how many there were; this modulo T is the task whose turn it is.
      seen: (T,) int32, how many gradients of each task are in its moment.
      losses: (T,) each task's loss when it last had its turn; infinite before the first.
      moments: leaves of shape (T, *leaf.shape), corrected for their start, in float32 or better.
      momentum: what an average of the updates with the same decay has come to.
      preparation: what the method keeps of the gradients.
    """

    finite_steps: Array
    seen: Array
    losses: Array
    moments: PyTree
    momentum: PyTree
    preparation: PyTree


@described
def in_turn(balancer: Balancer, *, decay: float = 0.9) -> Balancer:
    """Evaluate one task's gradient a step, and ask the method on the moments of all of them.

    At step t (from 1) it is the turn of task i = (t - 1) mod T: m_i <- decay m_i + (1 - decay) g_i.
    The method is asked on the m_j / (1 - decay^n_j), n_j the turns that j has had; of the
    combination d_t that it returns the update is the pseudo-gradient
      u_t = (c_t d_t - decay c_{t-1} d_{t-1}) / (1 - decay),   c_t = 1 - decay^t,
    whose own average with this decay, corrected for its start, is d_t. So with
    ``optax.adam(rate, b1=decay)`` behind it, first moment d_t and second moment of the u_t,
    ``in_turn(conflict_free(num_tasks=T))`` is M-ConFIG; ``optax.ema(decay)`` brings back d_t alone.

    Through ``value_and_balanced_grad`` a step is one forward and one backward pass of one loss,
    whatever T is. ``update`` with stacked gradients does the same with the one row whose turn it
    is, and leaves the others unread. Where other combinators stand around it, they act on the
    balancer within: ``every(in_turn(b), k)`` is ``in_turn(every(b, k))``.

    Args:
      balancer: any balancer that was told ``num_tasks``, without ``skip_broken`` and not of those
        that take gradients of further batches.
      decay: the share of the old moment, from 0 to less than 1; ``b1`` of the Adam behind it.

    Returns:
      A balancer with T moments in float32 in its state, as large as T times the parameters. Before
      a task has had its turn it is absent, so that the first step is that of the first task alone.
      Of the losses only one is evaluated: methods that read losses get each as it was at the task's
      last turn, and ``value_and_balanced_grad`` returns these (infinite before the first). A task
      that ``active`` says is absent misses its turn, but its moment stays in the balance. A step
      that is not finite leaves the state, and so the turn. Scale and degree are the method's, once
      moments have settled; its promises hold for d_t and the moments.

    Deviations from the authors' code: there the update is zero until each task has had its turn.
    Under ``jax.vmap``, over seeds, say, each step evaluates all losses.

    Raises:
      ValueError: for a ``decay`` outside [0, 1), a balancer that does not know T, takes gradients
        of further batches, skips broken tasks or is in turn already.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxmtl, optax
      >>> def losses_fn(x):
      ...     return {"near": jnp.sum(x**2), "sum": jnp.sum(x)}
      >>> balancer = jaxmtl.in_turn(jaxmtl.conflict_free(num_tasks=2), decay=0.9)
      >>> optimizer, x = optax.adam(0.01, b1=0.9), jnp.array([1.0, 2.0])
      >>> state, opt_state = balancer.init(x), optimizer.init(x)
      >>> route = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
      >>> for _ in range(3):
      ...     losses, grad, state = route(state, x)
      ...     updates, opt_state = optimizer.update(grad, opt_state)
      ...     x = optax.apply_updates(x, updates)
      ...     print({name: round(float(loss), 2) for name, loss in losses.items()})
      {'near': 5.0, 'sum': inf}
      {'near': 5.0, 'sum': 2.98}
      {'near': 4.88, 'sum': 2.98}

    References:
      Liu, Chu & Thuerey, `ConFIG: Towards Conflict-free Training of Physics Informed Neural
      Networks <https://arxiv.org/abs/2408.11104>`_, 2024
    """
    check_balancer(balancer)
    check_share("decay", decay)
    num_tasks = known_num_tasks(balancer, "in_turn keeps a moment")
    _check_fits(balancer)

    def init(params: PyTree) -> BalancerState:
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

    def due(state: BalancerState) -> Array:
        check_is_state(state)
        if not isinstance(state.preparation, TurnsState):
            raise ValueError(
                "The state was made by another method: it holds no moments. A state comes from"
                " balancer.init(params), and from update, of the same balancer."
            )
        return state.preparation.finite_steps % num_tasks

    def take(
        grad: PyTree,
        losses: tuple[Array, Callable[[Array], TaskVector]] | None,
        state: BalancerState,
        params: PyTree | None,
        *,
        active: TaskVector | None = None,
        **extra: Any,
    ) -> tuple[PyTree, Array, BalancerState]:
        turn, kept = due(state), state.preparation
        dtype = kept.losses.dtype
        comes = jnp.asarray(True)
        if active is not None:
            comes = jnp.asarray(task_mask("active", active, num_tasks))[turn]
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
        # Only the row that moved, in place: the others are as large as T - 1 gradients.
        rows = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
        moments = jax.tree.map(put, moments, rows)
        preparation = small._replace(moments=moments, preparation=inner.preparation)
        return updates, known, inner._replace(preparation=preparation)

    def update(
        grads: PyTree,
        state: BalancerState,
        params: PyTree | None = None,
        *,
        losses: TaskVector | None = None,
        active: TaskVector | None = None,
        **extra: Any,
    ) -> tuple[PyTree, BalancerState]:
        turn, count = due(state), count_stacked(grads, params)
        dtype = solve_dtype(jax.tree.leaves(grads))
        given = read_inputs(balancer.weighting, count, dtype, losses=losses, active=active, **extra)
        grad = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, turn, 0, False), grads)
        now = None
        if losses is not None:
            named = functools.partial(like_losses, losses=jax.tree.map(jnp.asarray, losses))
            now = given.losses[turn], named
        updates, _, state = take(grad, now, state, params, active=active, **extra)
        return updates, state

    outer = Balancer(init, update)
    for part in ("weighting", "roles", "preparation", "timing", "reporting", "skips_broken"):
        setattr(outer, part, getattr(balancer, part))
    outer.state_like = balancer.state_like
    outer.turns = Turns(balancer, lambda other: in_turn(other, decay=decay), due, take)
    return outer


def _check_fits(balancer: Balancer) -> None:
    """Raise where a balancer asks for more than one gradient a step."""
    if balancer.turns is not None:
        raise ValueError("The balancer goes through its tasks in turn already: leave one out.")
    if "cross_gramian" in balancer.weighting.reads:
        raise ValueError(
            "in_turn has one gradient a step, but this method takes gradients of all tasks on two"
            " further batches: put one that reads a single batch in its place, such as"
            " jaxmtl.mgda(num_tasks=3)."
        )
    if balancer.skips_broken:
        raise ValueError(
            "in_turn holds every moment in the balance, and so leaves no broken task out: take"
            " skip_broken away, and let optax.apply_if_finite follow the balancer."
        )
