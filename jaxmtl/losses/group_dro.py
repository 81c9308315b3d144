"""Group DRO: the worst-case weights for the model, and DoReMi's with reference losses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_above, check_num_tasks
from jaxmtl._task_names import common_names
from jaxmtl._task_values import constant_vector
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import count_present

# The share of equal weights in DoReMi.
EVEN = 1e-3


class GroupDROState(NamedTuple):
    """The weights, as logarithms, and their mean over the steps.

    Attributes:
      log_weights: (T,) logarithms of the weights, whose sum is one.
      mean_weights: (T,) mean of the weights over all steps: the result of DoReMi.
      steps: the number of steps.
    """

    log_weights: Array
    mean_weights: Array
    steps: Array


@described
def group_dro(
    num_tasks: int, *, rate: float = 0.01, reference: TaskVector | None = None
) -> Balancer:
    """Multiply the weight of each task by the exponential of its loss at every step.

    q_i <- q_i exp(rate L_i) / sum_j q_j exp(rate L_j), starting from 1/T. The weights ascend while
    the model descends, towards the minimum over models of the maximum over tasks of L_i. With a
    reference it is DoReMi: the exponent is rate max(L_i - L_i^ref, 0), and then
    q <- 0.999 q + 0.001 / T.

    Args:
      num_tasks: T.
      rate: how fast the weights follow the losses, in units of 1/L.
      reference: (T,) array or tree of scalars, the losses of a model that was trained before; by
        name if the losses have names.

    Returns:
      A balancer that reads the losses. Scale: g on T identical gradients g, since the weights sum
      to one over the tasks present. Degree 1 in the gradients, none in the losses, since the rate
      has a unit. The losses may have any sign. Absent tasks keep their share, and the sum of the
      present tasks' shares does not change. ``mean_weights`` in the state is DoReMi's result, the
      mixture with which to train the next model.

    Deviations from the papers: none for group DRO without its generalisation adjustment. DoReMi
    averages the weights over the steps as here, but clips the excess token by token; here this is
    left to the losses.

    Raises:
      ValueError: if ``rate`` is not above zero, or the reference is not of T finite numbers; at
        update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.group_dro(2, rate=0.5)
      >>> state = balancer.init(jnp.zeros(2))
      >>> for _ in range(2):
      ...     updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array([1.0, 3.0]))
      >>> [f"{weight:.3f}" for weight in updates]  # softmax(1, 3)
      ['0.119', '0.881']

    References:
      Sagawa, Koh, Hashimoto & Liang, `Distributionally Robust Neural Networks for Group Shifts
      <https://arxiv.org/abs/1911.08731>`_, 2020; Xie et al., `DoReMi: Optimizing Data Mixtures
      Speeds Up Language Model Pretraining <https://arxiv.org/abs/2305.10429>`_, 2023
    """
    check_num_tasks(num_tasks)
    check_above("rate", rate, 0)
    known = None if reference is None else constant_vector("reference", reference, num_tasks)

    def init(dtype: jnp.dtype) -> GroupDROState:
        even = jnp.full(num_tasks, -jnp.log(num_tasks), dtype)
        return GroupDROState(even, jnp.zeros(num_tasks, dtype), jnp.zeros((), jnp.int32))

    def update(given: Given, state: GroupDROState) -> tuple[Array, GroupDROState]:
        active, dtype = given.active, given.losses.dtype
        rises = given.losses
        if known is not None:
            rises = jnp.maximum(rises - known.astype(dtype), 0)
        limit = jnp.sqrt(jnp.finfo(dtype).max)  # an infinite exponent would make NaN
        rises = jnp.clip(rate * rises, -limit, limit)
        # Measured from one, not from the present sum, whose rounding would add up over the steps.
        total = 1 - jnp.sum(jnp.where(active, 0, jnp.exp(state.log_weights)))
        total = jnp.where(jnp.any(active), jnp.maximum(total, jnp.finfo(dtype).tiny), 1)
        logits = jnp.where(active, state.log_weights + rises, -jnp.inf)
        logits = logits - jnp.where(jnp.any(active), jax.nn.logsumexp(logits), 0)
        if known is not None:
            even = EVEN / count_present(active, dtype)
            logits = jnp.log((1 - EVEN) * jnp.exp(logits) + even)
        kept = jnp.where(active, logits + jnp.log(total), state.log_weights)
        steps = state.steps + 1
        mean = state.mean_weights + (jnp.exp(kept) - state.mean_weights) / steps.astype(dtype)
        return jnp.where(active, jnp.exp(logits), 0), GroupDROState(kept, mean, steps)

    return make_balancer(
        Weighting(init, update, frozenset({"losses"}), num_tasks, common_names(reference=reference))
    )
