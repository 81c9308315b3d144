"""CoV weighting: more weight to the losses that vary much relative to their mean."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_num_tasks
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import equal_shares
from jaxmtl.balancing._state import keep
from jaxmtl.losses._lower_bounds import excess, read_lower_bounds
from jaxmtl.solvers.scaling import reciprocal


class CoVState(NamedTuple):
    """Statistics of each task's losses over the steps at which it was present.

    Attributes:
      mean_loss: (T,) mean losses.
      mean_ratio: (T,) mean of the ratios of each loss to the mean of the losses before it.
      squares: (T,) sum of the squared deviations of these ratios from their mean.
      steps: (T,) int32, the number of steps.
    """

    mean_loss: Array
    mean_ratio: Array
    squares: Array
    steps: Array


@described
def cov_weighting(num_tasks: int, *, lower_bounds: TaskVector | None = None) -> Balancer:
    """Weigh by the coefficient of variation of the loss ratios seen so far.

    With l_i(t) = L_i(t) / mean of L_i before t: w_i = (std l_i / mean l_i) / sum_j (std l_j / mean
    l_j), over the steps before this one. All weights are equal until every task present has been
    present twice before, and if no loss has varied.

    Args:
      num_tasks: T.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts as zero.

    Returns:
      A balancer that reads the losses. Scale: g on T identical gradients g, since the weights sum
      to one over the tasks present. Degree 1 in the gradients, 0 in the losses, each of which may
      have its own unit. If the mean loss is zero, the loss counts as unchanged. Absent tasks keep
      their statistics.

    Deviations from the authors' code: nothing is added to the variance.

    Raises:
      ValueError: if ``num_tasks`` is not a positive int; at update, if ``losses`` are
        missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.cov_weighting(2)
      >>> state = balancer.init(jnp.zeros(2))
      >>> for losses in ([4.0, 4.0], [2.0, 4.0], [1.0, 4.0]):
      ...     updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array(losses))
      >>> print(updates)  # the second has not varied
      [1. 0.]

    References:
      Groenendijk, Karaoglu, Gevers & Mensink, `Multi-Loss Weighting with Coefficient of Variations
      <https://arxiv.org/abs/2009.01717>`_, 2021
    """
    check_num_tasks(num_tasks)
    bounds, _ = read_lower_bounds(lower_bounds, num_tasks)

    def init(dtype: jnp.dtype) -> CoVState:
        zeros = jnp.zeros(num_tasks, dtype)
        return CoVState(zeros, zeros, zeros, jnp.zeros(num_tasks, jnp.int32))

    def update(given: Given, state: CoVState) -> tuple[Array, CoVState]:
        active, sizes = given.active, excess(given.losses, bounds)
        dtype = sizes.dtype
        variance = state.squares / jnp.maximum(state.steps, 1).astype(dtype)
        varied = jnp.where(active, jnp.sqrt(variance) * reciprocal(state.mean_ratio), 0)
        total = jnp.sum(varied)
        ready = jnp.all((state.steps >= 2) | ~active) & (total > 0)
        weights = jnp.where(ready, varied * reciprocal(total), equal_shares(active, dtype))
        ratio = jnp.where(state.mean_loss > 0, sizes * reciprocal(state.mean_loss), 1)
        # Its square, summed over the steps, stays in the range of the type.
        ratio = jnp.minimum(ratio, jnp.finfo(dtype).max ** 0.25)
        steps = state.steps + active.astype(state.steps.dtype)
        share = 1 / jnp.maximum(steps, 1).astype(dtype)
        moved = ratio - state.mean_ratio
        mean_ratio = state.mean_ratio + share * moved
        squares = state.squares + moved * (ratio - mean_ratio)
        mean_loss = state.mean_loss + share * (sizes - state.mean_loss)
        return weights, keep(active, CoVState(mean_loss, mean_ratio, squares, steps), state)

    names = common_names(lower_bounds=lower_bounds)
    return make_balancer(Weighting(init, update, frozenset({"losses"}), num_tasks, names))
