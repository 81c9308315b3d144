"""From a method to an optax transformation: Gramian, weights, combination, state."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_floating
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._base import (
    Balancer,
    BalancerState,
    Given,
    Preparation,
    Reporting,
    Timing,
    Weighting,
)
from jaxmtl.balancing._entries import finite_rows
from jaxmtl.balancing._gram import (
    combine,
    cross_gramian,
    gramian,
    only_active,
    solve_dtype,
)
from jaxmtl.balancing._leaf_roles import LeafRoles, select_leaves, selected_only
from jaxmtl.balancing._parts import check_parts
from jaxmtl.balancing._stacked import check_fits, count_stacked, independent_batches
from jaxmtl.balancing._state import check_state, init_state
from jaxmtl.balancing._step import read_inputs, take_step, without_broken


def make_balancer(
    weighting: Weighting,
    *,
    roles: LeafRoles | None = None,
    preparation: Preparation | None = None,
    timing: Timing | None = None,
    reporting: Reporting | None = None,
    skips_broken: bool = False,
) -> Balancer:
    """Wrap a method into an optax transformation: this is how you make a method of your own.

    Args:
      weighting: the method.
      roles: which leaves the Gramian is measured on and which leaves receive the task weights; all
        leaves if None. ``on_shared`` sets them.
      preparation: what the method does to the stacked gradients before they are measured; nothing
        if None.
      timing: the steps at which the method computes new weights; every step if None. ``every`` and
        ``warm_up`` set it.
      reporting: what is recorded at each step; nothing if None. ``report_only`` sets it.
      skips_broken: whether a step leaves out tasks whose loss or gradient is not finite.
        ``skip_broken`` sets it.

    Returns:
      A ``Balancer``.

    Raises:
      ValueError: if a part has the wrong type; at update, if the gradients are not stacked, if they
        disagree on T or with the method's ``num_tasks``, if the state does not belong to this
        balancer, or if ``losses`` or ``active`` are missing or do not fit.

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
    check_parts(weighting, roles, preparation, timing, reporting, skips_broken)
    roles = LeafRoles() if roles is None else roles

    # Loops and branches are compiled only once, even if the training loop is not jitted.
    weighting = weighting._replace(update=jax.jit(weighting.update))

    def init(params: PyTree) -> BalancerState:
        check_floating("parameter", params, or_whole=True)
        parts = init_state(balancer, solve_dtype(jax.tree.leaves(params)))
        if preparation is not None:
            kept = preparation.init(selected_only(roles.weighted, params))
            parts = parts._replace(preparation=kept)
        # A copy, since the state may be donated: the user's arrays must remain valid.
        return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), parts)

    def update(
        grads: PyTree,
        state: BalancerState,
        params: PyTree | None = None,
        *,
        losses: TaskVector | None = None,
        active: TaskVector | None = None,
        independent_grads: tuple[PyTree, PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, BalancerState]:
        num_tasks = count_stacked(grads, params)
        dtype = solve_dtype(jax.tree.leaves(grads))
        given = read_inputs(weighting, num_tasks, dtype, losses=losses, active=active, **extra)
        check_state(balancer, state, dtype)
        batches: tuple[PyTree, ...] = ()
        if "cross_gramian" in weighting.reads:
            batches = independent_batches(independent_grads, grads)
        if skips_broken or reporting is not None:
            finite = finite_rows((grads, batches))
            given = given._replace(finite_gradients=finite | ~given.active)
        if skips_broken:
            given = without_broken(given)

        def only_present(tree: PyTree) -> PyTree:
            if active is None and not skips_broken:
                return tree
            return jax.tree.map(lambda leaf: only_active(given.active, leaf), tree)

        grads, batches = only_present(grads), only_present(batches)
        measured = combined = grads
        prepared: PyTree = ()
        if preparation is not None:
            weighted = selected_only(roles.weighted, grads)
            check_fits(preparation.init, weighted, state.preparation)
            measured, combined, prepared = preparation.update(weighted, given, state.preparation)
            measured, combined = only_present(measured), only_present(combined)

        def of_measured(tree: PyTree) -> list[Array]:
            return jax.tree.leaves(selected_only(roles.measured, tree))

        def measure(given: Given) -> Given:
            if "gramian" in weighting.reads:
                given = given._replace(gramian=gramian(of_measured(measured)))
            if batches:
                given = given._replace(cross_gramian=cross_gramian(*map(of_measured, batches)))
            return given

        leaves, treedef = jax.tree.flatten(grads)
        are_weighted = select_leaves(roles.weighted, grads)

        def combine_rows(weights: Array, plain: Array) -> tuple[list[Array], list[Array]]:
            to_weigh = iter(jax.tree.leaves(selected_only(roles.weighted, combined)))
            updates = [
                combine(weights, next(to_weigh)).astype(leaf.dtype) if w else combine(plain, leaf)
                for leaf, w in zip(leaves, are_weighted, strict=True)
            ]
            is_asked = timing is None or timing.period is None
            if "gramian" not in weighting.reads or preparation is not None or not is_asked:
                return updates, updates
            # A non-finite entry of a measured leaf shows on the diagonal of the Gramian.
            are_measured = select_leaves(roles.measured, grads)
            return updates, [u for u, m in zip(updates, are_measured, strict=True) if not m]

        updates, new_state = take_step(
            balancer,
            given,
            state,
            dtype,
            measure=measure,
            combine=combine_rows,
            preparation=prepared,
        )
        return jax.tree.unflatten(treedef, updates), new_state

    balancer = Balancer(init, update)
    balancer.weighting, balancer.roles = weighting, roles
    balancer.preparation, balancer.timing = preparation, timing
    balancer.reporting, balancer.skips_broken = reporting, skips_broken
    balancer.turns = None
    balancer.state_like = functools.cache(
        lambda dtype: jax.eval_shape(functools.partial(init_state, balancer, dtype))
    )
    balancer.description = f"make_balancer(<{weighting.update.__qualname__}>)"
    return balancer


def rebuild(balancer: Balancer, **changes: Any) -> Balancer:
    """The same balancer with some of its parts replaced; combinators are made with it."""
    if balancer.turns is not None:
        return balancer.turns.around(rebuild(balancer.turns.inner, **changes))
    parts = {
        "weighting": balancer.weighting,
        "roles": balancer.roles,
        "preparation": balancer.preparation,
        "timing": balancer.timing,
        "reporting": balancer.reporting,
        "skips_broken": balancer.skips_broken,
    }
    return make_balancer(**(parts | changes))
