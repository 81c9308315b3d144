"""SDMGrad: the min-norm direction, pulled towards a preferred one, from independent batches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmtl._checks import check_at_least, check_count, check_num_tasks
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.gradients._on_simplex import present_shares, settle
from jaxmtl.losses._learned import Learner, init_learner, learn, read_optimizer
from jaxmtl.losses._preference import preferences, read_preference
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.scaling import reciprocal


class SDMGradState(NamedTuple):
    """The (T,) convex weights."""

    weights: Array


@described
def sdmgrad(
    num_tasks: int,
    *,
    preference: TaskVector | None = None,
    pull: float = 0.3,
    optimizer: optax.GradientTransformation | None = None,
    iterations: int = 20,
) -> Balancer:
    """Follow the min-norm point of the gradients, each with a preferred direction added.

    w descends ||J'(w + pull p)||^2 on the simplex by projected steps of an optimizer along
    J_1 J_2' (w + pull p), and d = J'(w + pull p) / (1 + pull), with stacked gradients J_1, J_2 of
    batches independent of each other and of the batch of J. They are an argument:
    ``update(grads, state, params, independent_grads=(grads_1, grads_2))``.

    Args:
      num_tasks: T.
      preference: (T,) array or tree of scalars p, not below zero and not all zero, the weights of
        the preferred direction; 1/T each if None (over the tasks present).
      pull: the weight of the preferred direction: 0 gives MGDA, a large value the direction itself.
      optimizer: any optax optimizer for w, run separately for each task; by default
        ``optax.sgd(1.0, momentum=0.5)``. It starts anew at each step of training, as in the
        authors' code: the state keeps w, and no momentum.
      iterations: the number of its steps at each step of training.

    Returns:
      A balancer that reads the Gramian of the further batches, and the Gramian of the first batch
      for its size. Scale: g on T identical gradients g if p sums to one. Degree 1. Absent tasks
      keep their weights, and have no weight in the step.

    Deviations from the paper: J_1 J_2' is measured in units of the trace of J J', so that learning
    rates mean the same for gradients of any size (the authors' 10 is in units of the squared mean
    norm); all iterations of a step share its two batches.

    Raises:
      ValueError: for ``pull`` below 0 or ``iterations`` that is not a positive int; if a
        preference is below zero, or all are zero; at update, if ``independent_grads`` are
        missing or do not fit.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.sdmgrad(2, pull=0.0)
      >>> state, grads = balancer.init(jnp.zeros(2)), jnp.diag(jnp.array([2.0, 1.0]))
      >>> updates, _ = balancer.update(grads, state, independent_grads=(grads, grads))
      >>> [f"{update:.2f}" for update in updates]  # without pull and noise MGDA's
      ['0.40', '0.80']

    References:
      Xiao, Ban & Ji, `Direction-oriented Multi-objective Learning: Simple and Provable Stochastic
      Algorithms <https://arxiv.org/abs/2305.18409>`_, 2023
    """
    check_num_tasks(num_tasks)
    check_at_least("pull", pull, 0)
    check_count("iterations", iterations)
    wanted = read_preference(preference, num_tasks, zeros=True)
    learner = read_optimizer(optimizer, optax.sgd(1.0, momentum=0.5))

    def init(dtype: jnp.dtype) -> SDMGradState:
        shares = jnp.full(num_tasks, 1 / num_tasks, dtype)
        return SDMGradState(shares)

    @one_launch
    def descend(
        cross: Array, preferred: Array, active: Array, start: Array, weights: Array
    ) -> tuple[Array, Array]:
        def step(_: Array, carry: tuple[Array, Array, Learner]) -> tuple[Array, Array, Learner]:
            shares, weights, learned = carry
            slope = cross @ (shares + preferred)
            shares, learned = learn(shares, learned, slope, active, learner)
            return *settle(shares, weights, active), learned

        carry = start, weights, init_learner(start, learner)
        return jax.lax.fori_loop(0, iterations, step, carry)[:2]

    def update(given: Given, state: SDMGradState) -> tuple[Array, SDMGradState]:
        cross = given.cross_gramian * reciprocal(jnp.trace(given.gramian))
        preferred, active = pull * preferences(wanted, given), given.active

        start = present_shares(state.weights, active)
        shares, weights = descend(cross, preferred, active, start, state.weights)
        return (shares + preferred) / (1 + pull), SDMGradState(weights)

    reads = frozenset({"gramian", "cross_gramian"})
    return make_balancer(Weighting(init, update, reads, num_tasks, wanted.names))
