"""From a function of several losses directly to the balanced gradient, by the cheapest route."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_argnums, check_callable, check_choice, check_flag, static_count
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.backward._branches import one_of
from jaxmtl.backward._cpu_layouts import laid_out
from jaxmtl.backward._instances import gramian_by_examples, stack_gradients
from jaxmtl.backward._linearise import (
    Linearised,
    chosen,
    in_chunks,
    linearise,
    pull_back_weights,
)
from jaxmtl.backward._losses import like_losses
from jaxmtl.backward._manual_axes import check_summed
from jaxmtl.backward._turn import one_task
from jaxmtl.balancing._balancer import rebuild
from jaxmtl.balancing._base import Balancer, BalancerState, Given, check_balancer
from jaxmtl.balancing._entries import all_finite
from jaxmtl.balancing._gram import solve_dtype
from jaxmtl.balancing._leaf_roles import select_leaves
from jaxmtl.balancing._state import check_is_state, check_state
from jaxmtl.balancing._step import read_extra, read_inputs, take_step
from jaxmtl.balancing._timing import is_due
from jaxmtl.solvers.scaling import reciprocal


def value_and_balanced_grad(
    fun: Callable[..., Any],
    balancer: Balancer,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    memory: str = "stacked",
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """Evaluate several losses and their balanced gradient by the cheapest route the method allows.

    Returns the same losses, gradient and state as ``value_and_task_grads`` followed by
    ``balancer.update``. A method that reads only the losses costs one forward and one backward
    pass, for any T (two backward passes if ``on_shared`` leaves heads their own gradient); the same
    holds for the steps of ``every`` and ``warm_up`` at which the method computes no new weights.
    With ``in_turn`` a step is one forward and one backward pass of a single loss. If ``fun`` has a
    ``jax.custom_vjp`` whose backward rule is not linear, such as one that clips the gradient, a
    single backward pass applies the rule to the gradient of the weighted sum, as ``jax.grad`` of
    that sum does, and several apply it to the gradient of each loss.

    Args:
      fun: as for ``value_and_task_grads``.
      balancer: any balancer of this package, alone; the transformations that follow it in a chain
        take the returned gradient.
      argnums: which positional argument, or arguments, to differentiate.
      has_aux: whether ``fun`` returns ``(losses, aux)``.
      memory: "stacked" computes the T gradients side by side. "lean" needs memory for one gradient
        only, for any T, and works for methods that read only losses and Gramian: it makes one
        gradient at a time, computes its inner products with all others as one directional
        derivative, and makes the update by one more backward pass. It takes about twice as long;
        inner products are as exact as the types of the parameters and activations allow. Functions
        with a ``jax.custom_vjp`` have no directional derivatives.
      chunk_size: as for ``value_and_task_grads``.

    Returns:
      A function ``(balancer_state, *args, active=None, extra=None, **kwargs) -> (losses, grad,
      balancer_state)``, or ``((losses, aux), grad, balancer_state)``, with ``balancer_state =
      balancer.init(params)`` at the start. ``active`` is the optional mask of the tasks present. If
      the loss of an absent task is NaN because it has no examples, mask the examples inside
      ``fun``: in a single backward pass, zero times its derivative is NaN. ``extra`` is a dict of
      the further arguments that the method needs in ``update``, such as ``{"ntk_traces": ...}``.
      (If ``fun`` has keyword arguments ``active`` or ``extra`` itself, they cannot be passed.) A
      single backward pass carries the weights in the type of the losses: 8 bits for bfloat16.

    Raises:
      ValueError: if ``balancer`` is not a balancer; when called, if the state is not a balancer's
        state, and as ``value_and_task_grads`` and ``balancer.update`` do.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxmtl
      >>> def losses_fn(x):
      ...     return {"near": jnp.sum(x**2), "sum": jnp.sum(x)}
      >>> balancer = jaxmtl.real_time_loss()
      >>> x = jnp.array([1.0, 2.0])
      >>> step = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
      >>> losses, grad, state = step(balancer.init(x), x)
      >>> print(grad.round(4))  # [2, 4] / 5 + [1, 1] / 3
      [0.7333 1.1333]
    """
    check_callable("fun", fun, "of arrays that returns the losses")
    check_balancer(balancer)
    argnums = check_argnums(argnums)
    check_flag("has_aux", has_aux)
    check_choice("memory", memory, ("stacked", "lean"))
    if chunk_size is not None:
        chunk_size = static_count("chunk_size", chunk_size)
    weighting, timing, roles = balancer.weighting, balancer.timing, balancer.roles
    reads_gramian = bool(weighting.reads & {"gramian", "cross_gramian"})
    needs_stack = balancer.preparation is not None or "cross_gramian" in weighting.reads
    needs_stack |= balancer.skips_broken or balancer.turns is not None
    if memory == "lean" and needs_stack:
        raise ValueError(
            'memory="lean" works for methods that read only the Gramian of the gradients, but this'
            " one works on the stacked gradients themselves: leave memory out."
        )
    if balancer.turns is not None:
        return one_task(fun, balancer.turns, weighting, argnums, has_aux)
    # The forward pass belongs in the branches: XLA then fuses it with the backward pass as it does
    # without branches. A second branch inside, on the same condition, would make XLA copy the stack
    # of gradients; therefore this balancer is one that always computes new weights.
    due = balancer
    if timing is not None:
        due = rebuild(balancer, timing=timing._replace(period=None))

    def evaluate(
        state: BalancerState,
        /,
        *args: Any,
        active: TaskVector | None = None,
        extra: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, PyTree, BalancerState]:
        extra = read_extra(extra)
        check_is_state(state)
        params = chosen(args, argnums)
        dtype = solve_dtype(jax.tree.leaves(params))
        check_state(balancer, state, dtype)

        def take(balancer: Balancer, *, asks: bool) -> tuple[Any, PyTree, BalancerState]:
            """Take one step, from the forward pass on."""
            measures = asks and reads_gramian
            lean = measures and memory == "lean"
            at = linearise(fun, argnums, has_aux, args, kwargs, forward=lean)
            options = {"losses": at.losses, "active": active, **extra}
            if needs_stack or measures:
                check_summed(at.pull_back, at.losses)
            found = None
            if measures and not needs_stack:
                are_measured = select_leaves(roles.measured, params)
                found = gramian_by_examples(at, are_measured, dtype, lean=lean)
            if needs_stack or (measures and not lean and found is None):
                grads = stack_gradients(at, chunk_size)
                return at.value, *balancer.update(grads, state, params, **options)
            given = read_inputs(weighting, at.num_tasks, dtype, **options)
            if found is not None:
                gram, finite = found
                there = given.active[:, None] & given.active[None, :]
                given = given._replace(
                    gramian=jnp.where(there, gram, 0), finite_gradients=finite | ~given.active
                )
            elif lean:
                given = _with_lean_gramian(at, select_leaves(roles.measured, params), given)
            are_weighted = select_leaves(roles.weighted, params)

            def combine_passes(weights: Array, plain: Array) -> tuple[list[Array], list[Array]]:
                passes = [pull_back_weights(at, weights)]
                if not all(are_weighted):
                    passes.append(pull_back_weights(at, plain))
                flat = zip(*map(jax.tree.leaves, passes), strict=True)
                grads = [g[0] if w else g[-1] for g, w in zip(flat, are_weighted, strict=True)]
                return grads, grads

            grads, new_state = take_step(
                balancer,
                given,
                state,
                dtype,
                measure=(lambda _: given) if asks else None,
                combine=combine_passes,
                preparation=state.preparation,
            )
            return at.value, jax.tree.unflatten(jax.tree.structure(params), grads), new_state

        if timing is None or needs_stack or not reads_gramian:
            return take(balancer, asks=True)
        return one_of(
            is_due(timing, state.timing),
            functools.partial(take, due, asks=True),
            functools.partial(take, balancer, asks=False),
        )

    return evaluate


def _with_lean_gramian(at: Linearised, are_measured: list[bool], given: Given) -> Given:
    """G_ji = <g_j, g_i> as the derivative of loss j along g_i: one gradient at a time."""
    dtype = given.losses.dtype

    def column(row: Array) -> tuple[Array, Array]:
        grads, treedef = jax.tree.flatten(at.pull_back(like_losses(row, at.losses)))
        present = given.active & (row > 0)
        kept = [
            jnp.where(jnp.any(present) & measured, leaf, jnp.zeros_like(leaf))
            for leaf, measured in zip(grads, are_measured, strict=True)
        ]
        # Along a direction of length one: the derivatives pass through the type of the losses, and
        # inner products would exceed its range.
        length = jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(dtype))) for leaf in kept))
        kept = [(leaf.astype(dtype) * reciprocal(length)).astype(leaf.dtype) for leaf in kept]
        slopes = at.push_forward(jax.tree.unflatten(treedef, kept)).astype(dtype)
        slopes = jnp.where(present, length, jnp.where(given.active, slopes, 0))
        return slopes * length, all_finite(grads)

    units = jnp.eye(at.num_tasks)
    columns, finite = laid_out(lambda units: in_chunks(column, units, 1))(units)
    return given._replace(
        gramian=(columns + columns.T) / 2, finite_gradients=finite | ~given.active
    )
