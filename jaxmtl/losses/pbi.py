"""PBI: descend along the preferred ray, and return to it."""

from jaxmtl._checks import check_at_least
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._preference import above_ideal, preferences, read_preference
from jaxmtl.losses._rays import direction_and_length, part_off


@described
def pbi(
    preference: TaskVector | None = None,
    *,
    theta: float = 5.0,
    ideal: TaskVector | None = None,
    num_tasks: int | None = None,
) -> Balancer:
    """Descend the penalty-based boundary intersection d1 + theta d2.

    With f = L - z and u = p/||p||, d1 = <f, u> is the distance of the losses along the ray of the
    preference, and d2 = ||f - d1 u|| their distance from it. The weights are the gradient in the
    losses, w = u + theta (f - d1 u) / d2. A weight may be negative if its task's loss is lower than
    on the ray; that loss then rises in favour of the others. On the ray itself, where d2 has no
    gradient, w = u.

    Args:
      preference: (T,) array or tree of scalars p >= 0, not all 0; 1/T each if None (over the tasks
        present). The method aims at losses proportional to p: the larger p_i, the larger L_i may
        be. It may be traced, and is then not checked. So one ``jax.vmap`` over preferences trains a
        whole front, and a training step for a network conditioned on its preference can draw a
        preference and build the balancer from it (the state does not depend on it).
      theta: how strongly the losses are held to the ray.
      ideal: (T,) array or tree of scalars z, where the ray starts; zeros if None.
      num_tasks: T; needed to keep the task weights in the state, unless a vector argument gives it.

    Returns:
      A balancer that reads the losses. Scale: sqrt(T) g on T identical gradients g if preferences
      and losses are equal. Degree 1 in the gradients, 0 in the losses (if ``ideal`` is zero).

    Deviations from the paper: d1 has the sign of <f, u>, so that losses below the ideal point
    continue to fall. Losses that are nearer to the ray than their rounding error count as on it.

    Raises:
      ValueError: if theta or a preference is below zero, if no preference is above zero, or if the
        number of values is not the number of tasks; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.pbi([0.6, 0.8])
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, _ = balancer.update(jnp.eye(2), state, losses=jnp.array([2.0, 1.0]))
      >>> [f"{weight:.3f}" for weight in updates]  # (0.6, 0.8) + 5 (0.8, -0.6)
      ['4.600', '-2.200']

    References:
      Zhang & Li, `MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition
      <https://doi.org/10.1109/TEVC.2007.892759>`_, 2007
    """
    check_at_least("theta", theta, 0)
    wanted = read_preference(preference, num_tasks, ideal, zeros=True)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        ray, _ = direction_and_length(preferences(wanted, given))
        losses, _ = direction_and_length(above_ideal(wanted, given))
        away, _ = direction_and_length(part_off(ray, losses))
        return ray + theta * away, state

    return make_balancer(
        Weighting(lambda dtype: (), update, frozenset({"losses"}), wanted.num_tasks, wanted.names)
    )
