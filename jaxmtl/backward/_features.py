"""Balancing by the gradients of shared features: one backward pass through the encoder."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_callable, check_floating
from jaxmtl._task_values import task_mask, task_vector
from jaxmtl._typing import PyTree, TaskVector
from jaxmtl.backward._cpu_layouts import laid_out
from jaxmtl.backward._linearise import linearise, pull_back_each, pull_back_weights
from jaxmtl.balancing._base import Balancer, BalancerState, check_balancer
from jaxmtl.balancing._entries import all_finite, finite_rows
from jaxmtl.balancing._gram import only_active, rows, solve_dtype
from jaxmtl.balancing._state import after_step, check_is_state, check_state
from jaxmtl.balancing._step import read_extra


def value_and_features_grad(
    encode: Callable[..., PyTree], decode: Callable[..., Any], balancer: Balancer
) -> Callable[..., Any]:
    """Evaluate several losses and a balanced gradient, with task weights from shared features.

    With features z = encode(shared, ...) and losses L = decode(heads, z, ...), the task weights
    are computed from the gradients dL_i/dz, which need no backward pass through the encoder. Then
    one backward pass carries the combination to the shared parameters. For MGDA this is MGDA-UB:
    if the encoder's Jacobian has full rank, a common descent direction of all tasks at the
    features is one at the parameters too. The weights differ from those that the parameters'
    gradients would give.

    Args:
      encode: ``(shared, *args) -> features``, a tree of arrays; the features of the whole batch.
      decode: ``(heads, features, *args) -> losses``, as for ``value_and_task_grads``.
      balancer: any balancer without ``on_shared`` (the features take the place of the shared
        leaves) that keeps no averages or moments of the gradients.

    Returns:
      A function ``(balancer_state, shared, heads, *args, active=None, extra=None) -> (losses,
      (shared_grad, heads_grad), balancer_state)``, with ``balancer_state = balancer.init(shared)``
      at the start. Each head receives its own task's gradient.

    Raises:
      ValueError: if ``balancer`` is not a balancer, is restricted by ``on_shared``, or keeps
        averages of gradients.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> def encode(shared, x):
      ...     return shared * x
      >>> def decode(heads, z, x):
      ...     return {"a": jnp.sum(heads["a"] * z), "b": jnp.sum(heads["b"] * z)}
      >>> balancer = jaxmtl.normalize()
      >>> step = jaxmtl.value_and_features_grad(encode, decode, balancer)
      >>> shared, heads = jnp.ones(2), {"a": jnp.array([3.0, 0.0]), "b": jnp.array([0.0, 0.5])}
      >>> losses, (shared_grad, _), _ = step(balancer.init(shared), shared, heads, jnp.ones(2))
      >>> print(shared_grad)
      [1. 1.]

    References:
      Sener & Koltun, `Multi-Task Learning as Multi-Objective Optimization
      <https://arxiv.org/abs/1810.04650>`_, 2018
    """
    check_callable("encode", encode, "(shared, *args) -> features")
    check_callable("decode", decode, "(heads, features, *args) -> losses")
    check_balancer(balancer)
    if balancer.roles.measured:
        raise ValueError(
            "The shared features are balanced here, so on_shared does not apply: pass the balancer"
            " without on_shared, and the task-specific parameters as heads."
        )
    if balancer.turns is not None:
        raise ValueError(
            "in_turn keeps a moment of each task's gradient, but gradients of features belong to a"
            " batch: pass the balancer without it, or use value_and_balanced_grad."
        )

    def evaluate(
        state: BalancerState,
        shared: PyTree,
        heads: PyTree,
        *args: Any,
        active: TaskVector | None = None,
        extra: dict[str, Any] | None = None,
    ) -> tuple[PyTree, tuple[PyTree, PyTree], BalancerState]:
        extra = read_extra(extra)
        check_is_state(state)
        check_floating("shared parameter", shared)
        check_floating("parameter of heads", heads)
        check_state(balancer, state, solve_dtype(jax.tree.leaves(shared)))
        kept = jax.tree.leaves(state.preparation)
        if any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in kept):
            raise ValueError(
                "The balancer keeps averages of each task's gradient, but gradients of features"
                " belong to a batch: use value_and_task_grads and balancer.update."
            )

        def features_of(shared: PyTree) -> PyTree:
            features = encode(shared, *args)
            check_floating("feature", features)
            return features

        features, pull_encoder = jax.vjp(features_of, shared)
        at = linearise(decode, (0, 1), False, (heads, features, *args), {})
        if active is None and not balancer.skips_broken:
            to_features = at._replace(pull_back=lambda cotangents: at.pull_back(cotangents)[1])
            of_features = pull_back_each(to_features, chunk_size=None)
            of_heads = pull_back_weights(at, jnp.ones(at.num_tasks))[0]
        else:
            # In one pass for all tasks, zero times the NaN of an absent task would remain.
            rows_of_heads, of_features = stacked = pull_back_each(at, chunk_size=None)
            present = jnp.ones(at.num_tasks, bool)
            if active is not None:
                present = jnp.asarray(task_mask("active", active, at.num_tasks))
            if balancer.skips_broken:
                values = task_vector("losses", at.losses)
                sound = jnp.isfinite(values) & finite_rows(stacked)
                broken, present = present & ~sound, present & sound
                # A non-finite gradient in a head alone must be visible at the features as well.
                of_features = jax.tree.map(
                    lambda leaf: jnp.where(rows(broken, leaf), jnp.nan, leaf), of_features
                )
            of_heads = jax.tree.map(
                lambda leaf: jnp.sum(only_active(present, leaf), axis=0), rows_of_heads
            )
        combined, new_state = balancer.update(
            of_features, state, losses=at.losses, active=active, **extra
        )
        of_shared = laid_out(pull_encoder)(combined)[0]
        finite = all_finite(jax.tree.leaves((of_shared, of_heads)))
        return at.losses, (of_shared, of_heads), after_step(finite, new_state, state)

    return evaluate
