"""Balancer -> Balancer: when weights are computed, and how they change over the steps."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_count, check_share
from jaxmtl._task_names import common_names
from jaxmtl._task_values import constant_vector
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import rebuild
from jaxmtl.balancing._base import Balancer, Given, Timing, check_balancer, known_num_tasks
from jaxmtl.balancing._described import described
from jaxmtl.balancing._rounding import leave_out_rounding


class SmoothState(NamedTuple):
    """Averages of the weights, which tasks have one, and the method's own state."""

    average: Array
    seen: Array
    method: PyTree


@described
def smooth(balancer: Balancer, decay: float) -> Balancer:
    """Average the weights of any method over the steps, a <- decay a + (1 - decay) w.

    The average starts at the first weights. It steadies methods whose weights jump from batch to
    batch; with MGDA, CAGrad or PCGrad this is CR-MOGM.

    Args:
      balancer: any balancer built with ``num_tasks``.
      decay: the share of the old value, from 0 (none) to below 1.

    Returns:
      A balancer of the same scale. Its degree is the same at the first step only, since weights of
      several steps mix. It does not keep promises that a method makes for each step, such as to
      conflict with no task. A task whose gradient is zero, or rounding error compared with the
      longest one, is left out when the weights are computed, as with ``skip_rounding``: its weight
      would stay in the average.

    Raises:
      ValueError: for a ``decay`` outside [0, 1), or a balancer built without ``num_tasks``.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.smooth(jaxmtl.real_time_loss(num_tasks=2), decay=0.5)
      >>> state = balancer.init(jnp.zeros(2))
      >>> for losses in ([1.0, 1.0], [0.5, 1.0]):
      ...     updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array(losses))
      >>> print(updates)
      [1.5 1. ]

    References:
      Zhou et al., `On the Convergence of Stochastic Multi-Objective Gradient Manipulation and
      Beyond`, Advances in Neural Information Processing Systems 35, 2022
    """
    check_balancer(balancer)
    check_share("decay", decay)
    inner = leave_out_rounding(balancer.weighting)
    num = known_num_tasks(balancer, "smooth keeps an average")

    def init(dtype: jnp.dtype) -> SmoothState:
        zeros = jnp.zeros(num, dtype)
        return SmoothState(zeros, zeros.astype(bool), inner.init(dtype))

    def update(given: Given, state: SmoothState) -> tuple[Array, SmoothState]:
        weights, method = inner.update(given, state.method)
        weights = jnp.asarray(weights)  # NumPy's float64, where they are constants
        share = jnp.where(state.seen, jnp.asarray(decay, weights.dtype), 0)
        average = share * state.average + (1 - share) * weights
        average = jnp.where(given.active, average, state.average)
        return average, SmoothState(average, state.seen | given.active, method)

    return rebuild(balancer, weighting=inner._replace(init=init, update=update))


@described
def every(balancer: Balancer, k: int) -> Balancer:
    """Compute new weights at every k-th step only, and hold them in between.

    The steps in between cost no Gramian and no solve; through ``value_and_balanced_grad`` they cost
    one backward pass, like the plain sum of the losses. This saving is lost under ``jax.vmap``, for
    example over seeds: there both branches are computed at each step (``jax.lax.map`` keeps it).

    Args:
      balancer: any balancer built with ``num_tasks``.
      k: the period, in steps; the first step computes weights.

    Returns:
      A balancer of the same scale and degree at the steps that compute weights. What the method
      learns or averages changes at those steps only. A task that was absent when the weights were
      computed keeps its last weight (zero before its first). A task whose gradient is then zero, or
      rounding error compared with the longest one, such as a loss at its exact minimum, has the
      smallest of the others' weights until the next computation (``skip_rounding``): a weight made
      of rounding errors would be held after it has lost its meaning. What a method does to the
      gradients themselves (the averages of ``moco``, the masks of ``graddrop``) happens at every
      step.

    Raises:
      ValueError: if ``k`` is not a positive int, or the balancer was built without ``num_tasks``.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.every(jaxmtl.normalize(num_tasks=2), 2)
      >>> state = balancer.init(jnp.zeros(2))
      >>> for scale in (1.0, 2.0, 4.0):
      ...     updates, state = balancer.update(scale * jnp.eye(2), state)
      ...     print(updates)
      [1. 1.]
      [2. 2.]
      [1. 1.]

    References:
      Xu et al., `PSMGD: Periodic Stochastic Multi-Gradient Descent for Fast Multi-Objective
      Optimization <https://arxiv.org/abs/2412.10961>`_, 2024
    """
    check_balancer(balancer)
    check_count("k", k)
    timing = balancer.timing or Timing()
    timing = timing._replace(period=timing.period * k)
    return rebuild(balancer, weighting=leave_out_rounding(balancer.weighting), timing=timing)


@described
def warm_up(
    balancer: Balancer, steps: int, *, ramp: int = 0, weights: TaskVector | None = None
) -> Balancer:
    """Hold constant weights for the first steps, then go over to the balancer's weights.

    At step t (from 0) the weights are (1 - a) w_constant + a w_balancer, with
    a = clip((t - steps + 1) / (ramp + 1), 0, 1).

    Args:
      balancer: any balancer built with ``num_tasks``.
      steps: the number of steps with the constant weights alone. During them the method computes
        and sees nothing; methods that use initial losses use the first losses after them.
      ramp: the number of further steps over which the balancer's weights replace the constant ones.
      weights: (T,) array or tree of scalars, the constant weights; 1/T for each task present if
        None.

    Returns:
      A balancer with the scale of the constant weights at first and of ``balancer`` later. What a
      method does to the gradients themselves (``moco``, ``db_mtl``, ``graddrop``) happens from the
      first step on.

    Raises:
      ValueError: if ``steps`` or ``ramp`` are not whole numbers of at least 0, if there is not one
        weight per task, or if the balancer already has a start or was built without ``num_tasks``.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.warm_up(jaxmtl.static([3.0, 1.0]), 1, ramp=1, weights=[1.0, 1.0])
      >>> state = balancer.init(jnp.zeros(2))
      >>> for _ in range(3):
      ...     updates, state = balancer.update(jnp.eye(2), state)
      ...     print(updates)
      [1. 1.]
      [2. 1.]
      [3. 1.]
    """
    check_balancer(balancer)
    check_count("steps", steps, 0)
    check_count("ramp", ramp, 0)
    timing, weighting = balancer.timing or Timing(), balancer.weighting
    if not all(isinstance(n, int) and n == 0 for n in (timing.start, timing.ramp)):
        raise ValueError(
            "The balancer already has a start of its own: pass the steps and the ramp to that one,"
            " or apply warm_up before other combinators, as in every(warm_up(...), k)."
        )
    if weights is not None:
        constant = constant_vector("weights", weights, weighting.num_tasks)
        names = common_names(weighting.names, weights=weights)
        weighting = weighting._replace(names=names)
        timing = timing._replace(before=lambda active, dtype: jnp.asarray(constant, dtype))
    timing = timing._replace(start=steps, ramp=ramp)
    return rebuild(balancer, weighting=weighting, timing=timing)
