"""Taking the lengths out of a Gramian, so that no solver meets their size or spread; and 1/x."""

import math

import jax.numpy as jnp
from jax import lax

from jaxmtl._typing import Array
from jaxmtl.solvers._inputs import read_matrix


def equilibrate(gramian: Array) -> tuple[Array, Array]:
    """Scale a Gramian to a diagonal between 1/2 and 2, without rounding: S G S.

    The scales s_i are the reciprocal lengths rounded to powers of two, so that, unlike the cosines,
    the scaled matrix holds exactly what the Gramian held.

    Args:
      gramian: (T, T) inner products.

    Returns:
      The scaled matrix, and (T,) scales s; zero rows and a scale of one for vectors of zero length.

    Raises:
      Nothing.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import equilibrate
      >>> scaled, scale = equilibrate(jnp.array([[16.0, 2.0], [2.0, 1.0]]))
      >>> print(scaled.tolist(), scale)
      [[1.0, 0.5], [0.5, 1.0]] [0.25 1.  ]
    """
    gramian = read_matrix("gramian", gramian)
    scale = reciprocal_length(jnp.diagonal(gramian))
    # Rows first, then columns: the product of two scales may be out of range where each is not.
    return gramian * scale[:, None] * scale[None, :], scale


def reciprocal_length(squares: Array) -> Array:
    """The powers of two nearest to 1/sqrt(x), in ratio; one where x is zero or no number.

    Multiplying by one, unlike a division by the length, rounds nothing; and where x * s * s is of
    size one, s is in range for every x.
    """
    usable = (squares > 0) & jnp.isfinite(squares)
    length = lax.rsqrt(jnp.where(usable, lax.stop_gradient(squares), 1))
    # Rounded to no mantissa, which goes up from 1.5 on, where in ratio it should from sqrt(2) on.
    # The compiler makes far less code of this than of a logarithm or a power.
    return lax.reduce_precision(length * (1.5 / math.sqrt(2)), jnp.finfo(squares.dtype).nexp, 0)


def reciprocal(values: Array) -> Array:
    """1 / |x|, and zero where x is zero or too small for its reciprocal to be a number."""
    size = jnp.abs(values)
    usable = size >= jnp.finfo(values.dtype).tiny
    return jnp.where(usable, 1 / jnp.where(usable, size, 1), 0)
