"""DWA: more weight to the losses that fall more slowly."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_above, check_count, check_num_tasks
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._lower_bounds import excess, read_lower_bounds
from jaxmtl.solvers.scaling import reciprocal


class DWAState(NamedTuple):
    """Mean losses of each task over its last two full windows and over the current one.

    Attributes:
      before_last: (T,) mean losses of the window before the last, zero until there is one.
      last: (T,) mean losses of the last full window, zero until there is one.
      filling: (T,) mean losses of the current window.
      seen: (T,) int32, the number of steps in the current window.
      windows: (T,) int32, the number of full windows.
    """

    before_last: Array
    last: Array
    filling: Array
    seen: Array
    windows: Array


@described
def dwa(
    num_tasks: int,
    *,
    window: int,
    temperature: float = 2.0,
    lower_bounds: TaskVector | None = None,
) -> Balancer:
    """Weigh by how slowly each loss fell over the last two windows of steps.

    w = T softmax(r / temperature), r_i = mean L_i over the last window / mean L_i over the window
    before it. All weights are 1 until a task has two windows.

    Args:
      num_tasks: T.
      window: number of steps in a window; an epoch in the paper.
      temperature: the higher, the more even the weights.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts as zero.

    Returns:
      A balancer that reads the losses. Scale: T g on T identical gradients g, since the weights sum
      to T (the number of tasks present). Degree 1 in the gradients, 0 in the losses. A task's
      window counts the steps at which it was present. A window in which all losses are zero counts
      as unchanged, r = 1.

    Raises:
      ValueError: if ``window`` is not a positive int or ``temperature`` not above zero; at
        update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.dwa(2, window=1)
      >>> state = balancer.init(jnp.zeros(2))
      >>> for losses in ([4.0, 4.0], [2.0, 4.0], [1.0, 4.0]):
      ...     updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array(losses))
      >>> [f"{weight:.3f}" for weight in updates]  # 2 softmax(1/4, 1/2)
      ['0.876', '1.124']

    References:
      Liu, Johns & Davison, `End-to-End Multi-Task Learning with Attention
      <https://arxiv.org/abs/1803.10704>`_, 2019
    """
    check_num_tasks(num_tasks)
    check_count("window", window)
    check_above("temperature", temperature, 0)
    bounds, _ = read_lower_bounds(lower_bounds, num_tasks)

    def init(dtype: jnp.dtype) -> DWAState:
        zeros, none = jnp.zeros(num_tasks, dtype), jnp.zeros(num_tasks, jnp.int32)
        return DWAState(zeros, zeros, zeros, none, none)

    def update(given: Given, state: DWAState) -> tuple[Array, DWAState]:
        ready, per_loss = state.windows >= 2, reciprocal(state.before_last)
        ratio = jnp.where(ready & (per_loss > 0), state.last * per_loss, 1)
        present = jnp.sum(given.active, dtype=ratio.dtype)
        weights = present * jax.nn.softmax(ratio / temperature, where=given.active)
        weights = jnp.where(jnp.all(ready | ~given.active), weights, 1)
        seen = state.seen + given.active.astype(state.seen.dtype)
        share = 1 / jnp.maximum(seen, 1).astype(state.filling.dtype)
        filling = state.filling + share * (excess(given.losses, bounds) - state.filling)
        filling = jnp.where(given.active, filling, state.filling)
        full = given.active & (seen >= window)
        return weights, DWAState(
            jnp.where(full, state.last, state.before_last),
            jnp.where(full, filling, state.last),
            jnp.where(full, 0, filling),
            jnp.where(full, 0, seen),
            state.windows + full.astype(state.windows.dtype),
        )

    names = common_names(lower_bounds=lower_bounds)
    return make_balancer(Weighting(init, update, frozenset({"losses"}), num_tasks, names))
