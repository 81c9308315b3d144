"""EPO: descend to the point of the Pareto front at which the preferred losses are equal."""

import jax.numpy as jnp

from jaxmtl._checks import check_at_least
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import count_present, equal_shares
from jaxmtl.gradients._solved import SolvedState
from jaxmtl.losses._lower_bounds import excess, read_lower_bounds
from jaxmtl.losses._preference import preferences, read_preference
from jaxmtl.solvers.linear_program import linear_program
from jaxmtl.solvers.scaling import reciprocal, reciprocal_length


@described
def epo(
    preference: TaskVector | None = None,
    *,
    tolerance: float = 1e-4,
    lower_bounds: TaskVector | None = None,
    num_tasks: int | None = None,
) -> Balancer:
    """Search for the Pareto-optimal point at which p_1 L_1 = ... = p_T L_T.

    With the shares s_i = p_i L_i / sum_j p_j L_j, their non-uniformity is
    mu = sum_i s_i log(T s_i), and a_i = p_i (log(T s_i) - mu) points along its gradient in the
    losses. The weights are convex and solve a linear programme in the Gramian G. Off the ray,
    mu > tolerance, they reduce mu as fast as they can:

    max_w <w, G a>, with (G w)_j >= 0 for the largest p_j L_j (which never rises), and
    (G w)_j >= (G a)_j for every other j with (G a)_j <= 0: a loss may rise if the balance requires
    it, and no faster. If (G a)_j > 0 for no task, G w >= 0 for all.

    On the ray all losses fall, their sum as fast as possible: max_w sum_i (G w)_i with G w >= 0.

    Args:
      preference: (T,) array or tree of scalars p, above zero; 1/T each if None (over the tasks
        present). The larger p_i, the smaller L_i becomes: the method aims at losses proportional
        to 1/p_i, as with ``tchebycheff`` (and unlike ``pbi``, which aims at losses proportional to
        p). It may be traced, and is then not checked: one ``jax.vmap`` over preferences trains a
        whole front.
      tolerance: the largest mu at which the losses count as on the ray. Products p_i L_i that
        deviate by a share e from their mean have a mu of about e^2 / 2.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts as zero.
      num_tasks: T; needed to keep the task weights in the state, unless ``preference`` gives it.

    Returns:
      A balancer that reads the losses, which should be above their bounds, and the Gramian. Scale:
      g on T identical gradients g. Degree 1 in the gradients, 0 in the losses and in the
      preference. The weights are at a corner of the feasible set, so they jump from step to step:
      take small steps. The state keeps the solver's ``residual`` and its ``iterations`` (pivots).

    Deviations from the paper: the preference is divided by its sum, since a larger one would permit
    a faster rise. On the ray the only condition is that no loss rises, as in the paper; the
    authors' code can also keep mu from growing there. The programme is solved to a corner, in place
    of a general solver. Among equally good corners the order of the tasks decides, for example for
    two tasks on the ray whose gradients have exactly the same length. A loss at or below its bound
    counts as the smallest share, eps.

    Raises:
      ValueError: if a preference is not above zero, the tolerance is below zero, or the number of
        values is not the number of tasks; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.epo([0.5, 0.5])
      >>> state = balancer.init(jnp.zeros(2))
      >>> grads = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> updates, state = balancer.update(grads, state, losses=jnp.array([4.0, 1.0]))
      >>> print(updates)  # the larger loss alone
      [1. 0.]

    References:
      Mahapatra & Rajan, `Multi-Task Learning with User Preferences: Gradient Descent with
      Controlled Ascent in Pareto Optimization
      <https://proceedings.mlr.press/v119/mahapatra20a.html>`_, 2020
    """
    check_at_least("tolerance", tolerance, 0)
    bounds, num_tasks = read_lower_bounds(lower_bounds, num_tasks)
    wanted = read_preference(preference, num_tasks)

    def update(given: Given, state: SolvedState) -> tuple[Array, SolvedState]:
        active, gramian = given.active, given.gramian
        losses = excess(given.losses, bounds)
        # The programme has no unit. A power of two removes the size without rounding.
        scale = reciprocal_length(jnp.max(jnp.diagonal(gramian)))
        gramian = gramian * scale * scale
        ray = preferences(wanted, given)
        ray *= reciprocal(jnp.sum(ray))
        non_uniformity, adjustment = _adjust(ray, losses, active)
        off = non_uniformity > tolerance
        values = jnp.where(active, ray * losses, -jnp.inf)
        worst = active & (values == jnp.max(values))
        slopes = jnp.where(off, gramian @ adjustment, 0)
        helped = slopes > 0
        bound = jnp.where(jnp.any(helped) & ~worst, slopes, 0)
        found = linear_program(
            jnp.where(off, slopes, gramian @ active.astype(gramian.dtype)),
            gramian,
            bound,
            active & (worst | ~helped),
            active,
        )
        return found.weights, SolvedState(found.residual, found.iterations)

    def init(dtype: jnp.dtype) -> SolvedState:
        return SolvedState(jnp.zeros((), dtype), jnp.zeros((), jnp.int32))

    reads = frozenset({"losses", "gramian"})
    names = common_names(wanted.names, lower_bounds=lower_bounds)
    return make_balancer(Weighting(init, update, reads, wanted.num_tasks, names))


def _adjust(ray: Array, losses: Array, active: Array) -> tuple[Array, Array]:
    """The non-uniformity mu of the preferred losses, and the adjustment a."""
    eps = jnp.finfo(losses.dtype).eps
    # Scale to size one: products of small losses would underflow, sums of large ones overflow.
    values = ray * losses * reciprocal(jnp.max(jnp.where(active, losses, 0)))
    values = jnp.where(active, jnp.maximum(values, 0), 0)
    count = count_present(active, values.dtype)
    total = jnp.sum(values)
    equal = equal_shares(active, values.dtype)
    shares = jnp.where(total > 0, values * reciprocal(total), equal)
    surplus = jnp.where(active, jnp.log(count * jnp.maximum(shares, eps)), 0)
    non_uniformity = jnp.sum(jnp.where(active, shares * surplus, 0))
    return non_uniformity, jnp.where(active, ray * (surplus - non_uniformity), 0)
