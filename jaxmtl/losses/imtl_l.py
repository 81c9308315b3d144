"""IMTL-L: learned weights that bring every loss to one."""

from typing import NamedTuple

import jax.numpy as jnp
import optax

from jaxmtl._checks import check_num_tasks
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._learned import Learner, init_learner, learn_logarithm, read_optimizer
from jaxmtl.losses._lower_bounds import excess, read_lower_bounds


class IMTLLState(NamedTuple):
    """The (T,) logarithms of the weights, and the state of their optimizer."""

    log_weights: Array
    learner: Learner


@described
def imtl_l(
    num_tasks: int,
    *,
    optimizer: optax.GradientTransformation | None = None,
    lower_bounds: TaskVector | None = None,
) -> Balancer:
    """Learn weights exp(s_i) that bring every weighted loss to one.

    Descends sum_i exp(s_i) L_i - s_i in s, starting at zero, together with the parameters: the
    weights of a step are those before its update of s. At equilibrium exp(s_i) = 1/L_i.

    Args:
      num_tasks: T.
      optimizer: any optax optimizer for s, run separately for each task; by default
        ``optax.adam(1e-2)``.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss at or below its
        bound does not change its weight.

    Returns:
      A balancer that reads the losses. Scale: T g on T identical gradients g at the start. Degree 1
      in the gradients. Its state keeps ``method.log_weights``, s, within +-40, so that s stays
      finite if a loss stays near its bound.

    Raises:
      ValueError: if ``num_tasks`` is not a positive int; at update, if ``losses`` are
        missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl, optax
      >>> balancer = jaxmtl.imtl_l(2, optimizer=optax.sgd(0.1))
      >>> state = balancer.init(jnp.zeros(2))
      >>> for _ in range(200):
      ...     updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array([2.0, 0.5]))
      >>> print(updates.round(3))
      [0.5 2. ]

    References:
      Liu et al., `Towards Impartial Multi-task Learning
      <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021
    """
    check_num_tasks(num_tasks)
    learner = read_optimizer(optimizer, optax.adam(1e-2))
    bounds, _ = read_lower_bounds(lower_bounds, num_tasks)

    def init(dtype: jnp.dtype) -> IMTLLState:
        zeros = jnp.zeros(num_tasks, dtype)
        return IMTLLState(zeros, init_learner(zeros, learner))

    def update(given: Given, state: IMTLLState) -> tuple[Array, IMTLLState]:
        weights = jnp.exp(state.log_weights)
        above = excess(given.losses, bounds)
        moving = given.active & (above > 0)
        return weights, IMTLLState(*learn_logarithm(*state, weights * above - 1, moving, learner))

    names = common_names(lower_bounds=lower_bounds)
    return make_balancer(Weighting(init, update, frozenset({"losses"}), num_tasks, names))
