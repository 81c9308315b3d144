"""IMTL: learned weights bring the losses to one, then gradients get equal projections."""

import jax.numpy as jnp
import optax

from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given
from jaxmtl.balancing._described import described
from jaxmtl.gradients._equal_cosines import equal_cosines
from jaxmtl.losses.imtl_l import IMTLLState, imtl_l
from jaxmtl.solvers.scaling import reciprocal


@described
def imtl(
    num_tasks: int,
    *,
    optimizer: optax.GradientTransformation | None = None,
    lower_bounds: TaskVector | None = None,
) -> Balancer:
    """Apply IMTL-G to losses that IMTL-L has scaled to one.

    IMTL-L learns e_i = exp(s_i) with e_i L_i -> 1; with norms D and cosines C of the raw gradients,
    w ~ D^-1 C^+ 1 and sum_i w_i / e_i = +-1. The direction is that of IMTL-G for any e_i; its
    length is that of the scaled gradients.

    Args:
      num_tasks: T.
      optimizer: any optax optimizer for s, run separately for each task; by default
        ``optax.adam(1e-2)``.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss at or below its
        bound does not change its weight.

    Returns:
      A balancer that reads the losses and the Gramian. Scale: g on T identical gradients g at the
      start. Degree 1. Weights may be negative. A gradient that is only rounding error makes the
      update as short as itself; ``skip_rounding`` leaves it out. Its state keeps
      ``method.log_weights``, s. In the paper the heads receive exp(s_i) times their own gradient:
      use ``optax.partition`` to give them to ``imtl_l``, or put a normalising optimizer after it,
      for which the factor makes no difference.

    Deviations from the paper: the sum is divided by its absolute value, as in ``imtl_g``.

    Raises:
      ValueError: if ``num_tasks`` is not a positive int; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.imtl(2)
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)), losses=jnp.ones(2))
      >>> print(updates)  # weights 1/4 and 3/4, as IMTL-G's
      [0.75 0.75]

    References:
      Liu et al., `Towards Impartial Multi-task Learning
      <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021
    """
    learned_scale = imtl_l(num_tasks, optimizer=optimizer, lower_bounds=lower_bounds).weighting

    def update(given: Given, state: IMTLLState) -> tuple[Array, IMTLLState]:
        scale, state = learned_scale.update(given, state)
        weights = equal_cosines(given.gramian).weights
        return weights * reciprocal(jnp.sum(weights / scale)), state

    reads = learned_scale.reads | {"gramian"}
    return make_balancer(learned_scale._replace(update=update, reads=reads))
