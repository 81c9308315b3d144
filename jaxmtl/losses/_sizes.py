"""Weights that scale every task to the size of one task, or to a number."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxmtl._checks import check_above
from jaxmtl._typing import Array
from jaxmtl.solvers.scaling import reciprocal

Named = tuple[tuple[str, str], ...]


def read_size(reference: str | float) -> tuple[Callable[[Array, Any], Array], Named]:
    """Read the target size, or the name of the task that has it.

    Returns:
      ``(sizes, place) -> weights``, with ``place`` a (T,) bool array, true at the named task if it
      is present, else None; and the entry for ``Weighting.named``. The named task has weight one;
      if it is absent, or has size zero, all weights are zero.
    """
    if not isinstance(reference, str):
        size = check_above("reference", reference, 0)
        return lambda sizes, place: size * reciprocal(sizes), ()

    def weigh(sizes: Array, place: Any) -> Array:
        size = jnp.sum(jnp.where(place, sizes, 0))
        return jnp.where(place, jnp.sign(size), size * reciprocal(sizes))

    return weigh, (("reference", str(reference)),)
