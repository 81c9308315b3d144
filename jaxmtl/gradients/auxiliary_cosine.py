"""Auxiliary tasks that count only if their gradients agree with the main gradient."""

import jax.numpy as jnp

from jaxmtl._checks import check_flag, check_num_tasks
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.gradients._one_task import read_one_task
from jaxmtl.solvers.scaling import reciprocal


@described
def auxiliary_cosine(
    num_tasks: int, main: int | str | TaskVector, *, weighted: bool = False
) -> Balancer:
    """Use an auxiliary gradient only if it does not conflict with the main gradient.

    With c_i the cosine between g_i and g_main: w_i = 1 if c_i > 0, else 0; or max(0, c_i) with
    ``weighted``. The main task has weight one.

    Args:
      num_tasks: T.
      main: the name of the main task, such as "segmentation" (the losses are then passed to
        ``update`` by name), its index, or one bool for each task, of which one is true.
      weighted: whether the weight of an auxiliary task is its cosine instead of one.

    Returns:
      A balancer that reads the Gramian. Scale: T g on T identical gradients g. Degree 1. The update
      does not conflict with the main task, <g_main, d> >= ||g_main||^2; the auxiliary tasks may
      conflict with each other. A gradient of zero has cosine zero with all others, and so has the
      gradient of an absent main task. A gradient that is only rounding error counts by the
      direction of this error, with a weight of at most one.

    Raises:
      ValueError: if ``main`` is not one of T tasks; at update, if the losses do not have the
        name.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.auxiliary_cosine(3, main=0)
      >>> grads = jnp.array([[1.0, 0.0], [3.0, 4.0], [-1.0, 4.0]])
      >>> updates, state = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates, state.task_weights)
      [4. 4.] [1. 1. 0.]

    References:
      Du, Czarnecki, Jayakumar, Farajtabar, Pascanu & Lakshminarayanan, `Adapting Auxiliary Losses
      Using Gradient Similarity <https://arxiv.org/abs/1812.02224>`_, 2018
    """
    check_num_tasks(num_tasks)
    check_flag("weighted", weighted)
    one = read_one_task("main", main, num_tasks)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        is_main = one.place(given)
        per_length = reciprocal(jnp.sqrt(jnp.diagonal(given.gramian)))
        with_main = jnp.sum(jnp.where(is_main, given.gramian, 0), axis=1)
        cosines = with_main * per_length * jnp.sum(jnp.where(is_main, per_length, 0))
        agrees = jnp.clip(cosines, 0, 1) if weighted else (cosines > 0).astype(cosines.dtype)
        return jnp.where(is_main, 1, agrees), state

    return make_balancer(
        Weighting(
            lambda dtype: (),
            update,
            frozenset({"gramian"}),
            num_tasks,
            one.names,
            named=one.named,
        )
    )
