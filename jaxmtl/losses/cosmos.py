"""COSMOS: the weighted sum of the losses, with their direction held to the preference."""

from jaxmtl._checks import check_at_least
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._preference import above_ideal, preferences, read_preference
from jaxmtl.losses._rays import direction_and_length, part_off
from jaxmtl.solvers.scaling import reciprocal


@described
def cosmos(
    preference: TaskVector | None = None,
    *,
    beta: float = 2.0,
    ideal: TaskVector | None = None,
    num_tasks: int | None = None,
) -> Balancer:
    """Descend the weighted sum minus the cosine of preference and losses, <p, L> - beta cos.

    With u = p/||p||, v = L/||L|| and cos = <u, v> the weights are the gradient in the losses,
    w = p - beta (u - cos v) / ||L||. A weight may be negative if its task's loss is lower than the
    preference requires; that loss then rises in favour of the others.

    Args:
      preference: (T,) array or tree of scalars p >= 0, not all 0; 1/T each if None (over the tasks
        present). It may be traced, and is then not checked. So one ``jax.vmap`` over preferences
        trains a whole front, and a training step for a network conditioned on its preference, as in
        the paper, can draw a preference (``jax.random.dirichlet``) and build the balancer from it
        (the state does not depend on it).
      beta: how strongly the losses are held to the direction of the preference; lambda in the
        paper. The authors use 2 by default, and from 0.01 (tabular data) to 8.
      ideal: (T,) array or tree of scalars z, the smallest possible losses; L - z replaces L. Zeros
        if None. Needed for losses that may be negative or cross zero.
      num_tasks: T; needed to keep the task weights in the state, unless ``preference`` gives it.

    Returns:
      A balancer that reads the losses. Scale: g on T identical gradients g if preferences and
      losses are equal. Degree 1 in the gradients; none in the losses, whose sum grows with their
      unit while the cosine does not. If all losses are zero, or proportional to the preference to
      within rounding error, w = p.

    Raises:
      ValueError: if beta or a preference is below zero, if no preference is above zero, or if the
        number of values is not the number of tasks; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.cosmos([0.5, 0.5], beta=1.0)
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, _ = balancer.update(jnp.eye(2), state, losses=jnp.array([3.0, 4.0]))
      >>> [f"{weight:.4f}" for weight in updates]  # 0.5 -+ (4, -3) / (125 sqrt(2))
      ['0.4774', '0.5170']

    References:
      Ruchte & Grabocka, `Scalable Pareto Front Approximation for Deep Multi-Objective Learning
      <https://arxiv.org/abs/2103.13392>`_, 2021
    """
    check_at_least("beta", beta, 0)
    wanted = read_preference(preference, num_tasks, ideal, zeros=True)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        vector = preferences(wanted, given)
        ray, _ = direction_and_length(vector)
        losses, length = direction_and_length(above_ideal(wanted, given))
        return vector - beta * part_off(losses, ray) * reciprocal(length), state

    return make_balancer(
        Weighting(lambda dtype: (), update, frozenset({"losses"}), wanted.num_tasks, wanted.names)
    )
