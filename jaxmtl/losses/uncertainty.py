"""Weights from learned homoscedastic uncertainty."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmtl._checks import check_choice, check_flag, check_num_tasks
from jaxmtl._task_names import common_names
from jaxmtl._task_values import task_vector
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._learned import (
    LOGARITHM_RANGE,
    Learner,
    init_learner,
    learn_logarithm,
    read_optimizer,
)
from jaxmtl.losses._lower_bounds import excess, read_lower_bounds

Kind = str | Sequence[str] | dict[str, str]


def uncertainty_loss(
    losses: TaskVector,
    log_variances: TaskVector,
    *,
    kinds: Kind = "regression",
    nonnegative: bool = False,
) -> Array:
    """Weigh losses by learned uncertainty, as one loss to differentiate.

    With s_i = log sigma_i^2 and a_i = 1/2 for a regression (Gaussian likelihood), 1 for a
    classification (softmax with temperature sigma^2):
      sum_i a_i exp(-s_i) L_i + s_i / 2                 (Kendall et al.)
      sum_i a_i exp(-s_i) L_i + log(1 + exp(s_i))       (Liebel & Koerner, ``nonnegative``)

    For users who keep the log variances among their own parameters; ``uncertainty`` does the same
    inside a balancer. Exclude them from weight decay, which would pull every sigma towards one.

    Args:
      losses: (T,) array or tree of scalars.
      log_variances: (T,) array or tree of scalars, s_i = log sigma_i^2; start at zero.
      kinds: "regression" or "classification", one for all tasks or one per task (a sequence, or a
        dict with the names of the losses).
      nonnegative: whether to use the penalty log(1 + sigma^2) instead of log(sigma); the total is
        then positive if the losses are.

    Returns:
      The scalar total.

    Raises:
      ValueError: for an unknown kind, or lengths that disagree.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxmtl
      >>> grad = jax.grad(jaxmtl.uncertainty_loss, argnums=1)
      >>> losses = jnp.array([1.0, 4.0])
      >>> print(grad(losses, jnp.log(losses)))  # zero at s = log L
      [0. 0.]

    References:
      Kendall, Gal & Cipolla, `Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
      Geometry and Semantics <https://arxiv.org/abs/1705.07115>`_, 2018

      Liebel & Koerner, `Auxiliary Tasks in Multi-task Learning
      <https://arxiv.org/abs/1805.06334>`_, 2018
    """
    check_flag("nonnegative", nonnegative)
    values = task_vector("losses", losses)
    s = task_vector("log_variances", log_variances, values.shape[0])
    scale = _scale_of_kinds(kinds, values.shape[0])
    # The value is clipped but not the derivative: a plain clip has derivative zero outside the
    # range, and a log variance that left it would never return.
    s = s + jax.lax.stop_gradient(jnp.clip(s, -LOGARITHM_RANGE, LOGARITHM_RANGE) - s)
    penalty = jax.nn.softplus(s) if nonnegative else s / 2
    return jnp.sum(scale.astype(s.dtype) * jnp.exp(-s) * values + penalty)


class UncertaintyState(NamedTuple):
    """The (T,) logarithms of the variances sigma_i^2, and the state of their optimizer."""

    log_variances: Array
    learner: Learner


@described
def uncertainty(
    num_tasks: int,
    *,
    optimizer: optax.GradientTransformation | None = None,
    kinds: Kind = "regression",
    nonnegative: bool = False,
    lower_bounds: TaskVector | None = None,
) -> Balancer:
    """Weigh each task by its learned uncertainty, w_i = a_i / sigma_i^2.

    The balancer keeps s_i = log sigma_i^2, starting at zero, and learns them with the gradient of
    ``uncertainty_loss``, simultaneously with the parameters: the weights of a step are those
    before its update of s. At equilibrium w_i = 1 / (2 L_i) (both kinds), or
    2 sigma^4 = L (1 + sigma^2) for a ``nonnegative`` regression.

    Args:
      num_tasks: T.
      optimizer: any optax optimizer for the log variances, run separately for each task; by
        default ``optax.adam(1e-2)``. Use no weight decay, which would pull every sigma towards one.
      kinds: "regression" (a = 1/2) or "classification" (a = 1), one for all tasks or one per task.
      nonnegative: whether to use the penalty log(1 + sigma^2) instead of log(sigma).
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss at or below its
        bound does not change its weight.

    Returns:
      A balancer that reads the losses. Scale: (sum_i a_i) g on T identical gradients g at the
      start. Degree 1 in the gradients. Its state keeps ``method.log_variances`` within +-40, so
      that they stay finite if a loss stays near its bound. The weight is then too large to be
      useful, so leave out a task that is solved almost exactly.

    Raises:
      ValueError: for an unknown kind or ``num_tasks`` that does not fit; at update, if
        ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl, optax
      >>> balancer = jaxmtl.uncertainty(2, kinds=["regression", "classification"])
      >>> optimizer = optax.chain(balancer, optax.adam(1e-3))
      >>> state = optimizer.init(jnp.zeros(2))
      >>> _, state = optimizer.update(jnp.eye(2), state, losses=jnp.array([9.0, 1.0]))
      >>> print(optax.tree.get(state, "task_weights"))
      [0.5 1. ]

    References:
      Kendall, Gal & Cipolla, `Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
      Geometry and Semantics <https://arxiv.org/abs/1705.07115>`_, 2018

      Liebel & Koerner, `Auxiliary Tasks in Multi-task Learning
      <https://arxiv.org/abs/1805.06334>`_, 2018
    """
    check_num_tasks(num_tasks)
    check_flag("nonnegative", nonnegative)
    _scale_of_kinds(kinds, num_tasks)
    learner = read_optimizer(optimizer, optax.adam(1e-2))
    bounds, _ = read_lower_bounds(lower_bounds, num_tasks)

    def objective(losses: Array, s: Array) -> Array:
        return uncertainty_loss(losses, s, kinds=kinds, nonnegative=nonnegative)

    def init(dtype: jnp.dtype) -> UncertaintyState:
        zeros = jnp.zeros(num_tasks, dtype)
        return UncertaintyState(zeros, init_learner(zeros, learner))

    def update(given: Given, state: UncertaintyState) -> tuple[Array, UncertaintyState]:
        # The weight of a loss is the derivative of the objective with respect to it.
        above = excess(given.losses, bounds)
        weights, slope = jax.grad(objective, argnums=(0, 1))(above, state.log_variances)
        moving = given.active & (above > 0)
        return weights, UncertaintyState(*learn_logarithm(*state, slope, moving, learner))

    names = common_names(kinds=None if isinstance(kinds, str) else kinds, lower_bounds=lower_bounds)
    return make_balancer(Weighting(init, update, frozenset({"losses"}), num_tasks, names))


def _scale_of_kinds(kinds: Kind, num_tasks: int) -> Array:
    """The factor a_i of each task's likelihood."""
    names = [kinds] * num_tasks if isinstance(kinds, str) else jax.tree.leaves(kinds)
    for name in names:
        check_choice("kinds", name, ("regression", "classification"))
    factors = [0.5 if name == "regression" else 1.0 for name in names]
    return task_vector("kinds", factors, num_tasks)
