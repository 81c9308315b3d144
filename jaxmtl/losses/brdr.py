"""BRDR: more weight to the losses that decay more slowly than the others."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_num_tasks, check_share
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._averages import follow, follow_root
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import count_present
from jaxmtl.losses._lower_bounds import excess, read_lower_bounds
from jaxmtl.solvers.scaling import reciprocal


class BRDRState(NamedTuple):
    """Averages over the steps at which each task was present, corrected for their start.

    Attributes:
      root: (T,) square roots of the averaged squares of the losses.
      average: (T,) averaged weights.
      steps: (T,) int32, the number of steps.
    """

    root: Array
    average: Array
    steps: Array


@described
def brdr(
    num_tasks: int, *, decay: float = 0.999, lower_bounds: TaskVector | None = None
) -> Balancer:
    """Weigh by the inverse residual decay rate, so that all losses decay at the same rate.

    c_i = L_i / sqrt(EMA(L_i^2)), w_i = EMA(c_i / mean_j c_j): a loss that falls has a small c and
    gets less weight. Both averages are corrected for their start, so all weights are one at first.

    Args:
      num_tasks: T, or the number of points of an equation with (N,) losses, the squared residuals.
      decay: the share of the old averages, from 0 to less than 1.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts as zero.

    Returns:
      A balancer that reads the losses. Scale: T g on T identical gradients g, since the weights
      have a mean of one as long as no task is absent. Degree 1 in the gradients, 0 in the losses,
      each of which may have its own unit. A loss that has always been zero has weight zero. Absent
      tasks keep their averages.

    Deviations from the paper: averages are corrected for their start, while the paper starts the
    weights at one; and there is no epsilon.

    Raises:
      ValueError: if ``decay`` is not from 0 to less than 1; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.brdr(2, decay=0.0)
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array([1.0, 100.0]))
      >>> print(updates)
      [1. 1.]

    References:
      Chen, Howard & Stinis, `Self-adaptive weights based on balanced residual decay rate for
      physics-informed neural networks and deep operator networks
      <https://arxiv.org/abs/2407.01613>`_, 2024
    """
    check_num_tasks(num_tasks)
    bounds, _ = read_lower_bounds(lower_bounds, num_tasks)
    check_share("decay", decay)

    def init(dtype: jnp.dtype) -> BRDRState:
        zeros = jnp.zeros(num_tasks, dtype)
        return BRDRState(zeros, zeros, jnp.zeros(num_tasks, jnp.int32))

    def update(given: Given, state: BRDRState) -> tuple[Array, BRDRState]:
        active, sizes = given.active, excess(given.losses, bounds)
        root = follow_root(state.root, state.steps, sizes, active, decay)
        rates = jnp.where(active, sizes * reciprocal(root), 0)
        rates *= reciprocal(jnp.sum(rates) / count_present(active, rates.dtype))
        average, steps = follow(state.average, state.steps, rates, active, decay)
        return average, BRDRState(root, average, steps)

    names = common_names(lower_bounds=lower_bounds)
    return make_balancer(Weighting(init, update, frozenset({"losses"}), num_tasks, names))
