"""Learning-rate annealing: gradients brought to a common norm, slowly."""

import jax.numpy as jnp

from jaxmtl._checks import check_num_tasks, check_share
from jaxmtl._typing import Array
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.gradients._shares import average_shares


@described
def lr_annealing(num_tasks: int, *, decay: float = 0.9) -> Balancer:
    """Weigh by the running average of sum_j ||g_j|| / ||g_i||.

    w_i <- decay w_i + (1 - decay) sum_j ||g_j|| / ||g_i||, starting at one: what physics-informed
    networks use to balance residual, boundary and initial losses. At rest all weighted gradients
    have the same norm, the sum of the raw ones.

    Args:
      num_tasks: T.
      decay: the share of the old weights.

    Returns:
      A balancer that reads the Gramian. Scale: T (decay + (1 - decay) T) g on T identical gradients
      g at the first step, T^2 g at rest. Degree 1 in a common factor of all gradients at all steps.
      Absent tasks keep their weights. The usual practice is to ask every 1000 steps or so:
      ``every(lr_annealing(T), 1000)``. Asked at each step, the default ``decay`` forgets within
      tens of them, and the weights follow the noise of the batches: take 0.999 or so there.

    Deviations from the first paper: it divides the largest entry of the residual's gradient by the
    mean entry of the others'; the norms are the form of the second, by the same authors.

    Raises:
      ValueError: for a ``decay`` outside [0, 1).

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.lr_annealing(2, decay=0.0)
      >>> updates, _ = balancer.update(jnp.diag(jnp.array([3.0, 1.0])), balancer.init(jnp.zeros(2)))
      >>> print(updates.round(4))
      [4. 4.]

    References:
      Wang, Teng & Perdikaris, `Understanding and Mitigating Gradient Flow Pathologies in
      Physics-Informed Neural Networks <https://arxiv.org/abs/2001.04536>`_, 2021

      Wang, Sankaran, Wang & Perdikaris, `An Expert's Guide to Training Physics-informed Neural
      Networks <https://arxiv.org/abs/2308.08468>`_, 2023
    """
    check_num_tasks(num_tasks)
    check_share("decay", decay)

    def update(given: Given, weights: Array) -> tuple[Array, Array]:
        norms = jnp.sqrt(jnp.diagonal(given.gramian))
        weights = average_shares(weights, norms, given.active, decay)
        return weights, weights

    return make_balancer(
        Weighting(
            lambda dtype: jnp.ones(num_tasks, dtype), update, frozenset({"gramian"}), num_tasks
        )
    )
