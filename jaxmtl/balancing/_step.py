"""One step of a method: its inputs, the weights it returns, and the state that is kept."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import is_real, shown
from jaxmtl._task_names import common_names
from jaxmtl._task_values import task_mask, task_vector
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._base import Balancer, BalancerState, Given, Weighting
from jaxmtl.balancing._entries import all_finite, all_hold, no_nan
from jaxmtl.balancing._state import after_step, keep
from jaxmtl.balancing._timing import TimingState, applied, is_due


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
    """Check the arguments of ``update`` against the inputs that the method reads."""
    check_built_for(weighting, num_tasks)
    needed = {"losses": losses} if "losses" in weighting.reads else {}
    needed |= {name: extra.get(name) for name in sorted(weighting.extra)}
    for name, value in needed.items():
        if value is None:
            cheap = f' (and value_and_balanced_grad extra={{"{name}": {name}}})'
            raise ValueError(
                f"This method reads the {name}, but the argument {name} is missing: call"
                f" update(grads, state, params, {name}={name}){cheap * (name != 'losses')}."
            )
    names = common_names(weighting.names, **({"losses": losses, "active": active} | needed)).names
    for argument, name in weighting.named:
        if name not in (names or ()):
            raise ValueError(
                f"{argument} is the task {name!r}, but the losses have"
                f" {'no names' if names is None else 'the names ' + ', '.join(names)}: call"
                f" update(grads, state, params, losses=losses) with a dict of losses that has it."
            )
    mask = jnp.ones(num_tasks, bool)
    if active is not None:
        mask = jnp.asarray(task_mask("active", active, num_tasks))

    def read(name: str, value: TaskVector) -> Array:
        values = jax.lax.stop_gradient(task_vector(name, value, num_tasks)).astype(dtype)
        return _of_present(mask, values)

    values = None if losses is None else read("losses", losses)
    return Given(
        values,
        None,
        mask,
        extra={name: read(name, extra[name]) for name in sorted(weighting.extra)},
        finite_losses=jnp.ones(num_tasks, bool) if values is None else jnp.isfinite(values),
        named={
            argument: jnp.asarray([name == other for other in names or ()])
            for argument, name in weighting.named
        },
    )


def check_built_for(weighting: Weighting, num_tasks: int) -> None:
    """Raise if a method that was built for T tasks receives another number of tasks."""
    if weighting.num_tasks not in (None, num_tasks):
        raise ValueError(
            f"The balancer was built for {weighting.num_tasks} tasks, but received {num_tasks}:"
            f" build it with num_tasks={num_tasks}, or with one value for each of them."
        )


def read_extra(extra: Any) -> dict[str, Any]:
    """Check the further arguments of ``update`` that came in one dict."""
    if extra is None:
        return {}
    names = extra if isinstance(extra, dict) else [None]
    if not all(isinstance(name, str) for name in names) or {"losses", "active"} & set(names):
        raise ValueError(
            "extra must be a dict of the further arguments that the method needs, such as"
            f' {{"ntk_traces": traces}}, without losses and active, but it is {shown(extra)}.'
        )
    return extra


def without_broken(given: Given) -> Given:
    """Leave out the tasks whose loss or gradient is not finite, as if they were absent."""
    return only_present(given, given.active & given.finite_losses & given.finite_gradients)


def only_present(given: Given, present: Array) -> Given:
    """The inputs of a method with the tasks present only; Gramians are zero for the others."""

    def pairs(gramian: Any) -> Any:
        both = present[:, None] & present[None, :]
        return None if gramian is None else jnp.where(both, gramian, 0)

    return given._replace(
        losses=None if given.losses is None else _of_present(present, given.losses),
        gramian=pairs(given.gramian),
        active=present,
        cross_gramian=pairs(given.cross_gramian),
        extra={name: _of_present(present, values) for name, values in given.extra.items()},
    )


def _of_present(present: Array, values: Array) -> Array:
    """The values of the tasks present; one, which every method accepts, for the others."""
    return jnp.where(present, values, jnp.ones_like(values))


def take_step(
    balancer: Balancer,
    given: Given,
    state: BalancerState,
    dtype: jnp.dtype,
    *,
    measure: Callable[[Given], Given] | None,
    combine: Callable[[Array, Array], tuple[list[Array], list[Array]]],
    preparation: PyTree,
) -> tuple[list[Array], BalancerState]:
    """Take one step of a method, from its inputs to the update, for any source of the Gramian.

    Args:
      balancer: the method, its timing and its reporting.
      given: the inputs, without Gramians.
      state: the balancer's state.
      dtype: the type of the weights.
      measure: adds the Gramians that the method reads; it runs only at steps at which the method
        computes new weights. If None, a method with a timing keeps its last weights at this step.
      combine: (T,) weights and (T,) ones for the tasks present -> the leaves of the update, and
        those of them that must still be checked for non-finite entries.
      preparation: what the method keeps of the gradients from this step on.

    Returns:
      The leaves of the update, and the new state; if something is not finite, the old state with
      the new report.
    """
    timing = balancer.timing

    def ask(last: tuple[Any, PyTree, PyTree]) -> tuple[Array, PyTree, PyTree]:
        _, method, report = last
        measured = given if measure is None else measure(given)
        weights, method = _ask(balancer.weighting, measured, method, dtype)
        if balancer.reporting is not None:
            new = balancer.reporting.update(measured, weights, report)
            report = keep(jnp.asarray(True), new, report)
        return weights, method, report

    new_timing = state.timing
    if timing is None:
        weights, method, report = ask((None, state.method, state.report))
    else:
        last = state.timing.weights, state.method, state.report
        if measure is not None and timing.period is None:
            last = ask(last)
        elif measure is not None:
            last = choose(is_due(timing, state.timing), ask, lambda last: last, last)
        # A task that was absent when the method computed weights keeps its last weight.
        held = jnp.where(given.active, last[0], state.timing.weights)
        _, method, report = last
        weights = applied(timing, state.timing, held, given.active)
        new_timing = TimingState(state.timing.finite_steps + 1, held)
    numbers = [weights] if given.losses is None else [weights, given.losses]
    finite = all_hold([*map(jnp.isfinite, numbers), *no_nan(method)])
    kept = None if state.task_weights is None else weights
    new_state = BalancerState(kept, method, preparation, new_timing, report)
    weights = jnp.where(finite, weights, jnp.nan)
    updates, unseen = combine(weights, given.active.astype(weights.dtype))
    finite = finite & all_finite(unseen) & jnp.isfinite(weights)
    return updates, after_step(finite, new_state, state)


def choose(
    condition: Array, so: Callable[[Any], Any], otherwise: Callable[[Any], Any], operand: Any
) -> Any:
    """``lax.cond`` under ``jit`` only: outside, each call would compile its branches again."""
    if isinstance(condition, jax.core.Tracer):
        return jax.lax.cond(condition, so, otherwise, operand)
    return so(operand) if condition else otherwise(operand)


def _ask(
    weighting: Weighting, given: Given, method: PyTree, dtype: jnp.dtype
) -> tuple[Array, PyTree]:
    """Compute the method's weights; they are NaN if what it measures is not finite."""
    # TPUs and tensor cores would round the T-sized products to 8 or 10 bits.
    with jax.default_matmul_precision("highest"):
        returned = weighting.update(given, method)
    if not isinstance(returned, tuple) or len(returned) != 2 or not is_real(returned[0]):
        raise ValueError(
            "A method must return a pair, ((T,) weights, state), but it returned"
            f" {shown(returned)}."
        )
    weights, new_method = jnp.asarray(returned[0]), returned[1]
    if weights.shape != given.active.shape:
        raise ValueError(
            f"A method must return weights of shape (T,), here {given.active.shape}, but they have"
            f" shape {weights.shape}."
        )
    if jax.tree.map(jnp.shape, new_method) != jax.tree.map(jnp.shape, method):
        raise ValueError(
            "A method must return a state like the one it was given, "
            f"{jax.tree.map(jnp.shape, method)}, but it returned one of"
            f" {jax.tree.map(jnp.shape, new_method)}."
        )
    weights = jnp.where(given.active, weights, 0).astype(dtype)
    gramians = [g for g in (given.gramian, given.cross_gramian) if g is not None]
    finite = all_finite([jnp.diagonal(g) for g in gramians])
    # In the old state's types, since both branches of a cond must agree.
    return jnp.where(finite, weights, jnp.nan), keep(jnp.asarray(True), new_method, method)
