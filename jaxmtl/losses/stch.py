"""STCH: descend a smooth maximum of the preferred losses."""

import jax.numpy as jnp

from jaxmtl._checks import check_above
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._preference import above_ideal, preferences, read_preference
from jaxmtl.losses._softmax import softmax


@described
def stch(
    preference: TaskVector | None = None,
    *,
    mu: float = 1.0,
    ideal: TaskVector | None = None,
    num_tasks: int | None = None,
) -> Balancer:
    """Descend the smooth Tchebycheff scalarisation mu log sum_i exp(p_i (L_i - z_i) / mu).

    The weights are its gradient in the losses, w = p * softmax(p (L - z) / mu). As mu goes to 0 it
    becomes ``tchebycheff``, as mu goes to infinity the plain weighted sum over T.

    Args:
      preference: (T,) array or tree of scalars p, above zero; 1/T each if None (over the tasks
        present). It may be traced, and is then not checked. So one ``jax.vmap`` over preferences
        trains a whole front, and a training step for a network conditioned on its preference can
        draw a preference and build the balancer from it (the state does not depend on it).
      mu: the width of the maximum, in the unit of p_i L_i. The authors use 0.01 for losses that
        are scaled to lie between 0 and 1.
      ideal: (T,) array or tree of scalars z, the losses at which the method aims; zeros if None.
      num_tasks: T; needed to keep the task weights in the state, unless a vector argument gives it.

    Returns:
      A balancer that reads the losses. Scale: g/T on T identical gradients g if preferences and
      losses are equal. Degree 1 in the gradients; none in the losses, since mu has their unit.

    Raises:
      ValueError: if a preference or mu is not above zero, or the number of values is not the number
        of tasks; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.stch([0.5, 0.5])
      >>> state = balancer.init(jnp.zeros(2))
      >>> losses = jnp.log(jnp.array([1.0, 9.0]))
      >>> updates, _ = balancer.update(jnp.eye(2), state, losses=losses)
      >>> [f"{weight:.3f}" for weight in updates]  # exponentials 1 and 3
      ['0.125', '0.375']

    References:
      Lin et al., `Smooth Tchebycheff Scalarization for Multi-Objective Optimization
      <https://arxiv.org/abs/2402.19078>`_, 2024
    """
    check_above("mu", mu, 0)
    wanted = read_preference(preference, num_tasks, ideal)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        vector = preferences(wanted, given)
        values = vector * above_ideal(wanted, given)
        # Before the division, which a small mu could make overflow.
        centred = values - jnp.max(values, where=given.active, initial=-jnp.inf)
        return vector * softmax(centred / mu, given.active), state

    return make_balancer(
        Weighting(lambda dtype: (), update, frozenset({"losses"}), wanted.num_tasks, wanted.names)
    )
