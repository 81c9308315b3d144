"""Taking the lengths out of a Gramian, so that no solver meets their size or spread."""

import jax.numpy as jnp

from jaxmtl._typing import Array


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
    squares = jnp.diagonal(gramian)
    usable = (squares > 0) & jnp.isfinite(squares)
    exponent = jnp.round(jnp.log2(jnp.where(usable, squares, 1)) / 2).astype(jnp.int32)
    # Rows first, then columns: the product of two scales may be out of range where each is not.
    scaled = jnp.ldexp(jnp.ldexp(gramian, -exponent[:, None]), -exponent[None, :])
    return scaled, jnp.ldexp(jnp.ones_like(squares), -exponent)
