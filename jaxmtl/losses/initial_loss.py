"""Weights from the losses at the start of training."""

from jaxmtl._checks import check_count, check_num_tasks
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._first_losses import FirstLosses, init_first_losses, observe
from jaxmtl.losses._lower_bounds import distance, known_excess, read_lower_bounds
from jaxmtl.solvers.scaling import reciprocal


@described
def initial_loss(
    num_tasks: int,
    values: TaskVector | None = None,
    *,
    num_batches: int = 1,
    lower_bounds: TaskVector | None = None,
) -> Balancer:
    """Weigh each task by the reciprocal of its loss at the start, w_i = 1 / L_i(0).

    Every weighted loss starts at one, in any unit.

    Args:
      num_tasks: T.
      values: (T,) array or tree of scalars, the losses at the start if theory gives them:
        ``jaxmtl.theory.zero_output_cross_entropy`` and ``zero_output_squared_error``. If None, they
        are measured over the first batches.
      num_batches: how many batches to average the measurement over. During them each weight is
        the reciprocal of the mean so far; a task's count starts with the first batch that has it.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts with its distance from it.

    Returns:
      A balancer that reads the losses (and ignores them if ``values`` are given). Scale:
      (sum_i 1/L_i(0)) g on T identical gradients g. Degree 1 in the gradients after the
      measurement. A negative initial loss counts with its absolute value; if it is exactly zero the
      weight is zero, since there is no scale.

    Raises:
      ValueError: if ``values`` are not one finite number per task, above ``lower_bounds``, or if
        ``num_batches`` is below 1.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.initial_loss(2)
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array([2.0, 4.0]))
      >>> updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array([1.0, 1.0]))
      >>> print(updates)
      [0.5  0.25]

    References:
      Su, `Multi-task learning (1): in the name of losses <https://spaces.ac.cn/archives/8870>`_,
      2022 (in Chinese)
    """
    check_num_tasks(num_tasks)
    check_count("num_batches", num_batches)
    bounds, _ = read_lower_bounds(lower_bounds, num_tasks)
    known = known_excess("values", values, num_tasks, bounds)

    def update(given: Given, state: FirstLosses) -> tuple[Array, FirstLosses]:
        state = observe(state, distance(given.losses, bounds), given.active, num_batches)
        return reciprocal(state.mean), state

    return make_balancer(
        Weighting(
            lambda dtype: init_first_losses(num_tasks, known, dtype),
            update,
            frozenset({"losses"}),
            num_tasks,
            common_names(values=values, lower_bounds=lower_bounds),
        )
    )
