"""The vocabulary: what a method is given, what it returns, and the optax transformation around it.

A method is a ``Weighting``: T-sized pure functions that know nothing of parameters. A ``Balancer``
is the optax transformation made from one: it forms the Gramian if the method reads it, asks for
the task weights, combines the stacked gradients, and keeps the state.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmtl._checks import check_same_names, count_stacked, task_names, task_vector
from jaxmtl._gram import combine, gramian, only_active, solve_dtype
from jaxmtl._leaf_roles import LeafRoles, select_leaves
from jaxmtl._typing import Array, PyTree, TaskVector


class Given(NamedTuple):
    """What a method is given at a step; what it does not read may be None.

    Attributes:
      losses: (T,) losses; one at absent tasks.
      gramian: (T, T) inner products of the gradients; zero rows and columns at absent tasks.
      active: (T,) bool, the tasks present in this batch.
    """

    losses: Any
    gramian: Any
    active: Array


class Weighting(NamedTuple):
    """A balancing method as T-sized pure functions.

    Attributes:
      init: ``dtype -> state``; what is kept per task has shape (T,) and this type.
      update: ``(Given, state) -> ((T,) weights, state)``. The weights of absent tasks are ignored;
        the state must not move for them.
      reads: which of "losses" and "gramian" the method reads.
      num_tasks: T where the method knows it, else None.
      names: the tasks' names where the user gave something by name; the losses must then bear the
        same ones.
    """

    init: Callable[[Any], PyTree]
    update: Callable[[Given, PyTree], tuple[Array, PyTree]]
    reads: frozenset[str]
    num_tasks: int | None
    names: tuple[str, ...] | None = None


class BalancerState(NamedTuple):
    """State of a balancer.

    Attributes:
      task_weights: the (T,) weights of the last step whose inputs were finite, zero before the
        first. None where the balancer was not told ``num_tasks``: the shapes of an optax state are
        fixed by ``init``, which sees the parameters only.
      method: the method's own state.
    """

    task_weights: Any
    method: PyTree


class Balancer(optax.GradientTransformationExtraArgs):
    """An optax transformation that reduces the leading task axis of stacked gradients.

    ``init(params)`` returns a ``BalancerState``. ``update(grads, state, params=None, *,
    losses=None, active=None, **extra)`` takes gradients with leaves of shape (T, *leaf.shape) and
    returns updates of the parameters' own shapes; ``losses`` is the tree or (T,) array of losses,
    ``active`` an optional tree or (T,) array of bools: the tasks present in this batch.

    A step with a non-finite loss or gradient returns non-finite updates and leaves the state as it
    was, so that ``optax.apply_if_finite`` after the balancer skips the step as a whole. A step
    without any active task returns zero.

    Attributes:
      weighting: the method.
      roles: the leaves that it measures and weighs.
    """

    weighting: Weighting
    roles: LeafRoles


def check_balancer(balancer: Any) -> Balancer:
    """Raise unless a balancer came, and nothing that merely contains one."""
    if not (isinstance(balancer, Balancer) and hasattr(balancer, "weighting")):
        raise ValueError(
            "balancer must be a jaxmtl.Balancer, such as jaxmtl.mgda(), but it is a"
            f" {type(balancer).__name__}: pass the balancer alone; what follows it in a chain takes"
            " the gradient that it returns."
        )
    return balancer


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


def read_inputs(
    weighting: Weighting,
    num_tasks: int,
    dtype: jnp.dtype,
    losses: TaskVector | None,
    active: TaskVector | None,
) -> Given:
    """Check what came against what the method reads."""
    if weighting.num_tasks not in (None, num_tasks):
        raise ValueError(
            f"The balancer was built for {weighting.num_tasks} tasks, but {num_tasks} came: build"
            f" it with num_tasks={num_tasks}, or with one value for each of them."
        )
    names = {
        "the balancer's values": weighting.names,
        "losses": task_names(losses),
        "active": task_names(active),
    }
    check_same_names({name: value for name, value in names.items() if value is not None})
    if losses is None and "losses" in weighting.reads:
        raise ValueError(
            "This method reads the losses, but none came: call"
            " update(grads, state, params, losses=losses)."
        )
    mask = jnp.ones(num_tasks, bool)
    if active is not None:
        mask = task_vector("active", active, num_tasks)
        if mask.dtype != bool:
            raise ValueError(
                f"active must be a mask of bools, one a task, but it has type {mask.dtype}: for"
                " numbers, pass active=(mask != 0)."
            )
        mask = jnp.asarray(mask)
    if losses is None:
        return Given(None, None, mask)
    values = jax.lax.stop_gradient(task_vector("losses", losses, num_tasks)).astype(dtype)
    return Given(jnp.where(mask, values, jnp.ones_like(values)), None, mask)


def weigh(
    weighting: Weighting, given: Given, state: BalancerState, dtype: jnp.dtype
) -> tuple[Array, BalancerState]:
    """Ask the method for weights; NaN and the old state where something is not finite."""
    finite = jnp.asarray(True)
    if given.losses is not None:
        finite &= jnp.all(jnp.isfinite(given.losses))
    if given.gramian is not None:
        finite &= jnp.all(jnp.isfinite(jnp.diagonal(given.gramian)))
    # TPUs and tensor cores would round the T-sized products to 8 or 10 bits.
    with jax.default_matmul_precision("highest"):
        weights, method = weighting.update(given, state.method)
    weights = jnp.asarray(weights)
    if weights.shape != given.active.shape:
        raise ValueError(
            f"A method must return weights of shape (T,), here {given.active.shape}, but they have"
            f" shape {weights.shape}."
        )
    weights = jnp.where(given.active, weights, 0).astype(dtype)
    # Inputs may be finite and yet too large for what a method does with them.
    finite &= jnp.all(jnp.isfinite(weights)) & ~_holds_nan(method)
    new_state = BalancerState(None if state.task_weights is None else weights, method)
    return jnp.where(finite, weights, jnp.nan), keep(finite, new_state, state)


def _holds_nan(tree: PyTree) -> Array:
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    found = [jnp.any(jnp.isnan(leaf)) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.any(jnp.stack(found)) if found else jnp.asarray(False)


def keep(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """Take the new state where the condition holds, in the types of the old one."""

    def choose(new: Array, old: Array) -> Array:
        new, old = jnp.asarray(new), jnp.asarray(old)
        return jnp.where(condition, new if new.dtype == old.dtype else new.astype(old.dtype), old)

    return jax.tree.map(choose, new, old)


def keep_if_finite(updates: Sequence[Array], new: PyTree, old: PyTree) -> PyTree:
    """Take the new state where all these updates are finite."""
    if not updates or not jax.tree.leaves(new):
        return new
    return keep(jnp.all(jnp.stack([jnp.all(jnp.isfinite(u)) for u in updates])), new, old)
