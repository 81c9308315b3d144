"""Linear complementarity with a positive semidefinite matrix: the core of projections on cones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._typing import Array

_REFINEMENTS = 3
_BLOCK_TRIES = 3


class Complementarity(NamedTuple):
    """A solution z of the problem, and how well it was reached.

    Attributes:
      z: (T,) the solution.
      residual: max_i |min(z_i, (M z + q)_i)| over max_i |q_i|, 0 where it is exact.
      iterations: linear systems solved.
    """

    z: Array
    residual: Array
    iterations: Array


def complementarity(
    matrix: Array,
    offset: Array,
    support: Array | None = None,
    active: Array | None = None,
    *,
    max_iterations: int = 100,
) -> Complementarity:
    """Find z >= 0 with M z + q >= 0 and z'(M z + q) = 0.

    Block principal pivoting: guess the support of z, solve for it, exchange every index that is on
    the wrong side, and fall back to exchanging one at a time while that does not help, which
    cannot cycle where M is positive definite. Mostly a handful of systems.

    Args:
      matrix: (T, T) symmetric positive semidefinite M, its diagonal of the order of one.
      offset: (T,) q.
      support: (T,) bool, a first guess of where z is above zero; nowhere if None.
      active: (T,) bool, indices outside which z is zero and nothing is asked; all if None.
      max_iterations: systems to solve at most.

    Returns:
      A ``Complementarity``. Not differentiable in reverse mode. A singular M is solved with a ridge
      that refinement takes out again; where there is no solution, the residual says so.

    Raises:
      ValueError: where matrix and offset do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import complementarity
      >>> found = complementarity(jnp.array([[2.0, 0.0], [0.0, 2.0]]), jnp.array([-1.0, 3.0]))
      >>> print(found.z)
      [0.5 0. ]

    References:
      Judice & Pires, `A block principal pivoting algorithm for large-scale strictly monotone
      linear complementarity problems <https://doi.org/10.1016/0305-0548(94)90106-6>`_, 1994
    """
    num = offset.shape[0]
    if matrix.shape != (num, num):
        raise ValueError(
            f"matrix must have shape (T, T) for an offset of shape (T,), but they have"
            f" {matrix.shape} and {offset.shape}."
        )
    active = jnp.ones(num, bool) if active is None else active
    support = jnp.zeros(num, bool) if support is None else support
    size = jnp.max(jnp.abs(offset), where=active, initial=0)
    noise = num * jnp.finfo(offset.dtype).eps * size

    def exchange(carry: Any) -> Any:
        support, _, fewest, tries, iterations, _ = carry
        z = solve_on(support, matrix, -offset)
        wrong = active & jnp.where(support, z < -noise, matrix @ z + offset < -noise)
        count = jnp.sum(wrong, dtype=jnp.int32)
        better = count < fewest
        tries = jnp.where(better, _BLOCK_TRIES, tries - 1)
        last = jnp.arange(num) == jnp.max(jnp.where(wrong, jnp.arange(num), -1))
        flipped = jnp.where(tries > 0, wrong, last)
        return (
            support ^ flipped,
            z,
            jnp.minimum(count, fewest),
            tries,
            iterations + 1,
            count > 0,
        )

    with jax.default_matmul_precision("highest"):
        zero = jnp.zeros((), jnp.int32)
        start = (support & active, jnp.zeros_like(offset), zero + num + 1, zero, zero, zero == 0)
        _, z, _, _, iterations, _ = lax.while_loop(
            lambda carry: carry[5] & (carry[4] < max_iterations), exchange, start
        )
        z = jnp.maximum(z, 0)
        wrong = jnp.where(active, jnp.minimum(z, matrix @ z + offset), 0)
        residual = jnp.max(jnp.abs(wrong)) / jnp.where(size > 0, size, 1)
    return Complementarity(z, residual, iterations)


def solve_on(support: Array, matrix: Array, target: Array) -> Array:
    """Solve M x = b on the indices of a support, x being zero elsewhere.

    Args:
      support: (T,) bool.
      matrix: (T, T) symmetric positive semidefinite, its diagonal of the order of one.
      target: (T,) or (T, N) b.

    Returns:
      x of the shape of b. With a ridge the factor exists for a singular M too, and refinement takes
      the ridge out of the solution again.
    """
    identity = jnp.eye(len(support), dtype=matrix.dtype)
    ridge = len(support) * jnp.finfo(matrix.dtype).eps
    inside = support[:, None] & support[None, :]
    factor = jax.scipy.linalg.cho_factor(jnp.where(inside, matrix + ridge * identity, identity))
    rows = jnp.expand_dims(support, tuple(range(1, target.ndim)))
    x = jnp.zeros_like(target)
    for _ in range(1 + _REFINEMENTS):
        x += jax.scipy.linalg.cho_solve(factor, jnp.where(rows, target - matrix @ x, 0))
    return x
