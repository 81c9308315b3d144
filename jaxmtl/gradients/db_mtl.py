"""DB-MTL: logarithms of the losses, and gradients scaled to the largest norm."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_at_least, check_num_tasks, check_share
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Preparation, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._entries import rows_where
from jaxmtl.balancing._gram import only_active, rows
from jaxmtl.gradients._tracking import Tracked, init_tracked, track
from jaxmtl.losses._lower_bounds import distance, read_lower_bounds
from jaxmtl.solvers.scaling import reciprocal


@described
def db_mtl(
    num_tasks: int,
    *,
    decay: float = 0.9,
    decay_power: float = 0.5,
    lower_bounds: TaskVector | None = None,
) -> Balancer:
    """Balance the losses by their logarithms and the gradients by the largest norm.

    d = max_j ||h_j|| sum_i h_i / ||h_i||, with h_i <- b h_i + (1 - b) g_i / L_i, the tracked
    gradient of log L_i, and b = decay / k^decay_power at the k-th step.

    Args:
      num_tasks: T.
      decay: the share of the old average; 0 uses each step's gradient alone.
      decay_power: how fast that share shrinks; 0 keeps it constant.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts with its distance from it.

    Returns:
      A balancer that reads the losses and the Gramian. Scale: T g on T identical gradients g of
      losses of one. Degree 1 in the gradients, -1 in the losses. It keeps T times the parameters in
      float32; weights combine the averages, not this step's gradients. A loss or gradient of zero
      takes no part in the step, and does not change its average. A gradient that is only rounding
      error is scaled to the largest norm too, unless ``skip_rounding`` leaves it out. The update
      grows as losses shrink, so put a normalising optimizer after it.

    Deviations from the paper: averages start at the first gradient, not at zero; no constants are
    added to losses and norms. The paper searches over decay and a power of 0 or 1/2.

    Raises:
      ValueError: for a ``decay`` outside [0, 1) or ``decay_power`` below 0; at update, if
        ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.db_mtl(2)
      >>> state, losses = balancer.init(jnp.zeros(2)), jnp.array([2.0, 1.0])
      >>> grads = jnp.array([[8.0, 0.0], [0.0, 1.0]])
      >>> updates, _ = balancer.update(grads, state, losses=losses)
      >>> print(updates.round(4))  # log-gradients of length 4 and 1
      [4. 4.]

    References:
      Lin et al., `Dual-Balancing for Multi-Task Learning <https://arxiv.org/abs/2308.12029>`_, 2023
    """
    check_num_tasks(num_tasks)
    check_share("decay", decay)
    check_at_least("decay_power", decay_power, 0)
    bounds, _ = read_lower_bounds(lower_bounds, num_tasks)

    def follow(grads: PyTree, given: Given, tracked: Tracked) -> tuple[PyTree, PyTree, Tracked]:
        per_loss = reciprocal(distance(given.losses, bounds))
        dtype = per_loss.dtype
        logs = jax.tree.map(lambda g: g.astype(dtype) * rows(per_loss, g), grads)
        takes_part = given.active & ~rows_where(lambda leaf: leaf == 0, logs)
        share: Any = decay / (tracked.seen + 1).astype(dtype) ** decay_power
        tracked = track(tracked, logs, takes_part, share)
        # Without a new gradient, an average that only fades would be scaled back to full length.
        present = jax.tree.map(lambda leaf: only_active(takes_part, leaf), tracked.average)
        return present, present, tracked

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        norms = jnp.sqrt(jnp.diagonal(given.gramian))
        return jnp.max(norms) * reciprocal(norms), state

    reads, names = frozenset({"losses", "gramian"}), common_names(lower_bounds=lower_bounds)
    preparation = Preparation(lambda params: init_tracked(params, num_tasks), follow)
    return make_balancer(
        Weighting(lambda dtype: (), update, reads, num_tasks, names), preparation=preparation
    )
