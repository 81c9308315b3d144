"""GradNorm: learned weights that let every task train at a common rate."""

from typing import NamedTuple

import jax.numpy as jnp
import optax

from jaxmtl._checks import check_at_least, check_num_tasks
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import count_present
from jaxmtl.losses._first_losses import FirstLosses, init_first_losses, observe, relative_losses
from jaxmtl.losses._learned import Learner, init_learner, learn, read_optimizer
from jaxmtl.losses._lower_bounds import excess, known_excess, read_lower_bounds
from jaxmtl.solvers.scaling import reciprocal


class GradNormState(NamedTuple):
    """The (T,) weights of the next step, their optimizer's state, and the initial losses."""

    weights: Array
    learner: Learner
    first: FirstLosses


@described
def gradnorm(
    num_tasks: int,
    *,
    alpha: float = 1.5,
    optimizer: optax.GradientTransformation | None = None,
    initial_losses: TaskVector | None = None,
    lower_bounds: TaskVector | None = None,
) -> Balancer:
    """Learn weights that bring the weighted gradients to a common norm, corrected for speed.

    With n_i = ||g_i||, r_i = (L_i/L_i(0)) / mean_j(L_j/L_j(0)) and N = mean_j(w_j n_j), one
    optimizer step on the weights descends
      L_grad(w) = sum_i |w_i n_i - sg(N r_i^alpha)|,
      dL_grad/dw_i = sign(w_i n_i - N r_i^alpha) n_i,
    and then w <- T w / sum_i w_i. The derivative is this closed form: no gradient is differentiated
    a second time. At equilibrium all w_i n_i / r_i^alpha are equal, for alpha = 0 and 1; for other
    alpha all but one, which makes up for the difference of mean_i(r_i^alpha) from one.

    The paper measures the norms at the last shared layer and applies the weights everywhere:
    ``on_shared(gradnorm(T), last_layer, heads="weighted")``.

    Args:
      num_tasks: T.
      alpha: how strongly tasks that train slowly are favoured; 0 gives equal norms. The paper uses
        1.5 if tasks differ much, and 0.12 in its toy example.
      optimizer: any optax optimizer for the weights, run separately for each task; by default
        ``optax.adam(0.025)``.
      initial_losses: (T,) array or tree of scalars, L_i(0) if theory gives it; if None, the first
        loss of each task.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts as zero.

    Returns:
      A balancer that reads the losses and the Gramian. Scale: T g on T identical gradients g, since
      the weights sum to T. Degree 1. The weights of a step are those before their update, as in
      the paper's algorithm.

    Deviations from the paper: the derivative is divided by N, so that learning rate and epsilon of
    the optimizer mean the same for gradients of any size; weights are kept at or above zero, since
    a large step could make a weight negative. Absent tasks keep their weights, and the sum of the
    present tasks' weights does not change.

    Raises:
      ValueError: for alpha < 0, or ``initial_losses`` that are not one number per task above
        ``lower_bounds``; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl, optax
      >>> balancer = jaxmtl.gradnorm(2, alpha=0.0, optimizer=optax.sgd(0.1))
      >>> state, grads = balancer.init(jnp.zeros(2)), jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> for _ in range(50):
      ...     updates, state = balancer.update(grads, state, losses=jnp.ones(2))
      >>> print(updates.round(1))  # equal norms, weights 3/2 and 1/2
      [1.5 1.5]

    References:
      Chen et al., `GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask
      Networks <https://arxiv.org/abs/1711.02257>`_, 2018
    """
    check_num_tasks(num_tasks)
    check_at_least("alpha", alpha, 0)
    bounds, _ = read_lower_bounds(lower_bounds, num_tasks)
    known = known_excess("initial_losses", initial_losses, num_tasks, bounds)
    learner = read_optimizer(optimizer, optax.adam(0.025))

    def init(dtype: jnp.dtype) -> GradNormState:
        ones = jnp.ones(num_tasks, dtype)
        return GradNormState(
            ones, init_learner(ones, learner), init_first_losses(num_tasks, known, dtype)
        )

    def update(given: Given, state: GradNormState) -> tuple[Array, GradNormState]:
        losses = excess(given.losses, bounds)
        first = observe(state.first, losses, given.active)
        rates = relative_losses(first, losses, given.active)
        weights, active = state.weights, given.active
        norms = jnp.sqrt(jnp.diagonal(given.gramian))
        mean = jnp.sum(weights * norms) / count_present(active, norms.dtype)
        slope = jnp.sign(weights * norms - mean * rates**alpha) * norms * reciprocal(mean)
        moved, learned = learn(weights, state.learner, slope, active, learner)
        positive = jnp.maximum(moved, 0)
        # From T, not from the sum of the weights, whose rounding errors would add up over the
        # steps.
        total = num_tasks - jnp.sum(jnp.where(active, 0, weights))
        rescaled = positive * total * reciprocal(jnp.sum(jnp.where(active, positive, 0)))
        value = jnp.where(active & (rescaled.sum() > 0), rescaled, weights)
        return weights, GradNormState(value, learned, first)

    reads = frozenset({"losses", "gramian"})
    names = common_names(initial_losses=initial_losses, lower_bounds=lower_bounds)
    return make_balancer(Weighting(init, update, reads, num_tasks, names))
