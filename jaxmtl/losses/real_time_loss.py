"""Weights from the current losses."""

import jax.numpy as jnp

from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._lower_bounds import distance, read_lower_bounds
from jaxmtl.losses._sizes import read_size


@described
def real_time_loss(
    *,
    reference: str | float = 1.0,
    lower_bounds: TaskVector | None = None,
    num_tasks: int | None = None,
) -> Balancer:
    """Weigh each task by the reciprocal of its current loss, w_i = r / sg(L_i).

    Every weighted loss is r at every step. By default r is one, and the update is the gradient of
    sum_i log L_i. With the name of a loss as ``reference``, r is that loss: it keeps weight one and
    the others are scaled to its size, as in distillation ("magnitude matching").

    Args:
      reference: the size r, or the name of the loss that gives it, such as "student" (the losses
        are then passed to ``update`` by name).
        then passed to ``update``, by name).
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts with its distance from it.
      num_tasks: T; needed to keep the task weights in the state.

    Returns:
      A balancer that reads the losses. Scale: (sum_i r/L_i) g on T identical gradients g. Degree 1
      in the gradients, -1 in the losses (0 with a named reference): the update does not change if
      the unit of a loss, and so of its gradient, changes. A negative loss counts with its absolute
      value, so that no loss is increased; a loss of exactly zero has weight zero. If the reference
      is absent, or exactly zero, all weights are zero.

    Raises:
      ValueError: if ``reference`` is neither a name nor a number above zero; at update, if
        ``losses`` are missing, or none has that name.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> losses = {"a": 2.0, "b": 4.0}
      >>> for balancer in (jaxmtl.real_time_loss(), jaxmtl.real_time_loss(reference="a")):
      ...     state = balancer.init(jnp.zeros(2))
      ...     updates, _ = balancer.update(jnp.eye(2), state, losses=losses)
      ...     print(updates)
      [0.5  0.25]
      [1.  0.5]

    References:
      Su, `Multi-task learning (1): in the name of losses <https://spaces.ac.cn/archives/8870>`_,
      2022 (in Chinese)
    """
    weigh, named = read_size(reference)
    bounds, num_tasks = read_lower_bounds(lower_bounds, num_tasks)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        sizes, place = jnp.abs(distance(given.losses, bounds)), given.named.get("reference")
        return weigh(sizes, None if place is None else place & given.active), state

    return make_balancer(
        Weighting(
            lambda dtype: (),
            update,
            frozenset({"losses"}),
            num_tasks,
            common_names(lower_bounds=lower_bounds),
            named=named,
        )
    )
