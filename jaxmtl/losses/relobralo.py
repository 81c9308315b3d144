"""ReLoBRaLo: more weight to the losses with the least relative progress."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_above, check_num_tasks, check_range
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._random_keys import next_keys, stored, typed_key
from jaxmtl.losses._first_losses import FirstLosses, init_first_losses, observe
from jaxmtl.losses._lower_bounds import excess, read_lower_bounds
from jaxmtl.losses._softmax import softmax


class ReLoBRaLoState(NamedTuple):
    """Weights, random key, and the losses against which progress is measured.

    Attributes:
      weights: (T,) weights of the last step.
      last: (T,) losses, above their bounds, of the last step at which the task was present.
      first: the first losses.
      key_data: the random key of the next step.
    """

    weights: Array
    last: Array
    first: FirstLosses
    key_data: Array


@described
def relobralo(
    num_tasks: int,
    key: Array | int,
    *,
    decay: float = 0.999,
    temperature: float = 1.0,
    expected_saudade: float = 0.9999,
    lower_bounds: TaskVector | None = None,
) -> Balancer:
    """Weigh by relative progress, at random steps measured from the first step.

    With bal(t, t') = T softmax(L(t) / (temperature L(t'))) and rho = 1 with probability
    ``expected_saudade``, else 0, the weights are an average over the steps, starting at one:
      hist(t) = rho w(t-1) + (1 - rho) bal(t, 0),
      w(t) = decay hist(t) + (1 - decay) bal(t, t-1).

    Args:
      num_tasks: T.
      key: a JAX random key (or an int seed) for rho; it is kept in the state and split at every
        step.
      decay: the share of the old weights; alpha in the paper.
      temperature: the higher, the more even the weights.
      expected_saudade: the probability that the old weights are kept, rather than computed again
        from the first step; 1 for no look-back.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; L - b replaces L.
        Zeros if None. Needed for losses that may be negative or cross zero. A loss below its bound
        counts as zero.

    Returns:
      A balancer that reads the losses. Scale: T g on T identical gradients g, since the weights sum
      to T. Degree 1 in the gradients, 0 in the losses, each of which may have its own unit. If the
      earlier loss is zero or missing, the loss counts as unchanged. Absent tasks keep their
      weights, and the sum of the present tasks' weights does not change. The authors' own defaults
      for ``decay``, ``temperature`` and ``expected_saudade`` differ: 0.999, 1 and 1 in their
      training script, 0.999, 0.1 and 0.99 in their tutorial.

    Deviations from the authors' tutorial: the second step is no exception; the tutorial uses
    bal(t, t-1) alone there.

    Raises:
      ValueError: if ``key`` is not a random key, the temperature is not above zero, or ``decay`` or
        ``expected_saudade`` is not from 0 to 1; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.relobralo(2, 0, decay=0.0)
      >>> state = balancer.init(jnp.zeros(2))
      >>> for losses in ([4.0, 4.0], [2.0, 4.0]):
      ...     updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array(losses))
      >>> [f"{weight:.3f}" for weight in updates]  # 2 softmax(1/2, 1)
      ['0.755', '1.245']

    References:
      Bischof & Kraus, `Multi-Objective Loss Balancing for Physics-Informed Deep Learning
      <https://arxiv.org/abs/2110.09813>`_, 2021
    """
    check_num_tasks(num_tasks)
    check_range("decay", decay, 0, 1)
    check_above("temperature", temperature, 0)
    check_range("expected_saudade", expected_saudade, 0, 1)
    key = typed_key(key)
    bounds, _ = read_lower_bounds(lower_bounds, num_tasks)

    def init(dtype: jnp.dtype) -> ReLoBRaLoState:
        first = init_first_losses(num_tasks, None, dtype)
        ones = jnp.ones(num_tasks, dtype)
        return ReLoBRaLoState(ones, jnp.zeros(num_tasks, dtype), first, stored(key))

    def update(given: Given, state: ReLoBRaLoState) -> tuple[Array, ReLoBRaLoState]:
        active, losses = given.active, excess(given.losses, bounds)
        first = observe(state.first, losses, active)
        # From T, not from the sum of the weights, whose rounding errors would add up over the
        # steps.
        total = num_tasks - jnp.sum(jnp.where(active, 0, state.weights))

        def balanced(before: Array) -> Array:
            return total * softmax(_ratio(losses, before) / temperature, active)

        next_key, step_key = next_keys(state.key_data, key)
        # In float32 for every default type, so that the same key gives the same look-backs.
        keep = jax.random.uniform(step_key, (), jnp.float32) < expected_saudade
        history = jnp.where(keep, state.weights, balanced(first.mean))
        weights = decay * history + (1 - decay) * balanced(state.last)
        weights = jnp.where(active, weights, state.weights)
        last = jnp.where(active, losses, state.last)
        return weights, ReLoBRaLoState(weights, last, first, next_key)

    names = common_names(lower_bounds=lower_bounds)
    return make_balancer(Weighting(init, update, frozenset({"losses"}), num_tasks, names))


def _ratio(losses: Array, before: Array) -> Array:
    """Losses relative to earlier ones; one if the earlier loss is zero or missing."""
    limits = jnp.finfo(losses.dtype)
    usable = before >= limits.tiny
    ratio = jnp.where(usable, losses / jnp.where(usable, before, 1), 1)
    # An earlier loss of 1e-35 would make the ratio infinite, and the softmax NaN.
    return jnp.minimum(ratio, jnp.sqrt(limits.max))
