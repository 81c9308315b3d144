"""The direction that has the same cosine with every gradient."""

import jax.numpy as jnp

from jaxmtl._gram import reciprocal
from jaxmtl._typing import Array
from jaxmtl.solvers.pseudo_solve import pseudo_solve
from jaxmtl.solvers.scaling import equilibrate


def equal_cosines(gramian: Array) -> tuple[Array, Array]:
    """Solve D^-1 C^+ 1.

    Args:
      gramian: (T, T) inner products; zero rows for gradients that take no part.

    Returns:
      (T,) weights of that direction, and (T,) products (G w)_i: where the gradients are
      independent, the norms.
    """
    scaled, scale = equilibrate(gramian)
    length = jnp.sqrt(jnp.diagonal(scaled))
    per_length = reciprocal(length)
    cosines = scaled * per_length[:, None] * per_length[None, :]
    x = pseudo_solve(cosines, jnp.sign(length))
    return x * per_length * scale, length / scale * (cosines @ x)
