"""Weights that bring a size of every task to that of one of them, or to a number."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxmtl._checks import check_above
from jaxmtl._typing import Array
from jaxmtl.solvers.scaling import reciprocal

Named = tuple[tuple[str, str], ...]


def read_size(reference: str | float) -> tuple[Callable[[Array, Any], Array], Named]:
    """Read the size that is aimed at, or the name of the task that has it.

    Returns:
      ``(sizes, place) -> weights``, with ``place`` (T,) bool, true at the task of that name where
      it is there, else None; and what a ``Weighting`` says of an argument that is a name. The task
      itself has weight one; where it is not there, or of size zero, all weights are zero.
    """
    if not isinstance(reference, str):
        size = check_above("reference", reference, 0)
        return lambda sizes, place: size * reciprocal(sizes), ()

    def weigh(sizes: Array, place: Any) -> Array:
        size = jnp.sum(jnp.where(place, sizes, 0))
        return jnp.where(place, jnp.sign(size), size * reciprocal(sizes))

    return weigh, (("reference", str(reference)),)
