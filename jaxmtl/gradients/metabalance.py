"""MetaBalance: auxiliary gradients scaled towards the length of the main gradient."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_num_tasks, check_range, check_share
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._averages import follow
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._rounding import leave_out_rounding
from jaxmtl.gradients._one_task import read_one_task
from jaxmtl.solvers.scaling import reciprocal


class MetaBalanceState(NamedTuple):
    """Averages over the steps at which each task was present.

    Attributes:
      norms: (T,) averaged norms of the gradients, zero before the first.
      steps: (T,) int32, the number of steps in each average.
    """

    norms: Array
    steps: Array


@described
def metabalance(
    num_tasks: int, main: int | str | TaskVector, *, relax: float = 0.7, decay: float = 0.9
) -> Balancer:
    """Weigh auxiliary tasks so that their gradients are about as long as the main task's.

    With m_i the average of ||g_i|| over the steps: w_i = relax m_main / m_i + 1 - relax, and the
    main task has weight one. So auxiliary losses with long gradients do not dominate the main task,
    and those with short gradients still have an effect.

    Args:
      num_tasks: T.
      main: the name of the main task, such as "purchase" (the losses are then passed to ``update``
        by name), its index, or one bool for each task, of which one is true.
      relax: how far each auxiliary gradient is scaled to the main gradient's length: 1 fully, 0
        not at all.
      decay: the share of the old norm in the average, which is corrected for its start.

    Returns:
      A balancer that reads the Gramian. Scale: T g on T identical gradients g. Degree 1. Absent
      tasks keep their averages, and the average of an absent main task is still used. A gradient
      that is zero, or rounding error compared with the longest (8 eps, as for ``skip_rounding``),
      does not change its average, and has the smallest of the others' weights.

    Deviations from the paper: the norms are over all leaves together (with ``on_shared``, over the
    shared ones), while the authors treat each leaf separately; averages are corrected for their
    start.

    Raises:
      ValueError: if ``main`` is not one of T tasks, ``relax`` is not from 0 to 1, or ``decay`` is
        not from 0 to less than 1; at update, if the losses do not have the name.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.metabalance(2, main=0, relax=1.0)
      >>> grads = jnp.array([[1.0, 0.0], [0.0, 50.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates)
      [1. 1.]

    References:
      He, Feng, Cheng, Ji, Guo & Caverlee, `MetaBalance: Improving Multi-Task Recommendations via
      Adapting Gradient Magnitudes of Auxiliary Tasks <https://arxiv.org/abs/2203.06801>`_, 2022
    """
    check_num_tasks(num_tasks)
    check_range("relax", relax, 0, 1)
    check_share("decay", decay)
    one = read_one_task("main", main, num_tasks)

    def init(dtype: jnp.dtype) -> MetaBalanceState:
        return MetaBalanceState(jnp.zeros(num_tasks, dtype), jnp.zeros(num_tasks, jnp.int32))

    def update(given: Given, state: MetaBalanceState) -> tuple[Array, MetaBalanceState]:
        sizes, is_main = jnp.sqrt(jnp.diagonal(given.gramian)), one.place(given)
        state = MetaBalanceState(*follow(*state, sizes, given.active, decay))
        length = jnp.sum(jnp.where(is_main, state.norms, 0))
        # A main task that was never present has no length yet.
        ratio = jnp.where(length > 0, length * reciprocal(state.norms), 1)
        return jnp.where(is_main, 1, relax * ratio + (1 - relax)), state

    weighting = Weighting(
        init, update, frozenset({"gramian"}), num_tasks, one.names, named=one.named
    )
    return make_balancer(leave_out_rounding(weighting))
