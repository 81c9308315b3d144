"""Least-norm solutions of symmetric systems that may be singular."""

import jax.numpy as jnp

from jaxmtl._typing import Array
from jaxmtl.solvers._inputs import read_matrix, read_vector
from jaxmtl.solvers._one_launch import one_launch


def pseudo_solve(matrix: Array, offset: Array) -> Array:
    """Solve M x = b for the x of least norm, with M^+ from the eigenvalues above a rank rule.

    Args:
      matrix: (T, T) symmetric positive semidefinite M.
      offset: (T,) b.

    Returns:
      (T,) M^+ b, refined once. Eigenvalues up to lambda_max T eps count as zero.

    Raises:
      ValueError: if the shapes do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import pseudo_solve
      >>> print(pseudo_solve(jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.array([1.0, 1.0])))
      [0.5 0. ]
    """
    matrix, offset = read_matrix("matrix", matrix), read_vector("offset", offset)
    num = offset.shape[0]
    if matrix.shape != (num, num):
        raise ValueError(
            f"matrix must have shape (T, T) for an offset of shape (T,), but they have"
            f" {matrix.shape} and {offset.shape}."
        )
    values, vectors = jnp.linalg.eigh(matrix)
    return _solve(values, vectors, matrix, offset)


@one_launch
def _solve(values: Array, vectors: Array, matrix: Array, offset: Array) -> Array:
    cut = jnp.max(values) * len(values) * jnp.finfo(matrix.dtype).eps
    inverse = jnp.where(values > cut, 1 / jnp.where(values > cut, values, 1), 0)

    def apply(b: Array) -> Array:
        return jnp.matmul(
            vectors, inverse * jnp.matmul(vectors.T, b, precision="highest"), precision="highest"
        )

    x = apply(offset)
    return x + apply(offset - jnp.matmul(matrix, x, precision="highest"))
