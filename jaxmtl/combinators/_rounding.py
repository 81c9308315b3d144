"""Balancer -> Balancer: tasks whose gradient is rounding are left out of the question."""

from jaxmtl._checks import check_at_least
from jaxmtl.balancing._balancer import rebuild
from jaxmtl.balancing._base import Balancer, check_balancer
from jaxmtl.balancing._described import described
from jaxmtl.balancing._rounding import ROUNDINGS, leave_out_rounding


@described
def skip_rounding(balancer: Balancer, roundings: float = ROUNDINGS) -> Balancer:
    """Ask a method without the tasks whose gradient is rounding, or zero, beside the longest one.

    A loss that starts at its exact minimum (the divergence from the policy that training starts
    from, distillation, a boundary condition met by construction) has a gradient of rounding, 5e-8
    beside 1. Methods that divide by its length follow it: the weight of ``normalize`` is 2e7, and
    the update of ``imtl_g`` and ``aligned_mtl`` is as short as the shortest gradient. Here a task
    is left out of the question where ||g_i|| < roundings eps max_j ||g_j||, with the eps of the
    Gramian's type, 1.2e-7 in float32. Its weight is then the least of the others' (zero where that
    is negative), which is what the method would give to a gradient as long as the longest.

    ``every``, ``smooth`` and the methods that average what they measure do so by themselves, with
    8 roundings, since there the weight would outlast the step.

    Args:
      balancer: any balancer that reads the Gramian.
      roundings: how many; 8 of float32 are 1e-6 of the longest gradient. Gradients that were made
        in bfloat16 or by TF32 products have a rounding of their own, 4e-3 or 5e-4: roundings of
        1e4 leave out what is a thousandth of the longest. 0 leaves out nothing, for losses in units
        so different that a gradient of a millionth counts.

    Returns:
      A balancer of the same scale, degree and promises towards the tasks that are not left out.
      Where each task is in a unit of its own, the update changes with the units once their ratio
      passes the bound.

    Raises:
      ValueError: where ``roundings`` is below zero, the balancer reads no Gramian, or it leaves out
        tasks already.

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
    if "gramian" not in weighting.reads:
        raise ValueError(
            "skip_rounding is for methods that read the Gramian, but this balancer reads"
            f" {', '.join(sorted(weighting.reads)) or 'nothing'}: leave it as it is."
        )
    if weighting.roundings is not None:
        raise ValueError(
            "This balancer leaves out gradients of rounding already: wrap the method itself, as in"
            " every(skip_rounding(jaxmtl.normalize(num_tasks=3), 100.0), 10)."
        )
    return rebuild(balancer, weighting=leave_out_rounding(weighting, roundings))
