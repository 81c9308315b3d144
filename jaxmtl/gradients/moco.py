"""MoCo: the min-norm direction of tracked gradients, approached step by step."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_at_least, check_num_tasks, check_share
from jaxmtl._platform import made_once
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Preparation, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.gradients._on_simplex import step_to_min_norm
from jaxmtl.gradients._tracking import Tracked, init_tracked, track


class MoCoState(NamedTuple):
    """The (T,) convex weights."""

    weights: Array


@described
def moco(
    num_tasks: int, *, decay: float = 0.5, step_size: float = 0.1, rho: float = 0.0
) -> Balancer:
    """Track each task's gradient, and let convex weights follow the min-norm point of the averages.

    y_i <- decay y_i + (1 - decay) g_i,  w <- project(w - step_size (Y Y' + rho I) w),  d = Y' w,
    with the projection on the simplex. Averaging over batches removes the bias of MGDA on noisy
    gradients.

    Args:
      num_tasks: T.
      decay: the share of the old average, 1 - beta in the paper.
      step_size: gamma, the step of the weights.
      rho: regularisation towards equal weights.

    Returns:
      A balancer that reads the Gramian. Scale: g on T identical gradients g. Degree 1, over all
      steps. It keeps T times the parameters in float32; weights combine the averages, not this
      step's gradients. Absent tasks keep their average and their weight, and have no weight in the
      step.

    Deviations from the paper: Y Y' is measured in units of its trace, so that step size and rho
    mean the same for gradients of any size; averages start at the first gradient, not at zero; the
    steps do not shrink.

    Raises:
      ValueError: for a ``decay`` outside [0, 1), ``step_size`` or ``rho`` below 0.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.moco(2, step_size=1.0)
      >>> state, grads = balancer.init(jnp.zeros(2)), jnp.diag(jnp.array([2.0, 1.0]))
      >>> for _ in range(100):
      ...     updates, state = balancer.update(grads, state)
      >>> [f"{update:.4f}" for update in updates]  # the min-norm point, weights 1/5 and 4/5
      ['0.4000', '0.8000']

    References:
      Fernando et al., `Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent
      Approach <https://openreview.net/forum?id=dLAYGdKTi2>`_, 2023
    """
    check_num_tasks(num_tasks)
    check_share("decay", decay)
    check_at_least("step_size", step_size, 0)
    check_at_least("rho", rho, 0)

    def follow(grads: PyTree, given: Given, tracked: Tracked) -> tuple[PyTree, PyTree, Tracked]:
        tracked = track(tracked, made_once(grads), given.active, decay)
        return tracked.average, tracked.average, tracked

    def update(given: Given, state: MoCoState) -> tuple[Array, MoCoState]:
        weights, kept = step_to_min_norm(state.weights, given, given.gramian, step_size, rho)
        return weights, MoCoState(kept)

    weighting = Weighting(
        lambda dtype: MoCoState(jnp.full(num_tasks, 1 / num_tasks, dtype)),
        update,
        frozenset({"gramian"}),
        num_tasks,
    )
    preparation = Preparation(lambda params: init_tracked(params, num_tasks), follow)
    return make_balancer(weighting, preparation=preparation)
