"""One step of a method: what it is given, the weights it returns, and which state is kept."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxmtl._base import BalancerState, Given, Weighting
from jaxmtl._checks import check_same_names, task_names, task_vector
from jaxmtl._typing import Array, PyTree, TaskVector


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
