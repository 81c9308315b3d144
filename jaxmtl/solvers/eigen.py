"""Eigenvalues of Gramians, with small ones as exact as large ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._typing import Array
from jaxmtl.solvers._inputs import read_matrix
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.scaling import reciprocal_length

MAX_SWEEPS = 12
# Products of larger matrices do not fit the registers of a block: on an H100, XLA's loops take as
# long for 32 tasks and a third of the time for 64.
MOST_IN_ONE_LAUNCH = 32


class Eigen(NamedTuple):
    """An eigendecomposition M = V diag(values) V'.

    Attributes:
      values: (T,) eigenvalues, in no particular order; exactly zero if no larger than the
        rounding errors of the entries from which they were computed.
      vectors: (T, T), an eigenvector in each column.
      residual: largest off-diagonal entry of V'MV, in units of those rounding errors: of the
        order of one.
      iterations: number of sweeps over all pairs.
    """

    values: Array
    vectors: Array
    residual: Array
    iterations: Array


def eigen(matrix: Array) -> Eigen:
    """Diagonalise a Gramian by Jacobi rotations.

    If vectors differ in length by 10^3, the eigenvalues of their Gramian differ by 10^6. The small
    eigenvalues that the usual algorithms return are then rounding errors of the large ones.
    Jacobi's rotations, which start from their result, find each eigenvalue to an accuracy relative
    to itself, as far as the cosines of the vectors determine it.

    Args:
      matrix: (T, T) symmetric positive semidefinite.

    Returns:
      An ``Eigen``. Not differentiable in reverse mode: it loops until it has converged.

    Raises:
      ValueError: if ``matrix`` is not square.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import eigen
      >>> found = eigen(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
      >>> print(jnp.sort(found.values).round(4))
      [1. 3.]

    References:
      Demmel & Veselic, `Jacobi's Method is More Accurate than QR
      <https://doi.org/10.1137/0613074>`_, 1992
    """
    matrix = read_matrix("matrix", matrix)
    # By a power of two, which rounds nothing; squares of the entries are then in range too.
    scale = reciprocal_length(jnp.max(jnp.abs(jnp.diagonal(matrix)), initial=0))
    matrix = matrix * scale * scale
    jacobi = _in_one_launch if len(matrix) <= MOST_IN_ONE_LAUNCH else _in_loops
    return jacobi(matrix, jnp.linalg.eigh(matrix)[1], scale)


def _jacobi(matrix: Array, usual: Array, scale: Array) -> Eigen:
    """Rotate V'MV to a diagonal, from the usual vectors on; values are divided by scale squared."""
    num, eps = matrix.shape[0], jnp.finfo(matrix.dtype).eps
    rounds = jnp.asarray(_rounds(num))
    players = jnp.arange(num, dtype=jnp.int32)
    identity = players[:, None] == players[None, :]
    upper = players[:, None] < players[None, :]
    lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 0))
    # The usual vectors are a good start, and often final: only their small values are rounding
    # error. They are no start if their own errors, times the longest length, reach the shortest.
    longest = jnp.max(lengths, initial=0)
    shortest = jnp.min(jnp.where(lengths > 0, lengths, longest), initial=jnp.inf)
    is_start = shortest > jnp.sqrt(eps) * longest
    start = jnp.where(is_start, usual, identity.astype(matrix.dtype))
    errors = jnp.where(is_start, eps, 0)

    def product(left: Array, right: Array) -> Array:
        return jnp.matmul(left, right, precision="highest")

    def noise(vectors: Array) -> Array:
        """Square roots of the rounding errors of v'Mv: the lengths that cancelled in it."""
        return jnp.sqrt(eps) * product(lengths, jnp.abs(vectors) + errors)

    def rotate(index: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        """Zero the entries between disjoint pairs, all at once."""
        m, vectors = state
        partners = rounds[index]
        meet = partners[:, None] == players[None, :]

        def of_partner(values: Array) -> Array:
            return jnp.sum(jnp.where(meet, values[None, :], 0), axis=1)

        level, here = noise(vectors), jnp.diagonal(m)
        # From above the diagonal for both of a pair: below it, rounding gives another number.
        between = jnp.where(meet & upper, m, 0)
        off = jnp.sum(between, axis=0) + jnp.sum(between, axis=1)
        # The last sweep makes the rest much smaller than the noise, at no cost in sweeps.
        wanted = jnp.abs(off) > 0.01 * level * of_partner(level)
        ratio = (of_partner(here) - here) / jnp.where(wanted, 2 * off, 1)
        second = (ratio < 0) | ((ratio == 0) & (partners < players))
        size = jnp.abs(ratio)
        t = jnp.where(wanted, 1 / (size + jnp.hypot(size, jnp.ones_like(size))), 0)
        t = jnp.where(second, -t, t)
        c = jax.lax.rsqrt(1 + t * t)
        rotation = jnp.where(identity, c[:, None], jnp.where(meet, (c * t)[:, None], 0))
        return product(product(rotation.T, m), rotation), product(vectors, rotation)

    def residual(m: Array, vectors: Array) -> Array:
        level = noise(vectors)
        off = jnp.where(identity, 0, jnp.abs(m))
        allowed = level[:, None] * level[None, :]
        return jnp.max(jnp.where(off > 0, off / jnp.where(allowed > 0, allowed, 1), 0))

    def sweep(state: Any) -> Any:
        m, vectors, left, _, sweeps = state
        m, vectors = jax.lax.fori_loop(0, len(rounds), rotate, (m, vectors))
        return m, vectors, residual(m, vectors), left, sweeps + 1

    def unfinished(state: Any) -> Array:
        _, _, left, before, sweeps = state
        # Convergence is quadratic in the end, down to the noise, where a sweep gains nothing more.
        at_rest = (left <= 0.1) | ((left < 4) & (left > before / 2))
        return ~at_rest & (sweeps < MAX_SWEEPS)

    m = product(start.T, product(matrix, start))
    left = residual(m, start)
    begin = (m, start, left, jnp.full_like(left, jnp.inf), jnp.zeros((), jnp.int32))
    m, vectors, left, _, sweeps = jax.lax.while_loop(unfinished, sweep, begin)
    # Each rotation stretches by a rounding error of its root, on a GPU always the same way.
    stretched = jnp.sum(vectors * vectors, axis=0)
    vectors, values = vectors / jnp.sqrt(stretched)[None], jnp.diagonal(m) / stretched
    values = jnp.where(values > num * noise(vectors) ** 2, values, 0)
    return Eigen(values / scale / scale, vectors, left, sweeps)


def _rounds(num: int) -> np.ndarray:
    """A tournament: every pair meets once, in rounds of disjoint pairs; (rounds, T) partners.

    With an odd number of players one of them has no partner, and is its own partner.
    """
    players = np.arange(num + num % 2)
    rounds = []
    for _ in range(len(players) - 1):
        partners = np.empty_like(players)
        partners[players] = players[::-1]
        rounds.append(np.where(partners < num, partners, np.arange(len(partners)))[:num])
        players = np.concatenate([players[:1], players[-1:], players[1:-1]])
    return np.array(rounds, np.int32).reshape(len(rounds), num)


_in_one_launch, _in_loops = one_launch(_jacobi), jax.jit(_jacobi)
