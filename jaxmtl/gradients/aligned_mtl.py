"""Aligned-MTL: gradients made orthogonal and equally long with the smallest change."""

import jax.numpy as jnp

from jaxmtl._checks import check_choice
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._base import Balancer, Given
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import count_present
from jaxmtl.gradients._solved import solved
from jaxmtl.losses._preference import preferences, read_preference
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.eigen import eigen
from jaxmtl.solvers.scaling import reciprocal


@described
def aligned_mtl(
    preference: TaskVector | None = None, *, scale: str = "min", num_tasks: int | None = None
) -> Balancer:
    """Replace the gradients by the nearest orthogonal gradients of a common length, and sum them.

    With G = V diag(lambda) V', cut to its rank, d = J'w and w = s V diag(lambda)^(-1/2) V' p. The
    replaced gradients, as a linear system, have condition number one.

    Args:
      preference: (T,) array or tree of scalars p >= 0, not all 0; 1/T each if None (over the tasks
        present).
      scale: the common length s: the square root of the smallest ("min"), the median ("median") or
        the mean ("rmse") nonzero eigenvalue; of an even number of eigenvalues the lower median, as
        in the authors' code.
      num_tasks: T; needed to keep the task weights in the state, unless ``preference`` gives it.

    Returns:
      A balancer that reads the Gramian. Scale: with "min" and p = 1/T, g on T identical gradients
      g. Degree 1. Weights may be negative, and the update may conflict with a task. Tasks with a
      gradient of zero take no part. With "min", a gradient that is only rounding error makes the
      update as short as itself; ``skip_rounding`` leaves it out. The state keeps the solver's
      ``residual`` and ``iterations``.

    Deviations from the paper: the eigenvalues are computed by Jacobi rotations, since other methods
    lose the small ones if the gradients differ much in length; the rank is cut at eigenvalues no
    larger than their own rounding error.

    Raises:
      ValueError: for an unknown ``scale``; if a preference is below zero or none is above zero, or
        their number is not the number of tasks.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.aligned_mtl(preference=[1.0, 1.0])
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates.round(4))  # already orthogonal; as long as the shorter one
      [1. 1.]

    References:
      Senushkin et al., `Independent Component Alignment for Multi-Task Learning
      <https://arxiv.org/abs/2305.19000>`_, 2023
    """
    check_choice("scale", scale, ("min", "median", "rmse"))
    wanted = read_preference(preference, num_tasks, zeros=True)

    @one_launch
    def weigh(values: Array, vectors: Array, shares: Array) -> Array:
        kept = values > 0
        if scale == "min":
            square = jnp.min(jnp.where(kept, values, jnp.inf))
        elif scale == "median":
            square = _median(values, kept)
        else:
            square = jnp.sum(values) / count_present(kept, values.dtype)
        square = jnp.where(jnp.any(kept), square, 0)
        along = vectors.T @ shares
        return vectors @ (jnp.sqrt(square) * reciprocal(jnp.sqrt(values)) * along)

    def solve(given: Given) -> tuple[Array, Array, Array]:
        found = eigen(given.gramian)
        weights = weigh(found.values, found.vectors, preferences(wanted, given))
        return weights, found.residual, found.iterations

    return solved(solve, wanted.num_tasks, wanted.names)


def _median(values: Array, kept: Array) -> Array:
    """The median; of an even number, the lower of the two in the middle."""
    ordered = jnp.sort(jnp.where(kept, values, jnp.inf))
    return ordered[jnp.maximum((jnp.sum(kept) - 1) // 2, 0)]
