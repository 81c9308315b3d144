"""Fair resource allocation: weights that are a power of the losses."""

import jax.numpy as jnp

from jaxmtl._checks import check_at_least
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._lower_bounds import excess, read_lower_bounds
from jaxmtl.losses._softmax import softmax


@described
def power_mean(
    power: float = 1.0, *, lower_bounds: TaskVector | None = None, num_tasks: int | None = None
) -> Balancer:
    """Weigh each task by a power of its loss, w_i = L_i^q / sum_j L_j^q.

    Up to its length, this is the gradient of the power mean of the losses,
    (sum_i L_i^(q+1) / T)^(1/(q+1)). q = 0 gives equal weights, a large q the largest loss alone.

    Args:
      power: q, at least 0.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts as zero.
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads the losses, of tasks or (N,) losses of examples or points. Scale: g on T
      identical gradients g, since the weights sum to one over the tasks present. Degree 1 in the
      gradients, 0 in a common unit of the losses; if each loss has its own unit, the weights depend
      on the units. A loss of zero has weight zero, except for a power of zero; if all losses are
      zero, all weights are.

    Deviations from the paper: the weights sum to one; in the paper the length of the step follows
    from an estimate of the gradient's Lipschitz constant.

    Raises:
      ValueError: if ``power`` is below zero; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.power_mean(2.0)
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, _ = balancer.update(jnp.eye(2), state, losses={"a": 1.0, "b": 3.0})
      >>> [f"{weight:.2f}" for weight in updates]  # 1 : 9
      ['0.10', '0.90']

    References:
      Li, Sanjabi, Beirami & Smith, `Fair Resource Allocation in Federated Learning
      <https://arxiv.org/abs/1905.10497>`_ (q-FFL), 2020
    """
    check_at_least("power", power, 0)
    bounds, num_tasks = read_lower_bounds(lower_bounds, num_tasks)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        sizes, tiny = excess(given.losses, bounds), jnp.finfo(given.losses.dtype).tiny
        counts = given.active & ((sizes >= tiny) | (jnp.asarray(power) == 0))
        # From logarithms of ratios to the largest: the power itself could overflow or underflow.
        logs = jnp.log(jnp.maximum(sizes, tiny))
        largest = jnp.max(logs, where=counts, initial=jnp.log(tiny))
        return softmax(power * jnp.where(counts, logs - largest, 0), counts), state

    names = common_names(lower_bounds=lower_bounds)
    return make_balancer(
        Weighting(lambda dtype: (), update, frozenset({"losses"}), num_tasks, names)
    )
