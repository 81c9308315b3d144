"""Linear complementarity with a positive semidefinite matrix, for projections on cones."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import check_count
from jaxmtl._typing import Array
from jaxmtl.solvers._inputs import read_mask, read_matrix, read_vector
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.scaling import reciprocal


class Complementarity(NamedTuple):
    """A solution z of the problem, and its accuracy.

    Attributes:
      z: (T,) the solution.
      residual: max_i |min(z_i, (M z + q)_i)| over max_i |q_i|, 0 if it is exact.
      iterations: number of linear systems solved, including those for the last digits.
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

    This z is the minimum of f(z) = z'Mz/2 + q'z over z >= 0, found by a projected Newton method.
    Each step solves for the support of z. If the solution is nowhere below zero, z moves there, and
    indices along which f falls join the support. Otherwise z moves to the best of three points: the
    solution, cut off at zero; half the way to it, cut off at zero; and the point on the way to it
    at which the first index reaches zero, which is the step of Lawson and Hanson. The first two
    change many indices at once, and usually a handful of systems is enough. The third never raises
    f, and removes an index from the support, so that a singular M does not cause an endless cycle.
    For two indices, all four supports are tried at once.

    Args:
      matrix: (T, T) symmetric positive semidefinite M, its diagonal of the order of one.
      offset: (T,) q.
      support: (T,) bool, a first guess of where z is above zero; where q is below zero if None.
      active: (T,) bool; other indices have z zero and no condition. All if None.
      max_iterations: maximum number of systems to solve.

    Returns:
      A ``Complementarity``. Not differentiable in reverse mode. A singular M is solved with a ridge
      that refinement removes again; if there is no solution, the residual shows it.

    Raises:
      ValueError: if matrix and offset do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import complementarity
      >>> found = complementarity(jnp.array([[2.0, 0.0], [0.0, 2.0]]), jnp.array([-1.0, 3.0]))
      >>> print(found.z)
      [0.5 0. ]

    References:
      Bertsekas, `Projected Newton Methods for Optimization Problems with Simple Constraints
      <https://doi.org/10.1137/0320018>`_, 1982

      Lawson & Hanson, `Solving Least Squares Problems <https://doi.org/10.1137/1.9781611971217>`_,
      1974
    """
    matrix, offset = read_matrix("matrix", matrix), read_vector("offset", offset)
    max_iterations = check_count("max_iterations", max_iterations)
    num = offset.shape[0]
    if matrix.shape != (num, num):
        raise ValueError(
            f"matrix must have shape (T, T) for an offset of shape (T,), but they have"
            f" {matrix.shape} and {offset.shape}."
        )
    active = read_mask("active", active, num)
    guess = active & (offset < 0 if support is None else read_mask("support", support, num))
    size = jnp.max(jnp.abs(offset), where=active, initial=0)
    rounding = jnp.finfo(offset.dtype).eps * size
    with jax.default_matmul_precision("highest"):
        if num == 2:
            z, error, iterations = *_of_two(matrix, offset, active), jnp.ones((), jnp.int32)
        else:
            z, error, iterations = _search(matrix, offset, guess, active, rounding, max_iterations)
    return Complementarity(z, error / jnp.where(size > 0, size, 1), iterations)


def violation(z: Array, slopes: Array, active: Array) -> Array:
    """max_i |min(z_i, slope_i)| over the active indices; zero if the two are complementary."""
    return jnp.max(jnp.abs(jnp.minimum(z, slopes)), where=active, initial=0)


def _of_two(matrix: Array, offset: Array, active: Array) -> tuple[Array, Array]:
    """The best of the solutions of two equations on each of the four supports, and its error."""
    (a, b), (_, d) = jnp.where(active[:, None] & active[None, :], matrix, 0)
    p, q = jnp.where(active, -offset, 0)
    # The remainder of d; if it is zero, one of the other supports gives the solution.
    left = d - b * b * reciprocal(a)
    second = (q - b * p * reciprocal(a)) * reciprocal(jnp.maximum(left, 0))
    first = (p - b * second) * reciprocal(a)
    alone = [[0, 0], [p * reciprocal(a), 0], [0, q * reciprocal(d)]]
    points = jnp.maximum(jnp.array([*alone, [first, second]]), 0)
    errors = jax.vmap(lambda z: violation(z, matrix @ z + offset, active))(points)
    best = jnp.argmin(jnp.where(jnp.isnan(errors), jnp.inf, errors))
    return points[best], errors[best]


class _Search(NamedTuple):
    """The state of the search.

    Attributes:
      support: (T,) bool, the support to solve for next; z is zero elsewhere.
      z: (T,) the point reached, nowhere below zero.
      error: how far it is from a solution.
      iterations: number of systems solved.
      unfinished: whether another step is needed.
    """

    support: Array
    z: Array
    error: Array
    iterations: Array
    unfinished: Array


@one_launch
def _search(
    matrix: Array,
    offset: Array,
    guess: Array,
    active: Array,
    rounding: Array,
    max_iterations: int,
) -> tuple[Array, Array, Array]:
    """Run the projected Newton method.

    Args:
      matrix: (T, T) M.
      offset: (T,) q.
      guess: (T,) bool, the initial support.
      active: (T,) bool, the indices that may be above zero.
      rounding: an error that counts as zero.
      max_iterations: maximum number of systems to solve.

    Returns:
      (T,) z, its error, and the number of systems solved.
    """

    def step(now: _Search) -> _Search:
        # Start from z, so that solving for the same support again is refinement.
        goal = solve_on(now.support, matrix, -offset, now.z, refinements=1)
        falling = now.support & (goal < 0)
        room = jnp.where(falling, now.z / jnp.where(falling, now.z - goal, 1), 1)
        share = jnp.min(room)
        stopped = falling & (room <= share)
        points = jnp.stack([now.z + part * (goal - now.z) for part in (1, 0.5, share)])
        # Set the index that stopped the third point to exactly zero; harmless for the others.
        points = jnp.where(stopped[None], 0, jnp.maximum(points, 0))
        # The rise of f, from the step: a difference of two values of f would be rounding error.
        steps = points - now.z[None]
        rises = steps @ (matrix @ now.z + offset) + jnp.sum(steps * (steps @ matrix), axis=1) / 2
        best = jnp.argmin(rises)
        z = points[best]
        slopes = matrix @ z + offset
        wanted = active & ((z > 0) | (slopes < -len(offset) * rounding))
        shrinks = jnp.any(falling) & (best == 2)
        support = jnp.where(shrinks, now.support & ~stopped, wanted)
        error = violation(z, slopes, active)
        # With the support found, its digits are worth one system each while they come fast.
        settled = jnp.all(support == now.support) & ~jnp.any(falling) & (error > now.error / 2)
        return _Search(support, z, error, now.iterations + 1, (error > rounding) & ~settled)

    zeros = jnp.zeros_like(offset)
    start = _Search(guess, zeros, zeros[0] + jnp.inf, jnp.zeros((), jnp.int32), jnp.array(True))
    found = lax.while_loop(
        lambda now: now.unfinished & (now.iterations < max_iterations), step, start
    )
    return found.z, found.error, found.iterations


def solve_on(
    support: Array, matrix: Array, target: Array, start: Array | None = None, refinements: int = 3
) -> Array:
    """Solve M x = b on the indices of a support, with x zero elsewhere.

    Args:
      support: (T,) bool.
      matrix: (T, T) symmetric positive semidefinite, its diagonal of the order of one.
      target: (T,) or (T, N) b.
      start: a first x, of the shape of b; zero if None.
      refinements: how often to solve for the error, mainly that of the ridge, and remove it.

    Returns:
      x of the shape of b. With a ridge the factor exists for a singular M too, and refinement
      removes the effect of the ridge from the solution.
    """
    identity = jnp.eye(len(support), dtype=matrix.dtype)
    # Larger than the rounding error of the matrix; otherwise a singular one may have no factor.
    size = jnp.maximum(jnp.max(jnp.diagonal(matrix)), 1)
    ridge = 4 * len(support) * jnp.finfo(matrix.dtype).eps * size
    inside = support[:, None] & support[None, :]
    system = jnp.where(inside, matrix + ridge * identity, identity)
    factor = jax.scipy.linalg.cho_factor(system, lower=True)
    rows = jnp.expand_dims(support, tuple(range(1, target.ndim)))
    x = jnp.zeros_like(target) if start is None else jnp.where(rows, start, 0)
    for _ in range(1 + refinements):
        x += jax.scipy.linalg.cho_solve(factor, jnp.where(rows, target - matrix @ x, 0))
    return x
