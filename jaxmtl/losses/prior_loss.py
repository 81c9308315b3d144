"""Weights from the losses of a model that predicts from the distribution of the targets alone."""

import jax

from jaxmtl._task_values import constant_vector
from jaxmtl._typing import TaskVector
from jaxmtl.balancing._base import Balancer
from jaxmtl.balancing._described import described
from jaxmtl.losses.static import static


@described
def prior_loss(values: TaskVector) -> Balancer:
    """Weigh each task by the reciprocal of its prior loss, w_i = 1 / L_i^prior.

    The prior loss is the loss of the best constant prediction, of a model that has learned only the
    distribution of the targets. It measures the difficulty of a task better than the initial loss,
    since a network learns this much within a few steps.

    Args:
      values: (T,) array or tree of scalars, the prior losses, above zero. The helpers of
        ``jaxmtl.theory`` compute them: ``prior_cross_entropy`` (entropy of the class frequencies),
        ``prior_binary_cross_entropy``, ``prior_squared_error`` (variance of the targets).

    Returns:
      A balancer that reads nothing. Scale: (sum_i 1/L_i^prior) g on T identical gradients g.
      Degree 1.

    Raises:
      ValueError: if a value is not finite and above zero, or the number of values is not the number
        of tasks.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.prior_loss({
      ...     "labels": jaxmtl.theory.prior_cross_entropy([0.5, 0.5]),
      ...     "speed": jaxmtl.theory.prior_squared_error(jnp.array([1.0, 3.0, 5.0, 7.0])),
      ... })
      >>> updates, _ = balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)))
      >>> print(updates)  # 1 / log 2 and 1 / 5
      [1.442695 0.2     ]

    References:
      Su, `Multi-task learning (1): in the name of losses <https://spaces.ac.cn/archives/8870>`_,
      2022 (in Chinese)
    """
    constant_vector("values", values, above=0.0)
    return static(jax.tree.map(lambda value: 1 / value, values))
