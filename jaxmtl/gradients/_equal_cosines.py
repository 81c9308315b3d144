"""The direction that has the same cosine with every gradient."""

import jax.numpy as jnp

from jaxmtl._gram import reciprocal
from jaxmtl._typing import Array
from jaxmtl.solvers.pseudo_solve import pseudo_solve
from jaxmtl.solvers.scaling import equilibrate


def equal_cosines(gramian: Array, ratios: Array | None = None) -> tuple[Array, Array]:
    """Solve D^-1 C^+ 1, or D^-1 C^+ r where the cosines are to be in the ratios r.

    Args:
      gramian: (T, T) inner products; zero rows for gradients that take no part.
      ratios: (T,) r; ones if None.

    Returns:
      (T,) weights of that direction, and (T,) products (G w)_i: where the gradients are
      independent, the norms.
    """
    scaled, scale = equilibrate(gramian)
    length = jnp.sqrt(jnp.diagonal(scaled))
    per_length = reciprocal(length)
    cosines = scaled * per_length[:, None] * per_length[None, :]
    wanted = jnp.sign(length) if ratios is None else jnp.sign(length) * ratios
    x = pseudo_solve(cosines, wanted)
    # Gradients that cancel have no such direction, and what is left of one is rounding.
    noise = 8 * len(wanted) * jnp.finfo(x.dtype).eps * (wanted @ wanted)
    x = jnp.where(wanted @ x > noise, x, 0)
    return x * per_length * scale, length / scale * (cosines @ x)
