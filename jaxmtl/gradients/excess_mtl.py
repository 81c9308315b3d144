"""ExcessMTL: more weight to the tasks that are far from their own optimum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_at_least, check_num_tasks
from jaxmtl._platform import made_once
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Preparation, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import rows
from jaxmtl.balancing._rounding import ROUNDINGS, is_rounding
from jaxmtl.gradients._tracking import stacked_zeros
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.scaling import reciprocal


class ExcessState(NamedTuple):
    """Logarithms of the weights, up to a constant, and the first excess risk of each task."""

    logits: Array
    first: Array


@described
def excess_mtl(num_tasks: int, *, step_size: float = 0.01) -> Balancer:
    """Raise the weights of tasks with much excess risk, estimated from the gradients.

    S_i <- S_i + g_i^2 (each entry),  E_i = sum g_i^2 / sqrt(S_i),  w_i <- w_i exp(step_size E_i /
    E_i^0), divided by their sum, with E_i^0 the first E_i. E_i estimates how far the loss is above
    the task's optimum, by a Newton step with Adagrad's curvature. Noise that no model can fit does
    not count, while it does in methods that read the loss.

    Args:
      num_tasks: T.
      step_size: how fast the weights change.

    Returns:
      A balancer that reads the Gramian of the gradients divided by S^(1/4). Scale: g on T identical
      gradients g. Degree 1. It keeps T times the parameters in float32. Absent tasks keep their
      state, and have no weight in the step. An excess that is zero, or rounding error compared with
      the largest (8 eps), does not count as the first: the task's weight begins to change with the
      next.

    Deviations from the paper: no constant is added to S.

    Raises:
      ValueError: for a ``step_size`` below 0.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.excess_mtl(2, step_size=1.0)
      >>> state = balancer.init(jnp.zeros(2))
      >>> for size in (1.0, 0.1, 0.1):  # the first task is learned, the second stays
      ...     updates, state = balancer.update(jnp.diag(jnp.array([size, 1.0])), state)
      >>> print(state.task_weights.round(2))
      [0.22 0.78]

    References:
      He et al., `Robust Multi-Task Learning with Excess Risks <https://arxiv.org/abs/2402.02009>`_,
      2024
    """
    check_num_tasks(num_tasks)
    check_at_least("step_size", step_size, 0)

    def accumulate(grads: PyTree, given: Given, sums: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        def add(total: Array, grad: Array) -> Array:
            square = jnp.square(grad.astype(total.dtype))
            return jnp.where(rows(given.active, grad), total + square, total)

        def scale(grad: Array, total: Array) -> Array:
            root = jnp.sqrt(jnp.sqrt(total))
            return jnp.where(total > 0, grad.astype(root.dtype) / jnp.where(total > 0, root, 1), 0)

        grads = made_once(grads)
        sums = jax.tree.map(add, sums, grads)
        return jax.tree.map(scale, grads, sums), grads, sums

    def init(dtype: jnp.dtype) -> ExcessState:
        return ExcessState(jnp.zeros(num_tasks, dtype), jnp.zeros(num_tasks, dtype))

    def update(given: Given, state: ExcessState) -> tuple[Array, ExcessState]:
        step = jnp.asarray(step_size, given.gramian.dtype)
        weights, *kept = _raise(*state, jnp.diagonal(given.gramian), given.active, step)
        return weights, ExcessState(*kept)

    return make_balancer(
        Weighting(init, update, frozenset({"gramian"}), num_tasks),
        preparation=Preparation(lambda params: stacked_zeros(params, num_tasks), accumulate),
    )


@one_launch
def _raise(
    logits: Array, first: Array, excess: Array, active: Array, step_size: Array
) -> tuple[Array, Array, Array]:
    """The weights of a step, and the new logits and first excesses."""
    # Later excesses could be a million times a first excess of rounding error: all weight to it.
    measured = active & ~is_rounding(excess, active, ROUNDINGS)
    first = jnp.where(first > 0, first, jnp.where(measured, excess, 0))
    raised = logits + step_size * excess * reciprocal(first)
    # The tasks present keep their total, so that absent tasks do not lose their share.
    total = jax.nn.logsumexp(raised, where=active)
    before = jax.nn.logsumexp(logits, where=active)
    change = jnp.where(jnp.any(active), before - total, 0)
    logits = jnp.where(active, raised + change, logits)
    return jax.nn.softmax(logits, where=active), logits, first
