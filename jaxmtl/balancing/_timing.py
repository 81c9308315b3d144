"""The steps at which a method computes weights: held weights, a start step and a ramp."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmtl._task_values import task_vector
from jaxmtl._typing import Array
from jaxmtl.balancing._base import Timing


class TimingState(NamedTuple):
    """The number of the step, and the weights held until the method computes new ones.

    Attributes:
      finite_steps: int32, the number of finite steps so far.
      weights: (T,) the method's last weight of each task.
    """

    finite_steps: Array
    weights: Array


def init_timing(timing: Timing | None, num_tasks: int | None, dtype: Any) -> Any:
    """Start at step zero; the state is empty for a method that computes weights at every step."""
    if timing is None:
        return ()
    held = jnp.asarray(task_vector("timing.held", timing.held), dtype)
    held = jnp.broadcast_to(held, (num_tasks,))
    return TimingState(jnp.zeros((), jnp.int32), held)


def is_due(timing: Timing, state: TimingState) -> Array:
    """Whether the method computes new weights at this step."""
    since = state.finite_steps - timing.start
    return (since >= 0) & (since % timing.period == 0)


def applied(timing: Timing, state: TimingState, weights: Array, active: Array) -> Array:
    """The weights of this step, between the weights from before the start and the method's."""
    before = timing.before(active, weights.dtype)
    steps = jnp.asarray(state.finite_steps - timing.start + 1, weights.dtype)
    share = jnp.clip(steps / jnp.asarray(timing.ramp + 1, weights.dtype), 0, 1)
    return jnp.where(active, (1 - share) * before + share * weights, 0)
