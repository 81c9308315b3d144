"""SoftAdapt: more weight to the losses that rise, or fall least."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_choice, check_finite, check_num_tasks
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._lower_bounds import excess, read_lower_bounds
from jaxmtl.losses._softmax import softmax
from jaxmtl.solvers.scaling import reciprocal


class SoftAdaptState(NamedTuple):
    """The last loss of each task.

    Attributes:
      last: (T,) losses of the last step at which the task was present, zero before the first.
      seen: (T,) bool, whether there was one.
    """

    last: Array
    seen: Array


@described
def softadapt(
    num_tasks: int,
    *,
    beta: float = 0.1,
    variant: str = "original",
    lower_bounds: TaskVector | None = None,
) -> Balancer:
    """Weigh by how much each loss rose since its last step.

    With s_i = L_i(t) - L_i(t-1):
      w = softmax(beta s)                                        ("original")
      w = softmax(beta s / sum_j |s_j|)                          ("normalized")
      w_i = L_i exp(beta s_i) / sum_j L_j exp(beta s_j)          ("loss_weighted")
    All weights are equal until every task present has a previous loss.

    Args:
      num_tasks: T.
      beta: how strongly the weights favour the losses that rise most; below zero they favour the
        losses that fall most.
      variant: "original", "normalized" (no unit in the exponent) or "loss_weighted" (more weight
        to large losses as well).
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses, for the
        "loss_weighted" variant only, in which L - b replaces L; zeros if None. A loss below its
        bound counts as zero. The other variants accept losses of any sign.

    Returns:
      A balancer that reads the losses. Scale: g on T identical gradients g, since the weights sum
      to one over the tasks present. Degree 1 in the gradients; 0 in the losses for "normalized",
      otherwise none, since beta has the unit of 1/L. In the "loss_weighted" variant a loss of zero
      has weight zero, and all weights are zero if all losses are.

    Deviations from the paper: the slope is the difference of the last two losses, not one of a
    higher order. The "normalized" variant divides by sum_j |s_j|; the authors' later package leaves
    out the absolute value, and so favours the losses that fall most whenever the losses fall.

    Raises:
      ValueError: for an unknown ``variant``, for ``lower_bounds`` with another variant than
        "loss_weighted", or if ``num_tasks`` is not a positive int; at update, if ``losses`` are
        missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.softadapt(2, beta=1.0)
      >>> state = balancer.init(jnp.zeros(2))
      >>> for losses in ([4.0, 4.0], [2.0, 4.0]):
      ...     updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array(losses))
      >>> [f"{weight:.3f}" for weight in updates]  # softmax(-2, 0)
      ['0.119', '0.881']

    References:
      Heydari, Thompson & Mehmood, `SoftAdapt: Techniques for Adaptive Loss Weighting of Neural
      Networks with Multi-Part Loss Functions <https://arxiv.org/abs/1912.12355>`_, 2019
    """
    check_num_tasks(num_tasks)
    check_finite("beta", beta)
    check_choice("variant", variant, ("original", "normalized", "loss_weighted"))
    bounds, _ = read_lower_bounds(lower_bounds, num_tasks)
    if bounds is not None and variant != "loss_weighted":
        raise ValueError(
            'lower_bounds are for variant="loss_weighted", but variant is'
            f" {variant!r}, which accepts losses of any sign: leave lower_bounds out."
        )

    def init(dtype: jnp.dtype) -> SoftAdaptState:
        return SoftAdaptState(jnp.zeros(num_tasks, dtype), jnp.zeros(num_tasks, bool))

    def update(given: Given, state: SoftAdaptState) -> tuple[Array, SoftAdaptState]:
        active, losses = given.active, given.losses
        ready = jnp.all(state.seen | ~active)
        slopes = jnp.where(active & ready, losses - state.last, 0)
        if variant == "normalized":
            slopes = slopes * reciprocal(jnp.sum(jnp.abs(slopes)))
        logits, counts = beta * slopes, active
        if variant == "loss_weighted":
            sizes, tiny = excess(losses, bounds), jnp.finfo(losses.dtype).tiny
            counts = active & (~ready | (sizes >= tiny))
            logits += jnp.where(ready, jnp.log(jnp.maximum(sizes, tiny)), 0)
        new = SoftAdaptState(jnp.where(active, losses, state.last), state.seen | active)
        return softmax(logits, counts), new

    names = common_names(lower_bounds=lower_bounds)
    return make_balancer(Weighting(init, update, frozenset({"losses"}), num_tasks, names))
