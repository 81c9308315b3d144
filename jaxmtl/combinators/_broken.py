"""Balancer -> Balancer: leave out tasks that are not finite, and balance the others."""

from jaxmtl.balancing._balancer import rebuild
from jaxmtl.balancing._base import Balancer, check_balancer
from jaxmtl.balancing._described import described


@described
def skip_broken(balancer: Balancer) -> Balancer:
    """Leave out, step by step, the tasks whose loss or gradient is not finite.

    Without it one NaN breaks the whole step: the update is not finite, and the state stays as it
    was. With it that task is absent from the step, as with ``active``: the others are balanced
    among themselves, its row is zero, and the balancer's state for it does not change. (If its
    gradient were set to zero beforehand it would still be balanced, and the min-norm point of
    ``mgda`` would be zero.) If all tasks are broken the update is zero.

    A task that stays broken is no longer trained. ``report_only(skip_broken(balancer))`` shows
    which tasks the last step left out (``finite_losses`` and ``finite_gradients``), and how often
    each was left out (``broken_steps``).

    Args:
      balancer: any balancer.

    Returns:
      A balancer with the same updates if everything is finite. It checks each task's gradient, so
      ``value_and_balanced_grad`` computes the T gradients at every step, and refuses
      ``memory="lean"``.

    Raises:
      ValueError: if ``balancer`` is not a balancer.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.report_only(jaxmtl.skip_broken(jaxmtl.mgda(num_tasks=3)))
      >>> grads = jnp.array([[3.0, 0.0], [jnp.nan, 1.0], [0.0, 3.0]])
      >>> updates, state = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates, state.report.broken_steps)  # (3, 0) and (0, 3)
      [1.5 1.5] [0 1 0]
    """
    check_balancer(balancer)
    return rebuild(balancer, skips_broken=True)
