"""UW-SO: the weights to which uncertainty weighting would converge, in a softmax."""

import jax.numpy as jnp

from jaxmtl._checks import check_above
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._lower_bounds import distance, read_lower_bounds
from jaxmtl.losses._softmax import softmax


@described
def softmax_inverse(
    temperature: float = 1.0,
    *,
    lower_bounds: TaskVector | None = None,
    num_tasks: int | None = None,
) -> Balancer:
    """Weigh by the softmax of the reciprocal losses, w = softmax(1 / (temperature L)).

    1/L_i is the weight of uncertainty weighting once its variances have settled; this method uses
    it at once. The smallest loss has the largest weight.

    Args:
      temperature: the higher, the more even the weights; in the unit of 1/L. It must be tuned.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts with its distance from it.
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads the losses, of tasks or (N,) losses of examples or points. Scale: g on T
      identical gradients g, since the weights sum to one over the tasks present. Degree 1 in the
      gradients, none in the losses, since the temperature has a unit. A negative loss counts with
      its absolute value; losses that are zero, or too small for their reciprocal, share all of the
      weight.

    Raises:
      ValueError: if ``temperature`` is not above zero; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.softmax_inverse()
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, _ = balancer.update(jnp.eye(2), state, losses={"a": 1.0, "b": 2.0})
      >>> [f"{weight:.3f}" for weight in updates]  # softmax(1, 1/2)
      ['0.622', '0.378']

    References:
      Kirchdorfer, Elich, Kutsche, Stuckenschmidt, Schott & Köhler, `Analytical Uncertainty-Based
      Loss Weighting in Multi-Task Learning <https://arxiv.org/abs/2408.07985>`_, 2024
    """
    check_above("temperature", temperature, 0)
    bounds, num_tasks = read_lower_bounds(lower_bounds, num_tasks)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        limits = jnp.finfo(given.losses.dtype)
        sizes = jnp.maximum(jnp.abs(distance(given.losses, bounds)), limits.tiny)
        # An infinite logit would make the softmax NaN.
        logits = jnp.minimum(1 / sizes / temperature, jnp.sqrt(limits.max))
        return softmax(logits, given.active), state

    names = common_names(lower_bounds=lower_bounds)
    return make_balancer(
        Weighting(lambda dtype: (), update, frozenset({"losses"}), num_tasks, names)
    )
