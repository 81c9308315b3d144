"""Balance gradients with respect to shared features: one backward pass through the encoder."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import task_mask
from jaxmtl._typing import PyTree, TaskVector
from jaxmtl.backward._cpu_layouts import laid_out
from jaxmtl.backward._linearise import linearise, pull_back_each, pull_back_weights
from jaxmtl.balancing._base import Balancer, BalancerState, check_balancer


def value_and_features_grad(
    encode: Callable[..., PyTree], decode: Callable[..., Any], balancer: Balancer
) -> Callable[..., Any]:
    """Evaluate several losses and a balanced gradient, weighed at the shared features.

    With features z = encode(shared, ...) and losses L = decode(heads, z, ...), the task weights
    come from the gradients dL_i/dz, which need no backward pass through the encoder; then one
    pass carries the combination to the shared parameters. For MGDA this is MGDA-UB: where the
    encoder's Jacobian has full rank, a direction that serves all tasks at the features does so at
    the parameters. The weights are not those of the parameters' gradients.

    Args:
      encode: ``(shared, *args) -> features``, a tree of arrays; the whole batch is kept.
      decode: ``(heads, features, *args) -> losses``, as for ``value_and_task_grads``.
      balancer: any balancer without ``on_shared`` (the features are what is shared) that keeps
        nothing of the gradients.

    Returns:
      A function ``(balancer_state, shared, heads, *args, active=None, extra=None) -> (losses,
      (shared_grad, heads_grad), balancer_state)``, with ``balancer_state = balancer.init(shared)``
      at the start. Each head receives its own task's gradient.

    Raises:
      ValueError: where the balancer is none, is restricted, or keeps averages of gradients.

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
    check_balancer(balancer)
    if balancer.roles.measured:
        raise ValueError(
            "The features are what is shared here: pass the balancer without on_shared, and the"
            " task-specific parameters as heads."
        )

    def evaluate(
        state: BalancerState,
        shared: PyTree,
        heads: PyTree,
        *args: Any,
        active: TaskVector | None = None,
        extra: dict[str, Any] | None = None,
    ) -> tuple[PyTree, tuple[PyTree, PyTree], BalancerState]:
        kept = jax.tree.leaves(state.preparation)
        if any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in kept):
            raise ValueError(
                "The balancer keeps averages of each task's gradient, but gradients of features"
                " belong to a batch: use value_and_task_grads and balancer.update."
            )
        features, pull_encoder = jax.vjp(lambda shared: encode(shared, *args), shared)
        at = linearise(decode, (0, 1), False, (heads, features, *args), {})
        to_features = at._replace(pull_back=lambda cotangents: at.pull_back(cotangents)[1])
        of_features = pull_back_each(to_features, chunk_size=None)
        combined, state = balancer.update(
            of_features, state, losses=at.losses, active=active, **(extra or {})
        )
        present = jnp.ones(at.num_tasks)
        if active is not None:
            present *= task_mask("active", active, at.num_tasks)
        of_shared = laid_out(pull_encoder)(combined)[0]
        of_heads = pull_back_weights(at, present)[0]
        return at.losses, (of_shared, of_heads), state

    return evaluate
