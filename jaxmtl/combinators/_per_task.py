"""Before a balancer in a chain: any optax transformation, applied to each task's gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmtl._checks import check_num_tasks, check_optimizer, shown
from jaxmtl._task_values import task_mask
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._stacked import count_stacked
from jaxmtl.balancing._state import keep


def per_task(
    tx: optax.GradientTransformation, num_tasks: int
) -> optax.GradientTransformationExtraArgs:
    """Apply an optax transformation to each task's gradient, before the balancer in a chain.

    Every task has a state of its own, as if it were trained alone: ``clip_by_global_norm`` clips
    each gradient by its own norm, ``scale_by_adam`` and ``trace`` keep moments of each task. (On
    the stacked gradients themselves they would treat all tasks as one.) The memory is T times that
    of ``tx``.

    If ``tx`` has a state, a non-finite gradient enters the state of its own task for good. To
    prevent this, wrap it: ``per_task(optax.apply_if_finite(tx, n), T)`` gives that task a zero
    gradient and leaves its state unchanged. A zero gradient still takes part in the balance (the
    min-norm point of ``mgda`` is then zero). To balance the other tasks as if it were absent, use
    ``skip_broken(balancer)`` after a ``tx`` without state, such as clipping, which passes the
    non-finite gradient on; after other transformations, mark the task with ``active`` yourself.

    ``per_task(optax.snapshot("raw_norm", optax.tree.norm), T)`` records the norms of the gradients
    at its place in the chain, and changes nothing; ``jaxmtl.scalars`` lists them.

    Args:
      tx: any optax transformation that keeps the shape of its gradients, such as
        ``optax.clip_by_global_norm(1.0)``.
      num_tasks: T.

    Returns:
      A transformation from stacked gradients to stacked gradients, whose state has a leading task
      axis at every leaf (random keys differ between the tasks). ``params`` and further arguments
      of ``update`` are passed to ``tx`` unchanged, the same for every task. With ``active``, the
      row of an absent task is zero and its state does not change.

    Raises:
      ValueError: if ``tx`` is not an optax transformation, or is a balancer; at update, if the
        gradients are not stacked, or not of ``num_tasks`` tasks.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl, optax
      >>> clip = jaxmtl.per_task(optax.clip_by_global_norm(1.0), num_tasks=2)
      >>> optimizer = optax.chain(clip, jaxmtl.equal(), optax.sgd(1.0))
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[30.0, 40.0], [0.5, 0.0]])
      >>> updates, _ = optimizer.update(grads, optimizer.init(params), params)
      >>> print(updates.round(3))  # minus the mean of [0.6, 0.8] and [0.5, 0.0]
      [-0.55 -0.4 ]
    """
    num_tasks = check_num_tasks(num_tasks)
    check_optimizer("tx", tx)
    inner = optax.with_extra_args_support(tx)

    def init(params: PyTree) -> PyTree:
        state = jax.vmap(inner.init, in_axes=None, axis_size=num_tasks)(params)
        return jax.tree.map(_independent, state)

    def update(
        grads: PyTree,
        state: PyTree,
        params: PyTree | None = None,
        *,
        active: TaskVector | None = None,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        came = count_stacked(grads, params)
        if came != num_tasks:
            raise ValueError(
                f"per_task was built for {num_tasks} tasks, but the gradients are of {came}: build"
                f" it with num_tasks={came}."
            )
        _check_state(init, num_tasks, state, grads)
        if active is None:
            return jax.vmap(lambda g, s: inner.update(g, s, params, **extra))(grads, state)

        def of_task(present: Array, grad: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
            updates, new = inner.update(grad, state, params, active=active, **extra)
            zeros = jax.tree.map(jnp.zeros_like, updates)
            return keep(present, updates, zeros), keep(present, new, state)

        mask = jnp.asarray(task_mask("active", active, num_tasks))
        return jax.vmap(of_task)(mask, grads, state)

    return optax.GradientTransformationExtraArgs(init, update)


def _check_state(init: Any, num_tasks: int, state: PyTree, grads: PyTree) -> None:
    """Raise unless a state is like the one that ``init`` makes, with a leading task axis."""
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), grads)
    kind = type(jax.eval_shape(init, params))
    shapes = [getattr(leaf, "shape", None) for leaf in jax.tree.leaves(state)]
    if type(state) is not kind or any(not shape or shape[0] != num_tasks for shape in shapes):
        raise ValueError(
            f"state must be what per_task(tx, {num_tasks}).init(params) or update returned, a"
            f" {kind.__name__} with a first axis of {num_tasks} at every leaf, but it is"
            f" {shown(state)}."
        )


def _independent(leaf: Array) -> Array:
    """Draw a key for each task from copies of one key; other leaves stay unchanged."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) and leaf.ndim == 1:
        return jax.vmap(jax.random.fold_in)(leaf, jnp.arange(leaf.shape[0]))
    return leaf
