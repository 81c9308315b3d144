"""Tchebycheff: descend the largest of the preferred losses."""

import jax.numpy as jnp

from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import count_present
from jaxmtl.losses._preference import above_ideal, preferences, read_preference


@described
def tchebycheff(
    preference: TaskVector | None = None,
    *,
    ideal: TaskVector | None = None,
    num_tasks: int | None = None,
) -> Balancer:
    """Descend the Tchebycheff scalarisation max_i p_i (L_i - z_i).

    The weights are its gradient in the losses: p_i for the largest and zero for all others. Tasks
    that tie share equally, p_i over their number, so that the order of the tasks does not matter.

    Args:
      preference: (T,) array or tree of scalars p, above zero; 1/T each if None (over the tasks
        present). It may be traced, and is then not checked. So one ``jax.vmap`` over preferences
        trains a whole front, and a training step for a network conditioned on its preference can
        draw a preference and build the balancer from it (the state does not depend on it).
      ideal: (T,) array or tree of scalars z, the losses at which the method aims; zeros if None.
      num_tasks: T; needed to keep the task weights in the state, unless a vector argument gives it.

    Returns:
      A balancer that reads the losses. Scale: g/T on T identical gradients g if preferences and
      losses are equal. Degree 1 in the gradients, 0 in the losses (if ``ideal`` is zero).

    Raises:
      ValueError: if a preference is not above zero, or the number of values is not the number of
        tasks; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.tchebycheff([0.75, 0.25])
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, _ = balancer.update(jnp.eye(2), state, losses=jnp.array([2.0, 5.0]))
      >>> print(updates)  # 1.5 against 1.25
      [0.75 0.  ]

    References:
      Bowman, `On the Relationship of the Tchebycheff Norm and the Efficient Frontier of
      Multiple-Criteria Objectives <https://doi.org/10.1007/978-3-642-87563-2_5>`_, 1976
    """
    wanted = read_preference(preference, num_tasks, ideal)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        vector = preferences(wanted, given)
        values = vector * above_ideal(wanted, given)
        largest = jnp.max(values, where=given.active, initial=-jnp.inf)
        winners = given.active & (values == largest)
        return jnp.where(winners, vector, 0) / count_present(winners, vector.dtype), state

    return make_balancer(
        Weighting(lambda dtype: (), update, frozenset({"losses"}), wanted.num_tasks, wanted.names)
    )
