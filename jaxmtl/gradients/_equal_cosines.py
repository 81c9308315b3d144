"""The direction that has the same cosine with every gradient."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._typing import Array
from jaxmtl.solvers.pseudo_solve import pseudo_solve
from jaxmtl.solvers.scaling import equilibrate, reciprocal


class EqualCosines(NamedTuple):
    """Weights of the direction with equal cosines, with its products and its squared length.

    Attributes:
      weights: (T,) w.
      products: (T,) inner products (G w)_i; if the gradients are independent, the norms.
      square: w' G w, the squared length of that direction.
    """

    weights: Array
    products: Array
    square: Array


def equal_cosines(gramian: Array, ratios: Array | None = None) -> EqualCosines:
    """Solve D^-1 C^+ 1, or D^-1 C^+ r if the cosines should have the ratios r.

    Args:
      gramian: (T, T) inner products; zero rows for gradients that take no part.
      ratios: (T,) r; ones if None.

    Returns:
      An ``EqualCosines``.
    """
    scaled, scale = equilibrate(gramian)
    length = jnp.sqrt(jnp.diagonal(scaled))
    per_length = reciprocal(length)
    cosines = scaled * per_length[:, None] * per_length[None, :]
    wanted = jnp.sign(length) if ratios is None else jnp.sign(length) * ratios
    x = pseudo_solve(cosines, wanted)
    # Gradients that cancel have no such direction; what remains is rounding error.
    few_roundings = 8 * len(wanted) * jnp.finfo(x.dtype).eps
    x = jnp.where(wanted @ x > few_roundings * (wanted @ wanted), x, 0)
    # C x is a sum of large numbers that cancel: a difference from the target within its rounding
    # error counts as none. And x' C x is x' r also if C is singular.
    reached = cosines @ x
    is_reached = jnp.abs(reached - wanted) <= few_roundings * (jnp.abs(cosines) @ jnp.abs(x))
    reached = jnp.where(is_reached, wanted, reached)
    return EqualCosines(x * per_length * scale, length / scale * reached, wanted @ x)
