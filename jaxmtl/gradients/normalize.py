"""Direct normalisation of each gradient."""

import numbers

import jax.numpy as jnp

from jaxmtl._checks import check_at_least, optional_num_tasks
from jaxmtl._task_names import common_names
from jaxmtl._task_values import constant_vector
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.losses._first_losses import FirstLosses, init_first_losses, observe, relative_losses
from jaxmtl.solvers.scaling import reciprocal


@described
def normalize(
    *,
    alpha: float = 0.0,
    num_tasks: int | None = None,
    initial_losses: TaskVector | None = None,
) -> Balancer:
    """Weigh each task by the reciprocal of its gradient's norm, w_i = r_i^alpha / ||g_i||.

    What GradNorm approaches by learning, reached at every step. With ``alpha`` above zero the rate
    adjustment of GradNorm: r_i = (L_i/L_i(0)) / mean_j(L_j/L_j(0)), so that tasks that lag behind
    weigh more.

    Args:
      alpha: strength of the rate adjustment; 0 is none.
      num_tasks: T; needed for the rate adjustment, which keeps the initial losses, and for the
        state to keep the task weights.
      initial_losses: (T,) array or tree of scalars, L_i(0) where theory tells it; the first loss
        seen of each task if None.

    Returns:
      A balancer that reads the Gramian, and the losses where ``alpha`` is not 0. Scale: the sum of
      T unit vectors, T g/||g|| on T identical gradients g. Degree 0: plain gradient descent keeps
      its step length to the end, so let a normalising optimizer such as Adam follow, or decay the
      learning rate. A gradient of zero stays zero, but one that is merely small, as of a task
      almost solved, pulls as hard as any other, and so does one that is rounding and nothing else
      (``skip_rounding`` leaves it out; ``every`` and ``smooth`` do so by themselves).

    Raises:
      ValueError: for alpha < 0; for a rate adjustment without ``num_tasks``; at update, where
        ``losses`` are needed and missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.normalize()
      >>> grads = jnp.array([[3.0, 4.0], [0.0, 100.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates)
      [0.6 1.8]

    References:
      Proposed without a name in `Strategies for Balancing Multiple Loss Functions in Deep
      Learning`; the rate adjustment is that of Chen et al., `GradNorm
      <https://arxiv.org/abs/1711.02257>`_, 2018
    """
    check_at_least("alpha", alpha, 0)
    num_tasks = optional_num_tasks(num_tasks)
    if isinstance(alpha, numbers.Real) and alpha == 0:
        if initial_losses is not None:
            raise ValueError("initial_losses are for the rate adjustment: give an alpha above 0.")

        def plain(given: Given, state: PyTree) -> tuple[Array, PyTree]:
            return reciprocal(jnp.sqrt(jnp.diagonal(given.gramian))), state

        return make_balancer(Weighting(lambda dtype: (), plain, frozenset({"gramian"}), num_tasks))

    if num_tasks is None:
        raise ValueError(
            "normalize with a rate adjustment (alpha other than 0) keeps the initial loss of each"
            " task, and so needs their number: write normalize(alpha=..., num_tasks=...). Inside"
            " optax.inject_hyperparams, list alpha in static_args where it is 0."
        )
    known = None
    if initial_losses is not None:
        known = constant_vector("initial_losses", initial_losses, num_tasks, above=0.0)

    def adjusted(given: Given, first: FirstLosses) -> tuple[Array, FirstLosses]:
        first = observe(first, given.losses, given.active)
        rates = relative_losses(first, given.losses, given.active)
        return rates**alpha * reciprocal(jnp.sqrt(jnp.diagonal(given.gramian))), first

    return make_balancer(
        Weighting(
            lambda dtype: init_first_losses(num_tasks, known, dtype),
            adjusted,
            frozenset({"losses", "gramian"}),
            num_tasks,
            common_names(initial_losses=initial_losses),
        )
    )
