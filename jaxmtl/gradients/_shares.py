"""Weights that scale every task to a common size, averaged over the steps."""

import jax.numpy as jnp

from jaxmtl._typing import Array
from jaxmtl.balancing._gram import count_present


def average_shares(
    weights: Array,
    sizes: Array,
    active: Array,
    decay: float | Array,
    reference: Array | None = None,
) -> Array:
    """w_i <- decay w_i + (1 - decay) a / a_i for the tasks present whose a_i is not zero.

    Args:
      weights: (T,) weights so far.
      sizes: (T,) sizes a_i.
      active: (T,) bool.
      decay: the share of the old weights.
      reference: (T,) bool, the one task whose size is a and whose weight stays; if None, a is the
        mean of a_j over the tasks present.
    """
    aimed_at = active if reference is None else active & reference
    moving = active & jnp.any(aimed_at)
    if reference is not None:
        moving &= ~reference
    common = jnp.sum(jnp.where(aimed_at, sizes, 0)) / count_present(aimed_at, sizes.dtype)
    # A size of zero gives no weight.
    usable = moving & (sizes > 0) & (common > 0)
    new = common / jnp.where(usable, sizes, 1)
    share = jnp.asarray(decay, weights.dtype)
    return jnp.where(usable, share * weights + (1 - share) * new, weights)
