"""Linear complementarity with a positive semidefinite matrix: the core of projections on cones."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._gram import reciprocal
from jaxmtl._typing import Array

# Well-conditioned matrices of up to 256 rows took 10 at most; singular ones may go round for ever.
_EXCHANGES = 12


class Complementarity(NamedTuple):
    """A solution z of the problem, and how well it was reached.

    Attributes:
      z: (T,) the solution.
      residual: max_i |min(z_i, (M z + q)_i)| over max_i |q_i|, 0 where it is exact.
      iterations: linear systems solved; the last one twice or more, for its digits.
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

    Block principal pivoting: guess the support of z, solve for it, and exchange every index that is
    on the wrong side; mostly a handful of systems. Where that does not settle, or a support has no
    solution, as with a singular M, the slower active-set method of Lawson and Hanson starts afresh:
    z grows from zero by one index at a time, on supports that stay independent, and goes no
    further towards the solution on one than where another index would turn negative. Of two
    indices, all four supports are tried at once.

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

      Lawson & Hanson, `Solving Least Squares Problems <https://doi.org/10.1137/1.9781611971217>`_,
      1974
    """
    num = offset.shape[0]
    if matrix.shape != (num, num):
        raise ValueError(
            f"matrix must have shape (T, T) for an offset of shape (T,), but they have"
            f" {matrix.shape} and {offset.shape}."
        )
    active = jnp.ones(num, bool) if active is None else active
    support = active & (jnp.zeros(num, bool) if support is None else support)

    def residual(z: Array) -> Array:
        wrong = jnp.where(active, jnp.minimum(z, matrix @ z + offset), 0)
        size = jnp.max(jnp.abs(offset), where=active, initial=0)
        return jnp.max(jnp.abs(wrong)) / jnp.where(size > 0, size, 1)

    with jax.default_matmul_precision("highest"):
        if num == 2:
            candidates, iterations = _of_two(matrix, offset, active), jnp.ones((), jnp.int32)
        else:
            candidates, iterations = _search(matrix, offset, support, active, max_iterations)
        residuals = jax.vmap(residual)(candidates)
        best = jnp.argmin(jnp.where(jnp.isnan(residuals), jnp.inf, residuals))
        return Complementarity(candidates[best], residuals[best], iterations)


def _of_two(matrix: Array, offset: Array, active: Array) -> Array:
    """The (4, 2) solutions of two equations on each support, what is below zero cut off."""
    (a, b), (_, d) = jnp.where(active[:, None] & active[None, :], matrix, 0)
    p, q = jnp.where(active, -offset, 0)
    # What is left of d; where that is nothing, one of the other supports will do.
    left = d - b * b * reciprocal(a)
    second = (q - b * p * reciprocal(a)) * reciprocal(jnp.maximum(left, 0))
    first = (p - b * second) * reciprocal(a)
    alone = [[0, 0], [p * reciprocal(a), 0], [0, q * reciprocal(d)]]
    return jnp.maximum(jnp.array([*alone, [first, second]]), 0)


class _Search(NamedTuple):
    """Where the search is, and what has come of the last support.

    Attributes:
      support: (T,) bool, the support to solve for next.
      z: (T,) the solution for the last one; walking, the point reached, nowhere below zero.
      kept: (T,) the z that the exchanges ended with.
      left: what M z + q is short of zero on its support.
      settled: nothing was on the wrong side of the last support.
      walking: by Lawson and Hanson's method, no more by exchanges.
      iterations: systems solved.
      unfinished: another one is wanted.
    """

    support: Array
    z: Array
    kept: Array
    left: Array
    settled: Array
    walking: Array
    iterations: Array
    unfinished: Array


def _search(
    matrix: Array, offset: Array, support: Array, active: Array, max_iterations: int
) -> tuple[Array, Array]:
    """Change a support until nothing is on the wrong side of it.

    Args:
      matrix: (T, T) M.
      offset: (T,) q.
      support: (T,) bool, the first guess.
      active: (T,) bool, the indices that may be above zero.
      max_iterations: systems to solve at most.

    Returns:
      (2, T) candidates for z, by exchanges and by walking; and the number of systems solved.
    """
    num = len(offset)
    indices, sizes = jnp.arange(num), jnp.abs(matrix)
    rounding = num * jnp.finfo(offset.dtype).eps
    noise = rounding * jnp.max(jnp.abs(offset), where=active, initial=0)

    def change(now: _Search) -> _Search:
        # The search needs signs alone. Digits are bought at the end, for the support that it found:
        # solving for it again goes on from its z, once, and then for as long as that gains much.
        start = jnp.where(now.settled, now.z, 0)
        goal = solve_on(now.support, matrix, -offset, start, refinements=1)
        image = matrix @ goal + offset
        left = jnp.max(jnp.where(now.support, jnp.abs(image), 0))
        depth = jnp.where(active, -jnp.where(now.support, goal, image), 0)
        # Sums of large terms of both signs are known no better than this.
        unsure = jnp.where(now.walking & ~now.support, rounding * (sizes @ jnp.abs(goal)), 0)
        wrong = depth > noise + unsure
        settled = ~jnp.any(wrong)
        solved = left <= 16 * noise
        gained = now.settled & (left > noise) & (left < now.left / 2)
        # Walking: as far towards the goal as z stays above zero, without the index that stops it;
        # at the goal, on with the index that gains most.
        falling = wrong & now.support
        room = jnp.where(falling, now.z / jnp.where(falling, now.z - goal, 1), 1)
        share = jnp.min(room)
        leaving = (room <= share) & (share < 1)
        one = jnp.where(share < 1, leaving, wrong & (indices == jnp.argmax(depth)))
        walked = jnp.where(leaving, 0, jnp.maximum(now.z + share * (goal - now.z), 0))
        z = jnp.where(now.walking, walked, goal)
        # What exchanging cannot settle, or what has no solution on its support.
        failed = (now.settled & ~solved & ~gained) | (now.iterations + 1 >= _EXCHANGES)
        afresh = ~now.walking & failed & ~(settled & solved)
        return _Search(
            support=jnp.where(afresh, False, now.support ^ jnp.where(now.walking, one, wrong)),
            z=jnp.where(afresh, 0, z),
            kept=jnp.where(now.walking, now.kept, z),
            left=left,
            settled=settled,
            walking=now.walking | afresh,
            iterations=now.iterations + 1,
            unfinished=afresh | gained | ~(settled & now.settled),
        )

    no, zeros = jnp.zeros((), bool), jnp.zeros_like(offset)
    found = lax.while_loop(
        lambda now: now.unfinished & (now.iterations < max_iterations),
        change,
        _Search(support, zeros, zeros, zeros[0], no, no, jnp.zeros((), jnp.int32), ~no),
    )
    return jnp.maximum(jnp.stack([found.kept, found.z]), 0), found.iterations


def solve_on(
    support: Array, matrix: Array, target: Array, start: Array | None = None, refinements: int = 3
) -> Array:
    """Solve M x = b on the indices of a support, x being zero elsewhere.

    Args:
      support: (T,) bool.
      matrix: (T, T) symmetric positive semidefinite, its diagonal of the order of one.
      target: (T,) or (T, N) b.
      start: a first x, of the shape of b; zero if None.
      refinements: how often the error is solved for and taken out, of the ridge above all.

    Returns:
      x of the shape of b. With a ridge the factor exists for a singular M too, and refinement takes
      the ridge out of the solution again.
    """
    identity = jnp.eye(len(support), dtype=matrix.dtype)
    # Above the rounding of the matrix, or the factor of a singular one may not exist.
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
