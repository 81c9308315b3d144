"""When a method is asked for weights: held weights, a start step and a ramp."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmtl._task_values import task_vector
from jaxmtl._typing import Array
from jaxmtl.balancing._base import Timing


class TimingState(NamedTuple):
    """The step, and what holds until the method is asked again.

    Attributes:
      finite_steps: int32, how many there were so far.
      weights: (T,) the method's last weights of each task.
    """

    finite_steps: Array
    weights: Array


def init_timing(timing: Timing | None, num_tasks: int | None, dtype: Any) -> Any:
    """Start at step zero; nothing for a method that is asked at every step."""
    if timing is None:
        return ()
    held = jnp.asarray(task_vector("timing.held", timing.held), dtype)
    held = jnp.broadcast_to(held, (num_tasks,))
    return TimingState(jnp.zeros((), jnp.int32), held)


def is_due(timing: Timing, state: TimingState) -> Array:
    """Whether the method is asked at this step."""
    since = state.finite_steps - timing.start
    return (since >= 0) & (since % timing.period == 0)


def applied(timing: Timing, state: TimingState, weights: Array, active: Array) -> Array:
    """The weights of this step: between those from before the start and the method's."""
    before = timing.before(active, weights.dtype)
    steps = jnp.asarray(state.finite_steps - timing.start + 1, weights.dtype)
    share = jnp.clip(steps / jnp.asarray(timing.ramp + 1, weights.dtype), 0, 1)
    return jnp.where(active, (1 - share) * before + share * weights, 0)
