"""Residual-based attention: more weight to the points whose residuals stay large."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_above, check_share, static_count
from jaxmtl._typing import Array
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.solvers.scaling import reciprocal


class AttentionState(NamedTuple):
    """The (N,) multipliers lambda of the residuals, zero before a point's first step."""

    multipliers: Array


@described
def residual_attention(num_points: int, *, decay: float = 0.999, rate: float = 0.01) -> Balancer:
    """Weigh the points of an equation by their past residuals, relative to the largest.

    lambda_i <- decay lambda_i + rate |r_i| / max_j |r_j|, weight lambda_i^2 on L_i = r_i^2.

    Args:
      num_points: N; the losses are (N,), squared residuals (or tasks whose losses are squares).
      decay: the share of the old multiplier, from 0 to less than 1.
      rate: what the multiplier of the point with the largest residual gains at a step.

    Returns:
      A balancer that reads (N,) losses and costs one backward pass. Scale: T rate^2 g on T
      identical gradients g of equal losses at the first step; later at most the bound of the
      weights, (rate / (1 - decay))^2, which is 100 by default. Degree 1 in the gradients, 0 in the
      losses: with L_i = r_i^2 / N the sum is the paper's mean. A negative loss counts with its
      absolute value.

      For a minibatch of the points, scatter its losses into (N,) and mark its points as active; the
      others keep their multipliers: ``jnp.zeros(N).at[index].set(r**2)`` as the losses,
      ``active=jnp.zeros(N, bool).at[index].set(True)``. Only these vectors have size N.

    Deviations from the paper: none; in a minibatch the largest residual is that of its own points.

    Raises:
      ValueError: if ``num_points`` is not a positive int, ``decay`` is not from 0 to less than 1,
        or ``rate`` is not above zero; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.residual_attention(3, decay=0.5, rate=1.0)
      >>> state = balancer.init(jnp.zeros(3))
      >>> residuals, index = jnp.array([2.0, -1.0]), jnp.array([0, 2])
      >>> losses = jnp.zeros(3).at[index].set(residuals**2)
      >>> active = jnp.zeros(3, bool).at[index].set(True)
      >>> for _ in range(2):
      ...     updates, state = balancer.update(jnp.eye(3), state, losses=losses, active=active)
      ...     print(state.method.multipliers, updates)
      [1.  0.  0.5] [1.   0.   0.25]
      [1.5  0.   0.75] [2.25   0.     0.5625]

    References:
      Anagnostopoulos, Toscano, Stergiopulos & Karniadakis, `Residual-based attention in
      physics-informed neural networks <https://arxiv.org/abs/2307.00379>`_, 2024
    """
    static_count("num_points", num_points)
    check_share("decay", decay)
    check_above("rate", rate, 0)

    def init(dtype: jnp.dtype) -> AttentionState:
        return AttentionState(jnp.zeros(num_points, dtype))

    def update(given: Given, state: AttentionState) -> tuple[Array, AttentionState]:
        sizes = jnp.where(given.active, jnp.sqrt(jnp.abs(given.losses)), 0)
        shares = sizes * reciprocal(jnp.max(sizes))
        moved = decay * state.multipliers + rate * shares
        multipliers = jnp.where(given.active, moved, state.multipliers)
        return multipliers**2, AttentionState(multipliers)

    return make_balancer(Weighting(init, update, frozenset({"losses"}), num_points))
