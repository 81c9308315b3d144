"""Scaling of a Gramian to vectors of length about one, for the solvers; and 1/x."""

import math

import jax.numpy as jnp
from jax import lax

from jaxmtl._typing import Array
from jaxmtl.solvers._inputs import read_matrix


def equilibrate(gramian: Array) -> tuple[Array, Array]:
    """Scale a Gramian to a diagonal between 1/2 and 2, without rounding: S G S.

    The scales s_i are the reciprocal lengths rounded to powers of two. So, unlike the cosines, the
    scaled matrix holds exactly the information of the Gramian.

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
    # Rows first, then columns: the product of two scales may be out of range if neither is.
    return gramian * scale[:, None] * scale[None, :], scale


def have_length(gramian: Array, scaled: Array, scale: Array) -> Array:
    """Which vectors have a length to go by, (T,) bool: not those of zero length.

    Nor those whose length was lost. The squares of entries below 1e-19 are zero in float32, but
    their products with the entries of longer vectors are not: cosines above one, of a matrix that
    is no Gramian, for which the solver finds nothing.
    """
    # Part of the squares may be lost already where no cosine shows it.
    resolved = jnp.diagonal(gramian) >= 2**16 * jnp.finfo(gramian.dtype).tiny
    squares = jnp.where(resolved, jnp.diagonal(scaled), jnp.inf)
    beyond = scaled * scaled > 1.001 * squares[:, None] * squares[None, :]
    lost = jnp.any(beyond & (scale[:, None] >= scale[None, :]), axis=1)
    return resolved & ~lost


def reciprocal_length(squares: Array) -> Array:
    """The powers of two nearest to 1/sqrt(x), in ratio; one if x is zero or not finite.

    Multiplying by one of them rounds nothing, unlike a division by the length. And x * s * s has
    size one, with s in range for every x.
    """
    usable = (squares > 0) & jnp.isfinite(squares)
    length = lax.rsqrt(jnp.where(usable, lax.stop_gradient(squares), 1))
    # Rounded to no mantissa bits, which rounds up from 1.5 on; in ratio it should be from sqrt(2)
    # on. The compiler makes far less code of this than of a logarithm or a power.
    return lax.reduce_precision(length * (1.5 / math.sqrt(2)), jnp.finfo(squares.dtype).nexp, 0)


def reciprocal(values: Array) -> Array:
    """1 / |x|, and zero if x is zero or too small for a finite reciprocal."""
    size = jnp.abs(values)
    usable = size >= jnp.finfo(values.dtype).tiny
    return jnp.where(usable, 1 / jnp.where(usable, size, 1), 0)
