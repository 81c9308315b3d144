"""Balancer -> Balancer: leave out tasks whose gradient is only rounding error."""

from jaxmtl._checks import check_at_least
from jaxmtl.balancing._balancer import rebuild
from jaxmtl.balancing._base import Balancer, check_balancer, check_reads_gramian
from jaxmtl.balancing._described import described
from jaxmtl.balancing._rounding import ROUNDINGS, leave_out_rounding


@described
def skip_rounding(balancer: Balancer, roundings: float = ROUNDINGS) -> Balancer:
    """Leave out tasks whose gradient is zero or rounding error compared with the longest one.

    A loss that starts at its exact minimum (the divergence from the policy at which training
    starts, distillation, a boundary condition met by construction) has a gradient of rounding
    errors, 5e-8 against 1. Methods that divide by its length follow it: the weight of ``normalize``
    is 2e7, and the update of ``imtl_g`` and ``aligned_mtl`` is as short as the shortest gradient.
    This combinator leaves a task out of the method if ||g_i|| < roundings eps max_j ||g_j||, with
    the eps of the Gramian's type, 1.2e-7 in float32. Its weight is then the smallest of the others'
    weights (zero if that is negative), which is what the method would give to a gradient as long as
    the longest.

    ``every``, ``smooth`` and the methods that average what they measure do so already, with
    8 roundings, since there the weight would outlast the step.

    Args:
      balancer: any balancer that reads the Gramian.
      roundings: the number of rounding errors; 8 of float32 are 1e-6 of the longest gradient.
        Gradients computed in bfloat16 or by TF32 products have larger rounding errors, 4e-3 or
        5e-4: roundings of 1e4 leave out gradients below a thousandth of the longest. 0 leaves out
        nothing, for losses in units so different that a gradient of a millionth matters.

    Returns:
      A balancer of the same scale, degree and promises for the tasks that are not left out. If each
      task has a unit of its own, the update changes with the units once their ratio passes the
      bound.

    Raises:
      ValueError: if ``roundings`` is below zero, or the balancer does not read the Gramian or
        leaves out such tasks already.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> grads = jnp.array([[1.0, 0.0], [0.0, 5e-8]])
      >>> for balancer in (jaxmtl.imtl_g(), jaxmtl.skip_rounding(jaxmtl.imtl_g())):
      ...     updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      ...     print(updates)
      [5.e-08 5.e-08]
      [1.e+00 5.e-08]
    """
    check_balancer(balancer)
    check_at_least("roundings", roundings, 0)
    weighting = balancer.weighting
    check_reads_gramian("skip_rounding", weighting)
    if weighting.roundings is not None:
        raise ValueError(
            "This balancer leaves out gradients of rounding already: apply skip_rounding to the"
            " method itself, as in every(skip_rounding(jaxmtl.normalize(num_tasks=3), 100.0), 10)."
        )
    return rebuild(balancer, weighting=leave_out_rounding(weighting, roundings))
