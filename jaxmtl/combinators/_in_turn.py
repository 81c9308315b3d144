"""Balancer -> Balancer: one task's gradient per step; the method uses moments of all gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import check_share
from jaxmtl._typing import PyTree, TaskVector
from jaxmtl.backward._losses import like_losses
from jaxmtl.balancing._base import (
    Balancer,
    BalancerState,
    Turns,
    check_balancer,
    known_num_tasks,
)
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import solve_dtype
from jaxmtl.balancing._stacked import count_stacked
from jaxmtl.balancing._step import read_inputs
from jaxmtl.combinators._turns import due, init_turns, take_turn


@described
def in_turn(balancer: Balancer, *, decay: float = 0.9) -> Balancer:
    """Evaluate one task's gradient per step, and balance the moments of all tasks' gradients.

    At step t (from 1) it is the turn of task i = (t - 1) mod T: m_i <- decay m_i + (1 - decay) g_i.
    The method combines the corrected moments m_j / (1 - decay^n_j), with n_j the number of turns of
    task j so far, into d_t. The update is the pseudo-gradient
      u_t = (c_t d_t - decay c_{t-1} d_{t-1}) / (1 - decay),   c_t = 1 - decay^t,
    whose own average with this decay, corrected for its start, is d_t. So with
    ``optax.adam(rate, b1=decay)`` after it (first moment d_t, second moment of the u_t),
    ``in_turn(conflict_free(num_tasks=T))`` is M-ConFIG; ``optax.ema(decay)`` returns d_t itself.

    Through ``value_and_balanced_grad`` a step is one forward and one backward pass of one loss, for
    any T. ``update`` with stacked gradients does the same with the row of the task whose turn it
    is, and does not read the others. Combinators around it act on the inner balancer:
    ``every(in_turn(b), k)`` is ``in_turn(every(b, k))``.

    Args:
      balancer: any balancer built with ``num_tasks``, without ``skip_broken``, whose method does
        not take gradients of further batches.
      decay: the share of the old moment, from 0 to less than 1; equal to ``b1`` of the Adam after
        it.

    Returns:
      A balancer with T moments in float32 in its state, as large as T times the parameters. A task
      is absent until its first turn, so the first step is that of the first task alone. Only one
      loss is evaluated per step: methods that read losses get each loss as it was at the task's
      last turn, and ``value_and_balanced_grad`` returns these (infinite before the first turn). A
      task that ``active`` marks as absent misses its turn, but its moment is still balanced. A step
      that is not finite changes neither the state nor the turn. Scale and degree are the method's,
      once the moments have settled; its promises hold for d_t and the moments.

    Deviations from the authors' code: there the update is zero until each task has had its turn.
    Under ``jax.vmap``, for example over seeds, each step evaluates all losses.

    Raises:
      ValueError: for a ``decay`` outside [0, 1), or a balancer that was built without
        ``num_tasks``, takes gradients of further batches, skips broken tasks or already takes its
        tasks in turn.

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
    known_num_tasks(balancer, "in_turn keeps a moment")
    _check_fits(balancer)

    def init(params: PyTree) -> BalancerState:
        return init_turns(balancer, params)

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
        updates, _, state = take_turn(
            balancer, decay, grad, now, state, params, active=active, **extra
        )
        return updates, state

    outer = Balancer(init, update)
    for part in ("weighting", "roles", "preparation", "timing", "reporting", "skips_broken"):
        setattr(outer, part, getattr(balancer, part))
    outer.state_like = balancer.state_like
    outer.turns = Turns(
        balancer,
        lambda other: in_turn(other, decay=decay),
        due,
        functools.partial(take_turn, balancer, decay),
    )
    return outer


def _check_fits(balancer: Balancer) -> None:
    """Raise if a balancer needs more than one gradient per step."""
    if balancer.turns is not None:
        raise ValueError("The balancer already takes its tasks in turn: leave one in_turn out.")
    if "cross_gramian" in balancer.weighting.reads:
        raise ValueError(
            "in_turn has one gradient per step, but this method takes gradients of all tasks on two"
            " further batches: use a method that reads a single batch instead, such as"
            " jaxmtl.mgda(num_tasks=3)."
        )
    if balancer.skips_broken:
        raise ValueError(
            "in_turn balances every moment at each step, so it cannot leave out broken tasks:"
            " remove skip_broken, and put optax.apply_if_finite after the balancer."
        )
