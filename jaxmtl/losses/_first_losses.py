"""The losses at the start of training, against which several methods measure progress."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmtl._typing import Array
from jaxmtl.balancing._gram import count_present


class FirstLosses(NamedTuple):
    """The mean loss of each task over the first batches in which it was present.

    Attributes:
      mean: (T,) means so far.
      batches: (T,) int32, the number of batches in each mean.
    """

    mean: Array
    batches: Array


def init_first_losses(num_tasks: int, values: Array | None, dtype: Any) -> FirstLosses:
    """Start without any loss, or with values known beforehand."""
    if values is None:
        return FirstLosses(jnp.zeros(num_tasks, dtype), jnp.zeros(num_tasks, jnp.int32))
    return FirstLosses(
        values.astype(dtype), jnp.full(num_tasks, jnp.iinfo(jnp.int32).max, jnp.int32)
    )


def observe(first: FirstLosses, losses: Array, active: Array, num_batches: int = 1) -> FirstLosses:
    """Add the losses of the tasks present to every mean of fewer than ``num_batches`` batches."""
    counts = active & (first.batches < num_batches)
    batches = first.batches + counts.astype(first.batches.dtype)
    share = 1 / jnp.maximum(batches, 1).astype(losses.dtype)
    mean = first.mean + share * (losses - first.mean)
    return FirstLosses(jnp.where(counts, mean, first.mean), batches)


def relative_losses(first: FirstLosses, losses: Array, active: Array) -> Array:
    """The training rates r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0)) over the tasks present.

    The losses are measured above their bounds, and are not negative. Absent tasks have a rate of
    one. A first loss of exactly zero counts as unchanged, L/L(0) = 1.
    """
    zero = first.mean == 0
    ratio = jnp.where(zero, 1, losses / jnp.where(zero, 1, first.mean))
    # A first loss of 1e-35 would make the ratio, or the sum of ratios, infinite.
    ratio = jnp.minimum(ratio, jnp.sqrt(jnp.finfo(ratio.dtype).max))
    mean = jnp.sum(jnp.where(active, ratio, 0)) / count_present(active, ratio.dtype)
    return jnp.where(active & (mean > 0), ratio / jnp.where(mean > 0, mean, 1), 1)
