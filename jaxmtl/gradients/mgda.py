"""MGDA: the shortest convex combination of the gradients."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_at_least, check_choice, check_count
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._lower_bounds import distance, read_lower_bounds
from jaxmtl.solvers.min_norm import min_norm
from jaxmtl.solvers.scaling import reciprocal

NORMALIZERS = ("none", "l2", "loss", "loss+")


class MGDAState(NamedTuple):
    """The accuracy of the last step's solution.

    Attributes:
      gap: relative duality gap of the min-norm point, 0 if it is exact.
      iterations: number of Frank-Wolfe iterations.
    """

    gap: Array
    iterations: Array


@described
def mgda(
    *,
    normalizer: str = "none",
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    lower_bounds: TaskVector | None = None,
    num_tasks: int | None = None,
) -> Balancer:
    """Descend along the min-norm point of the gradients' convex hull.

    w = argmin ||sum_i w_i g_i||^2 over w >= 0, sum_i w_i = 1. Either the update d is zero and the
    parameters are Pareto stationary, or <g_i, d> >= ||d||^2 > 0 for every task: all losses fall.

    The shortest gradient gets most of the weight: MGDA removes conflict, but does not make losses
    in different units comparable. Restrict it to the shared leaves with ``on_shared``; otherwise
    the gradients of task-specific heads change the min-norm point, though they cannot conflict. An
    optimizer such as Adam after it keeps the weights but not the promise that all losses fall.

    Args:
      normalizer: the divisor of each gradient before the problem is solved: "none", "l2"
        (||g_i||), "loss" (|L_i|) or "loss+" (|L_i| ||g_i||). The weights found are applied to the
        raw gradients, as in the authors' code. With "l2", two tasks always have weight 1/2 each.
      tolerance: relative duality gap at which the solver stops.
      max_iterations: maximum number of Frank-Wolfe iterations. The gap reached is ``gap`` in the
        state.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses, for the normalizers
        "loss" and "loss+", which then use |L_i - b_i| in place of |L_i|.
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads the Gramian, and with the normalizers "loss" and "loss+" the losses.
      Scale: g on T identical gradients g. Degree 1. A task whose gradient is zero takes all the
      weight and the update is zero, since the parameters are then Pareto stationary; mask absent
      tasks with ``active``. A task of zero loss would be infinitely long under "loss" or "loss+",
      and has no weight. With a normalizer the update is a descent direction for the normalised
      gradients' combination, and promises nothing else about conflict.

    Raises:
      ValueError: for an unknown ``normalizer``, or ``lower_bounds`` with a normalizer that reads no
        losses; at update, if ``losses`` are needed and missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.mgda(num_tasks=2)
      >>> grads = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> updates, state = balancer.update(grads, balancer.init(jnp.zeros(3)))
      >>> [f"{weight:.4f}" for weight in state.task_weights]
      ['0.6000', '0.4000']
      >>> print((grads @ updates).round(4))  # both losses fall, at the same rate
      [2. 2.]

    References:
      Desideri, `Multiple-gradient descent algorithm (MGDA) for multiobjective optimization
      <https://doi.org/10.1016/j.crma.2012.03.014>`_, 2012

      Sener & Koltun, `Multi-Task Learning as Multi-Objective Optimization
      <https://arxiv.org/abs/1810.04650>`_, 2018
    """
    check_choice("normalizer", normalizer, NORMALIZERS)
    check_at_least("tolerance", tolerance, 0)
    check_count("max_iterations", max_iterations)
    uses_losses = normalizer.startswith("loss")
    bounds, num_tasks = read_lower_bounds(lower_bounds, num_tasks)
    if bounds is not None and not uses_losses:
        raise ValueError(
            'lower_bounds are for normalizer="loss" and "loss+", but normalizer is'
            f" {normalizer!r}, which reads no losses: leave lower_bounds out."
        )

    def update(given: Given, state: MGDAState) -> tuple[Array, MGDAState]:
        scale, present = jnp.ones_like(given.gramian[0]), given.active
        if normalizer in ("l2", "loss+"):
            scale *= reciprocal(jnp.sqrt(jnp.diagonal(given.gramian)))
        if uses_losses:
            per_loss = reciprocal(distance(given.losses, bounds))
            scale *= per_loss
            present &= per_loss > 0
        # Rows first, then columns: the product of two scales may be out of range if neither is.
        scaled = given.gramian * scale[:, None] * scale[None, :]
        point = min_norm(scaled, present, tolerance=tolerance, max_iterations=max_iterations)
        return jnp.where(present, point.weights, 0), MGDAState(point.gap, point.iterations)

    def init(dtype: jnp.dtype) -> MGDAState:
        return MGDAState(jnp.zeros((), dtype), jnp.zeros((), jnp.int32))

    reads = frozenset({"losses", "gramian"} if uses_losses else {"gramian"})
    names = common_names(lower_bounds=lower_bounds)
    return make_balancer(Weighting(init, update, reads, num_tasks, names))
