"""Balancer -> Balancer: tasks that broke are left out, and the others go on."""

from jaxmtl.balancing._balancer import rebuild
from jaxmtl.balancing._base import Balancer, check_balancer
from jaxmtl.balancing._described import described


@described
def skip_broken(balancer: Balancer) -> Balancer:
    """Leave out, step by step, the tasks whose loss or gradient is not finite.

    Without it one NaN breaks the whole step: the update is not finite, and the state stays as it
    was. With it that task is absent from the step, as ``active`` would make it: the others are
    balanced among themselves, its row is zero, and what the balancer keeps of it does not move. (A
    gradient that is set to zero beforehand would still be balanced: the min-norm point of ``mgda``
    is then zero.) Where all tasks are broken the update is zero.

    A task that is broken for good is not trained any more. ``report_only(skip_broken(balancer))``
    says which was left out last, ``finite_losses`` and ``finite_gradients``, and how often,
    ``broken_steps``.

    Args:
      balancer: any balancer.

    Returns:
      A balancer with the same updates where everything is finite. It looks at each task's gradient,
      so through ``value_and_balanced_grad`` the T gradients are made at every step, and
      ``memory="lean"`` is refused.

    Raises:
      ValueError: where ``balancer`` is none.

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
