"""Balancer -> Balancer: a ridge on the Gramian, so that very short gradients hardly count."""

from typing import Any

import jax.numpy as jnp

from jaxmtl._checks import check_at_least
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import rebuild
from jaxmtl.balancing._base import Balancer, Given, check_balancer, check_reads_gramian
from jaxmtl.balancing._described import described
from jaxmtl.balancing._rounding import leave_out_rounding


@described
def with_ridge(balancer: Balancer, ridge: Any = 1e-4) -> Balancer:
    """Add a share of the Gramian's trace to its diagonal before the weights are computed.

    The method sees G + ridge tr(G) I in place of the Gramian G. A gradient that is shorter than
    sqrt(ridge tr(G)), with the default a hundredth of all gradients taken together, hardly counts
    then: no other gradient is turned aside for it, and its weight does not grow beyond all bounds.

    It matters most with one loss an example. To ``upgrad`` and ``dualproj`` the gradient of an
    example that is learnt, a millionth of the others, is as much of a condition as any other, and
    training becomes unstable at learning rates where it converges with a ridge. TorchJD has this
    ridge by default (``reg_eps``). Methods that only compare the gradients with each other, such as
    ``krum`` and ``auxiliary_cosine``, compute the same weights with any ridge.

    Args:
      balancer: any balancer that reads the Gramian.
      ridge: at least zero; the share of the trace, over the tasks present.

    Returns:
      A balancer of the same degree, which combines the gradients as they are. The scale of the
      method and its promises hold up to the ridge; what a solver reports (``residual``, ``gap``) is
      about the Gramian with the ridge.

    Raises:
      ValueError: if ``ridge`` is below zero, or the balancer does not read the Gramian, or reads
        the inner products of two batches too, as ``modo`` and ``sdmgrad`` do.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> grads = jnp.array([[1.0, 0.0], [-1e-6, 1e-6]])
      >>> for balancer in (jaxmtl.upgrad(), jaxmtl.with_ridge(jaxmtl.upgrad())):
      ...     updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      ...     print(updates.round(4))
      [0.25 0.25]
      [0.5 0. ]

    References:
      Quinton & Rey, `Jacobian Descent for Multi-Objective Optimization
      <https://arxiv.org/abs/2406.16232>`_, 2024
    """
    check_balancer(balancer)
    check_at_least("ridge", ridge, 0)
    weighting = balancer.weighting
    check_reads_gramian("with_ridge", weighting)
    if "cross_gramian" in weighting.reads:
        raise ValueError(
            "with_ridge adds to the inner products of one batch's gradients, but this method takes"
            " its slopes from the inner products of two batches: leave with_ridge out."
        )

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        balanced = given.active & ~jnp.asarray(weighting.fixed)
        trace = jnp.sum(jnp.where(balanced, jnp.diagonal(given.gramian), 0))
        added = jnp.where(balanced, jnp.asarray(ridge, trace.dtype) * trace, 0)
        return weighting.update(given._replace(gramian=given.gramian + jnp.diag(added)), state)

    ridged = weighting._replace(update=update, roundings=None)
    if weighting.roundings is not None:  # on the diagonal with the ridge nothing is rounding
        ridged = leave_out_rounding(ridged, weighting.roundings)
    return rebuild(balancer, weighting=ridged)
