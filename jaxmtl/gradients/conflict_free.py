"""ConFIG: the conflict-free direction, with the length of the gradients' projections on it."""

import jax.numpy as jnp

from jaxmtl._checks import check_choice
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import count_present
from jaxmtl.gradients._equal_cosines import equal_cosines
from jaxmtl.losses._preference import preferences, read_preference
from jaxmtl.solvers.scaling import reciprocal

LENGTHS = ("projection", "min", "max", "arithmetic", "geometric", "harmonic")


@described
def conflict_free(
    preference: TaskVector | None = None,
    *,
    length: str = "projection",
    num_tasks: int | None = None,
) -> Balancer:
    """Follow the direction with equal cosines to all gradients, scaled by the projections.

    u ~ J' D^-1 C^+ p of length one, with norms D and cosines C: its cosines with the gradients have
    the ratios p. d = (sum_i n_i cos(g_i, u)) u, with n_i = ||g_i|| or a common norm for all.

    Args:
      preference: (T,) array or tree of scalars p >= 0, not all 0; equal if None.
      length: the choice of n_i: the task's own norm ("projection", so that d is the sum of the
        gradients' projections on u), or for all tasks the smallest norm ("min"), the largest
        ("max"), or their "arithmetic", "geometric" or "harmonic" mean, so that no single gradient
        determines the length.
      num_tasks: T; needed to keep the task weights in the state, unless ``preference`` gives it.

    Returns:
      A balancer that reads the Gramian. Scale: T g on T identical gradients g. Degree 1. With
      independent gradients it conflicts with no task. With dependent gradients, in float32, expect
      errors of 2e-6 in units of sum_i |w_i| ||g_i||, 3e-5 at worst (conditions up to 10^3 within
      their rank): the Gramian squares the condition, and if the terms cancel in d, its relative
      error is larger by as much. Tasks with a gradient of zero take no part. A gradient that is
      only rounding error influences the direction as much as any other, unless ``skip_rounding``
      leaves it out.

    Raises:
      ValueError: for an unknown ``length``; if a preference is below zero or none is above zero,
        or their number is not the number of tasks.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.conflict_free()
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates.round(4))  # u = (1, 1)/sqrt(2), length 4/sqrt(2)
      [2. 2.]

    References:
      Liu et al., `ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks
      <https://arxiv.org/abs/2408.11104>`_, 2024
    """
    check_choice("length", length, LENGTHS)
    wanted = read_preference(preference, num_tasks, zeros=True)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        ratios = None if wanted.vector is None else preferences(wanted, given)
        weights, products, square = equal_cosines(given.gramian, ratios)
        reach = products  # n_i cos(g_i, u), up to the length of J'weights
        if length != "projection":
            norms = jnp.sqrt(jnp.diagonal(given.gramian))
            reach = _common(norms, length) * products * reciprocal(norms)
        return weights * jnp.sum(reach) * reciprocal(square), state

    reads = frozenset({"gramian"})
    return make_balancer(Weighting(lambda dtype: (), update, reads, wanted.num_tasks, wanted.names))


def _common(norms: Array, kind: str) -> Array:
    """One norm for all tasks with a nonzero gradient."""
    kept = norms > 0
    count = count_present(kept, norms.dtype)
    if kind == "min":
        return jnp.where(jnp.any(kept), jnp.min(jnp.where(kept, norms, jnp.inf)), 0)
    if kind == "max":
        return jnp.max(norms)
    if kind == "arithmetic":
        return jnp.sum(norms) / count
    if kind == "geometric":
        return jnp.exp(jnp.sum(jnp.where(kept, jnp.log(jnp.where(kept, norms, 1)), 0)) / count)
    return count * reciprocal(jnp.sum(reciprocal(norms)))
