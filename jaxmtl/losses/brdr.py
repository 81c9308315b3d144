"""BRDR: more weight to the losses that decay more slowly than the others."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._averages import started
from jaxmtl._checks import check_num_tasks, check_share
from jaxmtl._typing import Array
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import count_present
from jaxmtl.solvers.scaling import reciprocal


class BRDRState(NamedTuple):
    """Averages over the steps at which each task was present, not corrected for their start.

    Attributes:
      root: (T,) square roots of the averaged squares of the losses.
      average: (T,) averaged weights.
      steps: (T,) int32, how many steps there were.
    """

    root: Array
    average: Array
    steps: Array


@described
def brdr(num_tasks: int, *, decay: float = 0.999) -> Balancer:
    """Weigh by the inverse residual decay rate, so that all losses decay alike.

    c_i = L_i / sqrt(EMA(L_i^2)), w_i = EMA(c_i / mean_j c_j): a loss that falls has a small c, and
    less weight. Both averages are corrected for their start, so that all weights are one at first.

    Args:
      num_tasks: T, or the number of points of an equation, with (N,) losses, the squared residuals.
      decay: the share of the old averages, from 0 to less than 1.

    Returns:
      A balancer that reads the losses. Scale: T g on T identical gradients g, since the weights
      have a mean of one as long as no task is absent. Degree 1 in the gradients, 0 in the losses,
      each of which may have its own unit. A loss below zero counts by its size; one that has always
      been zero has weight zero. Absent tasks keep their averages.

    Deviations from the paper: averages are corrected for their start in place of weights that
    begin at one; and there is no epsilon.

    Raises:
      ValueError: where ``decay`` is not from 0 to less than 1; at update, where ``losses`` are
        missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.brdr(2, decay=0.0)
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array([1.0, 100.0]))
      >>> print(updates)
      [1. 1.]

    References:
      Chen, Howard & Stinis, `Self-adaptive weights based on balanced residual decay rate for
      physics-informed neural networks and deep operator networks
      <https://arxiv.org/abs/2407.01613>`_, 2024
    """
    check_num_tasks(num_tasks)
    check_share("decay", decay)

    def init(dtype: jnp.dtype) -> BRDRState:
        zeros = jnp.zeros(num_tasks, dtype)
        return BRDRState(zeros, zeros, jnp.zeros(num_tasks, jnp.int32))

    def update(given: Given, state: BRDRState) -> tuple[Array, BRDRState]:
        active, sizes = given.active, jnp.abs(given.losses)
        steps = state.steps + active.astype(state.steps.dtype)
        fresh, begun = jnp.asarray(1 - decay, sizes.dtype), started(decay, steps, sizes.dtype)
        # Squares of ratios, since those of the losses may leave the range of the type.
        largest = jnp.maximum(state.root, sizes)
        old, new = (x * reciprocal(largest) for x in (state.root, sizes))
        root = largest * jnp.sqrt(decay * old**2 + fresh * new**2)
        rates = jnp.where(active, sizes * reciprocal(root) * jnp.sqrt(begun), 0)
        mean = jnp.sum(rates) / count_present(active, rates.dtype)
        average = decay * state.average + fresh * rates * reciprocal(mean)
        found = BRDRState(root, average, steps)
        kept = BRDRState(*(jnp.where(active, x, y) for x, y in zip(found, state, strict=True)))
        return jnp.where(active, average / begun, 0), kept

    return make_balancer(Weighting(init, update, frozenset({"losses"}), num_tasks))
