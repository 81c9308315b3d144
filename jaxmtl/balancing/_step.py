"""One step of a method: what it is given, the weights it returns, and which state is kept."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import common_names, task_mask, task_names, task_vector
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._base import BalancerState, Given, Timing, Weighting
from jaxmtl.balancing._timing import applied, is_due


def read_inputs(
    weighting: Weighting,
    num_tasks: int,
    dtype: jnp.dtype,
    /,
    *,
    losses: TaskVector | None,
    active: TaskVector | None,
    **extra: Any,
) -> Given:
    """Check what came against what the method reads."""
    if weighting.num_tasks not in (None, num_tasks):
        raise ValueError(
            f"The balancer was built for {weighting.num_tasks} tasks, but {num_tasks} came: build"
            f" it with num_tasks={num_tasks}, or with one value for each of them."
        )
    needed = {"losses": losses} if "losses" in weighting.reads else {}
    needed |= {name: extra.get(name) for name in sorted(weighting.extra)}
    for name, value in needed.items():
        if value is None:
            cheap = f' (and value_and_balanced_grad extra={{"{name}": {name}}})'
            raise ValueError(
                f"This method reads the {name}, but none came: call"
                f" update(grads, state, params, {name}={name}){cheap * (name != 'losses')}."
            )
    common_names(
        {
            "the balancer's values": weighting.names,
            "losses": task_names(losses),
            "active": task_names(active),
            **{name: task_names(value) for name, value in needed.items()},
        }
    )
    mask = jnp.ones(num_tasks, bool)
    if active is not None:
        mask = task_mask("active", active, num_tasks)

    def read(name: str, value: TaskVector) -> Array:
        values = jax.lax.stop_gradient(task_vector(name, value, num_tasks)).astype(dtype)
        return jnp.where(mask, values, jnp.ones_like(values))

    return Given(
        None if losses is None else read("losses", losses),
        None,
        mask,
        extra={name: read(name, extra[name]) for name in sorted(weighting.extra)},
    )


def take_step(
    weighting: Weighting,
    timing: Timing | None,
    given: Given,
    state: BalancerState,
    dtype: jnp.dtype,
    *,
    measure: Callable[[Given], Given] | None,
    combine: Callable[[Array, Array], tuple[list[Array], list[Array]]],
    preparation: PyTree,
) -> tuple[list[Array], BalancerState]:
    """Take one step of a method, from its inputs to the update, wherever its Gramian comes from.

    Args:
      weighting: the method.
      timing: when it is asked; at every step if None.
      given: the inputs, without Gramians.
      state: the balancer's state.
      dtype: the type of the weights.
      measure: adds the Gramians that the method reads; it runs only where the method is asked. If
        None, a timed method is not asked, and its last weights hold.
      combine: (T,) weights and (T,) ones for the tasks present -> the leaves of the update, and
        those of them that have to be looked at to know whether they are finite.
      preparation: what the method keeps of the gradients from now on.

    Returns:
      The leaves of the update, and the new state; the old one where something is not finite.
    """

    def ask(method: PyTree) -> tuple[Array, PyTree]:
        return _ask(weighting, given if measure is None else measure(given), method, dtype)

    finite = jnp.asarray(True)
    if given.losses is not None:
        finite &= jnp.all(jnp.isfinite(given.losses))
    if timing is None:
        weights, method = ask(state.method)
        new_timing = state.timing
    else:
        last, method = state.timing.weights, state.method
        if measure is not None and timing.period is None:
            last, method = ask(method)
        elif measure is not None:
            due = is_due(timing, state.timing)
            last, method = jax.lax.cond(due, ask, lambda method: (last, method), method)
            # A task that was absent when the method was asked keeps its last weight.
            last = jnp.where(given.active, last, state.timing.weights)
        weights = applied(timing, state.timing, last, given.active)
        new_timing = state.timing._replace(step=state.timing.step + 1, weights=last)
    finite &= jnp.all(jnp.isfinite(weights)) & ~_holds_nan(method)
    kept = None if state.task_weights is None else weights
    new_state = state._replace(task_weights=kept, method=method, timing=new_timing)
    weights = jnp.where(finite, weights, jnp.nan)
    new_state = keep(finite, new_state, state)._replace(preparation=preparation)
    updates, unseen = combine(weights, given.active.astype(weights.dtype))
    return updates, keep_if_finite(unseen, new_state, state)


def _ask(
    weighting: Weighting, given: Given, method: PyTree, dtype: jnp.dtype
) -> tuple[Array, PyTree]:
    """Ask the method for weights, NaN where what it measures is not finite."""
    # TPUs and tensor cores would round the T-sized products to 8 or 10 bits.
    with jax.default_matmul_precision("highest"):
        weights, new_method = weighting.update(given, method)
    weights = jnp.asarray(weights)
    if weights.shape != given.active.shape:
        raise ValueError(
            f"A method must return weights of shape (T,), here {given.active.shape}, but they have"
            f" shape {weights.shape}."
        )
    weights = jnp.where(given.active, weights, 0).astype(dtype)
    gramians = [g for g in (given.gramian, given.cross_gramian) if g is not None]
    measured = [jnp.all(jnp.isfinite(jnp.diagonal(g))) for g in gramians]
    finite = jnp.all(jnp.stack(measured)) if measured else jnp.asarray(True)
    # The old state's types: both branches of a cond have to agree.
    return jnp.where(finite, weights, jnp.nan), keep(jnp.asarray(True), new_method, method)


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
