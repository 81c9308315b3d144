"""Linear complementarity with a positive semidefinite matrix: the core of projections on cones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._gram import reciprocal
from jaxmtl._typing import Array

_BLOCK_TRIES = 3
# Regular matrices of up to 64 rows took 8 rounds at most; singular ones may go round for ever.
_BLOCK_ROUNDS = 12


class Complementarity(NamedTuple):
    """A solution z of the problem, and how well it was reached.

    Attributes:
      z: (T,) the solution.
      residual: max_i |min(z_i, (M z + q)_i)| over max_i |q_i|, 0 where it is exact.
      iterations: linear systems solved in the search for its support.
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
    cannot cycle where M is positive definite. Mostly a handful of systems. Where M is singular and
    it does cycle, the slower active-set method of Lawson and Hanson, whose supports stay
    independent, starts afresh. Of two indices, all four supports are tried at once.

    Args:
      matrix: (T, T) symmetric positive semidefinite M, its diagonal of the order of one.
      offset: (T,) q.
      support: (T,) bool, a first guess of where z is above zero; nowhere if None.
      active: (T,) bool, indices outside which z is zero and nothing is asked; all if None.
      max_iterations: systems to solve at most, by either method.

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
    support = jnp.zeros(num, bool) if support is None else support
    size = jnp.max(jnp.abs(offset), where=active, initial=0)
    noise = num * jnp.finfo(offset.dtype).eps * size

    def attempt(support: Array) -> tuple[Array, Array]:
        z = solve_on(support, matrix, -offset, refinements=1)
        return z, active & jnp.where(support, z < -noise, matrix @ z + offset < -noise)

    def residual(z: Array) -> Array:
        wrong = jnp.where(active, jnp.minimum(z, matrix @ z + offset), 0)
        return jnp.max(jnp.abs(wrong)) / jnp.where(size > 0, size, 1)

    def or_better(z: Array, left: Array, other: Array) -> tuple[Array, Array]:
        others = residual(other)
        return jnp.where(others < left, other, z), jnp.where(others < left, others, left)

    with jax.default_matmul_precision("highest"):
        if num == 2:
            candidates = _of_two(matrix, offset, active)
            residuals = jax.vmap(residual)(candidates)
            best = jnp.argmin(residuals)
            return Complementarity(candidates[best], residuals[best], jnp.ones((), jnp.int32))
        z, iterations = pivot(support & active, attempt, min(max_iterations, _BLOCK_ROUNDS))
        z = jnp.maximum(z, 0)
        left = residual(z)
        failed = left > 16 * num * jnp.finfo(offset.dtype).eps
        other, more = _lawson_hanson(matrix, offset, active, noise, failed, max_iterations)
        z, left = or_better(z, left, other)
        # The search needs signs alone; digits are bought once, for the support that it found.
        z, left = or_better(z, left, jnp.maximum(solve_on(z > 0, matrix, -offset), 0))
    return Complementarity(z, left, iterations + more)


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


def _lawson_hanson(
    matrix: Array, offset: Array, active: Array, noise: Array, wanted: Array, max_iterations: int
) -> tuple[Array, Array]:
    """Let z grow from zero by one index at a time, and stop short where another turns negative.

    Args:
      matrix: (T, T) M.
      offset: (T,) q.
      active: (T,) bool, the indices that may be above zero.
      noise: how far below zero Mz + q may be.
      wanted: bool, whether to do anything at all.
      max_iterations: systems to solve at most.

    Returns:
      (T,) z, and the number of systems solved.
    """
    indices, rounding = jnp.arange(len(offset)), len(offset) * jnp.finfo(offset.dtype).eps

    def step(carry: Any) -> Any:
        z, support, barred, iterations, _ = carry
        goal = solve_on(support, matrix, -offset, refinements=1)
        blocked = support & (goal <= 0)
        stuck = jnp.any(blocked)
        room = jnp.where(blocked, z / jnp.where(blocked, z - goal, 1), 1)
        share = jnp.where(stuck, jnp.min(jnp.where(blocked, room, 1)), 1)
        leaving = blocked & (room <= share)
        new = jnp.where(support & ~leaving, jnp.maximum(z + share * (goal - z), 0), 0)
        # What left at once would come back at once: not before something else has moved.
        moved = jnp.max(jnp.abs(new - z)) > rounding * jnp.max(new)
        z, barred = new, jnp.where(moved, False, barred) | (leaving & ~moved)
        fall = jnp.where(active & ~support & ~barred, -(matrix @ z + offset), 0)
        # Sums of large terms of both signs are known no better than this.
        unsure = noise + rounding * (jnp.abs(matrix) @ z)
        entering = (indices == jnp.argmax(fall)) & (fall > unsure) & ~stuck
        support = (support & ~leaving) | entering
        return z, support, barred, iterations + 1, stuck | jnp.any(entering)

    nowhere, zero = jnp.zeros(len(offset), bool), jnp.zeros((), jnp.int32)
    z, _, _, iterations, _ = lax.while_loop(
        lambda carry: carry[4] & (carry[3] < max_iterations),
        step,
        (jnp.zeros_like(offset), nowhere, nowhere, zero, wanted),
    )
    return z, iterations


def pivot(
    support: Array, attempt: Callable[[Array], tuple[Any, Array]], max_iterations: int
) -> tuple[Any, Array]:
    """Change a support until nothing is on the wrong side of it.

    Args:
      support: (T,) bool, the first guess.
      attempt: ``support -> (solution, wrong)``, the solution for a support and the (T,) indices on
        the wrong side of it: all of them are exchanged, or one while that does not help.
      max_iterations: attempts at most.

    Returns:
      The last solution, and the number of attempts.
    """
    indices = jnp.arange(len(support))
    zero = jnp.zeros((), jnp.int32)

    def exchange(carry: Any) -> Any:
        support, _, fewest, tries, iterations, _ = carry
        solution, wrong = attempt(support)
        count = jnp.sum(wrong, dtype=jnp.int32)
        tries = jnp.where(count < fewest, _BLOCK_TRIES, tries - 1)
        last = indices == jnp.max(jnp.where(wrong, indices, -1))
        support ^= jnp.where(tries > 0, wrong, last)
        return support, solution, jnp.minimum(count, fewest), tries, iterations + 1, count > 0

    nothing = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(attempt, support)[0]
    )
    _, solution, _, _, iterations, _ = lax.while_loop(
        lambda carry: carry[5] & (carry[4] < max_iterations),
        exchange,
        (support, nothing, zero + len(support) + 1, zero, zero, zero == 0),
    )
    return solution, iterations


def solve_on(support: Array, matrix: Array, target: Array, refinements: int = 3) -> Array:
    """Solve M x = b on the indices of a support, x being zero elsewhere.

    Args:
      support: (T,) bool.
      matrix: (T, T) symmetric positive semidefinite, its diagonal of the order of one.
      target: (T,) or (T, N) b.
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
    factor = jax.scipy.linalg.cho_factor(jnp.where(inside, matrix + ridge * identity, identity))
    rows = jnp.expand_dims(support, tuple(range(1, target.ndim)))
    x = jnp.zeros_like(target)
    for _ in range(1 + refinements):
        x += jax.scipy.linalg.cho_solve(factor, jnp.where(rows, target - matrix @ x, 0))
    return x
