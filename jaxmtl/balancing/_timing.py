"""When a method is asked for weights: held weights, a start step and a ramp."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmtl._typing import Array
from jaxmtl.balancing._base import Timing
from jaxmtl.balancing._gram import equal_shares


class TimingState(NamedTuple):
    """The step, and what holds until the method is asked again.

    Attributes:
      step: int32, finite steps so far.
      weights: (T,) the method's last weights of each task, zero before the first.
    """

    step: Array
    weights: Array


def init_timing(timing: Timing | None, num_tasks: int | None, dtype: Any) -> Any:
    """Start at step zero; nothing for a method that is asked at every step."""
    if timing is None:
        return ()
    return TimingState(jnp.zeros((), jnp.int32), jnp.zeros(num_tasks, dtype))


def is_due(timing: Timing, state: TimingState) -> Array:
    """Whether the method is asked at this step."""
    since = state.step - timing.start
    return (since >= 0) & (since % timing.period == 0)


def applied(timing: Timing, state: TimingState, weights: Array, active: Array) -> Array:
    """The weights of this step: between those from before the start and the method's."""
    if timing.before is None:
        before = equal_shares(active, weights.dtype)
    else:
        before = jnp.asarray(timing.before, weights.dtype)
    before = before * jnp.asarray(timing.priorities, weights.dtype)
    share = (state.step - timing.start + 1) / jnp.asarray(timing.ramp + 1, weights.dtype)
    share = jnp.clip(share, 0, 1).astype(weights.dtype)
    return jnp.where(active, (1 - share) * before + share * weights, 0)
