"""From a method to an optax transformation: Gramian, weights, combination, state."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._base import Balancer, BalancerState, Weighting
from jaxmtl._checks import count_stacked
from jaxmtl._gram import combine, gramian, only_active, solve_dtype
from jaxmtl._leaf_roles import LeafRoles, select_leaves
from jaxmtl._step import keep_if_finite, read_inputs, weigh
from jaxmtl._typing import PyTree, TaskVector


def make_balancer(weighting: Weighting, roles: LeafRoles | None = None) -> Balancer:
    """Wrap a method into an optax transformation; how a method of one's own is made.

    Args:
      weighting: the method.
      roles: the leaves that it measures and weighs; all if None. ``on_shared`` sets them.

    Returns:
      A ``Balancer``.

    Raises:
      ValueError: at update, where the gradients are not stacked, disagree on T or do not fit the
        method's ``num_tasks``, and where ``losses`` or ``active`` are missing or do not fit.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> def update(given, state):  # the square roots of the losses
      ...     return jnp.sqrt(given.losses), state
      >>> roots = jaxmtl.make_balancer(
      ...     jaxmtl.Weighting(lambda dtype: (), update, frozenset({"losses"}), num_tasks=2)
      ... )
      >>> state = roots.init(jnp.zeros(2))
      >>> updates, state = roots.update(jnp.eye(2), state, losses=jnp.array([4.0, 9.0]))
      >>> print(updates)
      [2. 3.]
    """
    roles = LeafRoles() if roles is None else roles
    unknown = set(weighting.reads) - {"losses", "gramian"}
    if unknown:
        raise ValueError(
            f"A method may read 'losses' and 'gramian', but reads holds {sorted(unknown)}."
        )

    def init(params: PyTree) -> BalancerState:
        dtype = solve_dtype(jax.tree.leaves(params))
        known = weighting.num_tasks is not None
        weights = jnp.zeros(weighting.num_tasks, dtype) if known else None
        # A copy, since the state may be donated: arrays of the user's must outlive that.
        method = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), weighting.init(dtype))
        return BalancerState(weights, method)

    def update(
        grads: PyTree,
        state: BalancerState,
        params: PyTree | None = None,
        *,
        losses: TaskVector | None = None,
        active: TaskVector | None = None,
        **extra: Any,
    ) -> tuple[PyTree, BalancerState]:
        del extra
        num_tasks = count_stacked(grads, params)
        leaves, treedef = jax.tree.flatten(grads)
        measured = select_leaves(roles.measured, grads)
        weighted = select_leaves(roles.weighted, grads)
        given = read_inputs(weighting, num_tasks, solve_dtype(leaves), losses, active)
        if active is not None:
            leaves = [only_active(given.active, leaf) for leaf in leaves]
        if "gramian" in weighting.reads:
            inner = gramian([leaf for leaf, m in zip(leaves, measured, strict=True) if m])
            given = given._replace(gramian=inner)
        weights, new_state = weigh(weighting, given, state, solve_dtype(leaves))
        plain = given.active.astype(weights.dtype)
        updates = [
            combine(weights if w else plain, leaf) for leaf, w in zip(leaves, weighted, strict=True)
        ]
        # The Gramian vouches for what it measured: a non-finite entry shows on its diagonal.
        unseen = [
            update
            for update, m in zip(updates, measured, strict=True)
            if given.gramian is None or not m
        ]
        return jax.tree.unflatten(treedef, updates), keep_if_finite(unseen, new_state, state)

    balancer = Balancer(init, update)
    balancer.weighting = weighting
    balancer.roles = roles
    return balancer
