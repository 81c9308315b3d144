"""FAMO: learned weights with which all losses fall at the same relative speed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmtl._checks import check_num_tasks
from jaxmtl._task_names import common_names
from jaxmtl._task_values import task_vector
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._learned import Learner, init_learner, learn, read_optimizer
from jaxmtl.losses._lower_bounds import distance, read_lower_bounds
from jaxmtl.losses._softmax import softmax


class FAMOState(NamedTuple):
    """The logits xi with their optimizer, and the last step, from which they have yet to learn.

    Attributes:
      logits: (T,) xi.
      learner: the state of the optimizer of xi.
      last: (T,) losses of the last step at which the task was present.
      pending: (T,) bool, whether xi has yet to learn from that step.
      after: (T,) losses of the same batch after the step, if they were recorded.
      recorded: (T,) bool, whether they were recorded.
    """

    logits: Array
    learner: Learner
    last: Array
    pending: Array
    after: Array
    recorded: Array


@described
def famo(
    num_tasks: int,
    *,
    optimizer: optax.GradientTransformation | None = None,
    lower_bounds: TaskVector | None = None,
) -> Balancer:
    """Learn weights with which all losses fall at the same relative speed.

    With z = softmax(xi), xi starting at zero, and D_i = L_i - b_i the weights of a step are
      w_i = c z_i / D_i,  c = 1 / sum_j z_j / D_j,
    the gradient of sum_i z_i log D_i, rescaled so that the weights sum to one. After the step xi
    descends along the change of the log losses,
      delta_i = log D_i(before) - log D_i(after),
      dxi = J_softmax' delta = z * (delta - <z, delta>),
    so that the tasks whose losses fell most lose weight. The optimizer takes its step on xi at the
    next update, in one of two forms:
      exact: with D(after) on the same batch, which ``famo_after_step`` records; this costs a second
        evaluation of the losses (no gradients);
      next batch: if nothing was recorded, with the losses of the next batch that has the task, at
        no cost and with the noise of the batches.

    Args:
      num_tasks: T.
      optimizer: any optax optimizer for xi, run separately for each task; by default Adam with
        learning rate 0.025 and the decay 1e-3 added to the gradient,
        ``optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.025))``.
      lower_bounds: (T,) array or tree of scalars b, the least values of the losses; zeros if None.

    Returns:
      A balancer that reads the losses. Scale: g on T identical gradients g, since the weights sum
      to one. Degree 1 in the gradients, 0 in the losses (if ``lower_bounds`` are zero). A loss
      below its bound counts with its distance from it; a loss exactly at its bound has weight zero.
      The state keeps ``method.logits``, xi.

    Deviations from the paper: 1/D and log D are exact. The paper adds an epsilon of 1e-8 to D,
    which would depend on the unit. Absent tasks keep their logits; the softmax is over the tasks
    present.

    Raises:
      ValueError: if ``num_tasks`` is not a positive int, or ``lower_bounds`` are not one finite
        number per task; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl, optax
      >>> balancer = jaxmtl.famo(2, optimizer=optax.sgd(1.0))
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array([1.0, 3.0]))
      >>> [f"{weight:.3f}" for weight in updates]  # in proportion to 1 and 1/3
      ['0.750', '0.250']
      >>> updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array([1.0, 1.0]))
      >>> [f"{weight:.3f}" for weight in updates]  # delta = (0, log 3), softmax(0.275, -0.275)
      ['0.634', '0.366']

    References:
      Liu et al., `FAMO: Fast Adaptive Multitask Optimization
      <https://arxiv.org/abs/2306.03792>`_, 2023
    """
    check_num_tasks(num_tasks)
    bounds, _ = read_lower_bounds(lower_bounds, num_tasks)
    default = optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.025))
    learner = read_optimizer(optimizer, default)

    def init(dtype: jnp.dtype) -> FAMOState:
        zeros, no = jnp.zeros(num_tasks, dtype), jnp.zeros(num_tasks, bool)
        return FAMOState(zeros, init_learner(zeros, learner), zeros, no, zeros, no)

    def log_distance(losses: Array) -> tuple[Array, Array]:
        """log D, with the smallest normal number for a D of zero; and where D is not zero."""
        away, tiny = jnp.abs(distance(losses, bounds)), jnp.finfo(losses.dtype).tiny
        return jnp.log(jnp.maximum(away, tiny)), away >= tiny

    def update(given: Given, state: FAMOState) -> tuple[Array, FAMOState]:
        active, losses = given.active, given.losses
        logs, positive = log_distance(losses)
        # The effect of the last step is known if it was recorded, or if the task is present again.
        known = state.pending & (state.recorded | active)
        after = jnp.where(state.recorded, log_distance(state.after)[0], logs)
        fell = jnp.where(known, log_distance(state.last)[0] - after, 0)
        shares = softmax(state.logits, known)
        slope = shares * (fell - jnp.sum(shares * fell))
        logits, learned = learn(state.logits, state.learner, slope, known, learner)
        new = FAMOState(
            logits,
            learned,
            jnp.where(active, losses, state.last),
            active | (state.pending & ~known),
            state.after,
            jnp.zeros_like(state.recorded),
        )
        return softmax(logits - logs, active & positive), new

    return make_balancer(
        Weighting(
            init, update, frozenset({"losses"}), num_tasks, common_names(lower_bounds=lower_bounds)
        )
    )


def famo_after_step(opt_state: PyTree, losses: TaskVector) -> PyTree:
    """Record the losses after a step, for the exact form of ``famo``.

    Call it after ``optax.apply_updates`` with the losses of the same batch at the new parameters.
    For a loss that is not recorded, or not finite, ``famo`` uses the loss of the next batch.

    Args:
      opt_state: the state of ``famo``, or of any optax transformation that contains it.
      losses: (T,) array or tree of scalars, in the order of the balancer's losses.

    Returns:
      The state with the losses recorded, and otherwise unchanged.

    Raises:
      ValueError: if no state of ``famo`` is found, or the number of losses is not its T.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxmtl, optax
      >>> def losses_fn(x):
      ...     return jnp.array([1.0, 2.0]) * x**2
      >>> optimizer = optax.chain(jaxmtl.famo(2), optax.sgd(0.1))
      >>> x = jnp.ones(2)
      >>> state = optimizer.init(x)
      >>> losses, grads = jaxmtl.value_and_task_grads(losses_fn)(x)
      >>> updates, state = optimizer.update(grads, state, x, losses=losses)
      >>> x = optax.apply_updates(x, updates)
      >>> state = jaxmtl.famo_after_step(state, losses_fn(x))

    References:
      Liu et al., `FAMO: Fast Adaptive Multitask Optimization
      <https://arxiv.org/abs/2306.03792>`_, 2023
    """

    def is_famo(node: Any) -> bool:
        return isinstance(node, FAMOState)

    def record(node: Any) -> Any:
        if not is_famo(node):
            return node
        values = jnp.asarray(task_vector("losses", losses, node.last.shape[0]), node.last.dtype)
        # Record once only: after a step that was skipped, the state is still that of the step
        # before.
        new = node.pending & ~node.recorded & jnp.isfinite(values)
        return node._replace(
            after=jnp.where(new, jax.lax.stop_gradient(values), node.after),
            recorded=node.recorded | new,
        )

    if not any(is_famo(node) for node in jax.tree.leaves(opt_state, is_leaf=is_famo)):
        raise ValueError(
            "No state of famo was found in opt_state: pass the state that optimizer.update"
            " returned, of an optimizer that contains jaxmtl.famo(...)."
        )
    return jax.tree.map(record, opt_state, is_leaf=is_famo)
