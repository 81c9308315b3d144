"""The point near a mean with the largest smallest inner product with the vectors."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import check_at_least, check_count
from jaxmtl._typing import Array
from jaxmtl.solvers._inputs import read_mask, read_matrix, read_vector
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.complementarity import Complementarity, complementarity, solve_on, violation
from jaxmtl.solvers.scaling import equilibrate, have_length

# How many exchanges of many indices at a time may fail to reduce the number of wrong ones.
_BLOCK_TRIES = 3


def worst_case(
    gramian: Array,
    shares: Array,
    radius: float | Array,
    active: Array | None = None,
    *,
    max_iterations: int = 100,
) -> Complementarity:
    """Find the combination near J'p whose smallest inner product with a vector is largest.

    max_d min_i <g_i, d> with ||d - J'p|| <= radius ||J'p||. With a level t, d = J'(p + u) is the
    point nearest to J'p with <g_i, d> >= t: u >= 0, G(p + u) >= t, complementary. On a support of
    u everything is linear in t, and the radius gives t as the root of a quadratic; indices on the
    wrong side change the support. If this cycles, as it may on dependent vectors, t is found
    between bounds, at each of which a complementarity problem gives the support.

    Args:
      gramian: (T, T) inner products of the vectors.
      shares: (T,) p.
      radius: the radius of the ball around J'p, in units of its length.
      active: (T,) bool, which vectors take part; all if None. Zero vectors take no part.
      max_iterations: maximum number of levels to try between the bounds.

    Returns:
      A ``Complementarity`` whose ``z`` holds u >= 0, so that d = J'(p + u). If vectors cancel, so
      that no d has a positive inner product with all, the level is zero if the radius reaches it,
      and d is the point nearest to J'p that conflicts with none. The same holds if the shortest
      convex combination of the directions cannot be distinguished from zero: below a length of
      about 2 sqrt(T eps), 1e-3 sqrt(T) in float32. Not differentiable in reverse mode.

    Raises:
      ValueError: if the shapes do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import worst_case
      >>> vectors = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> u = worst_case(vectors @ vectors.T, jnp.array([0.5, 0.5]), 0.1).z
      >>> print(u.round(4))  # towards the shorter vector
      [0.1581 0.    ]

    References:
      Liu et al., `Conflict-Averse Gradient Descent for Multi-task Learning
      <https://arxiv.org/abs/2110.14048>`_, 2021
    """
    gramian, shares = read_matrix("gramian", gramian), read_vector("shares", shares)
    radius = check_at_least("radius", radius, 0)
    max_iterations = check_count("max_iterations", max_iterations)
    if gramian.shape != 2 * shares.shape:
        raise ValueError(
            f"gramian must have shape (T, T) for shares of shape (T,), but they have"
            f" {gramian.shape} and {shares.shape}."
        )
    scaled, scale = equilibrate(gramian)
    present = have_length(gramian, scaled, scale) & read_mask("active", active, len(shares))
    with jax.default_matmul_precision("highest"):
        mean = scaled @ (shares / scale)
        # A squared length of zero may be rounded to below zero.
        length = jnp.sqrt(jnp.maximum((shares / scale) @ mean, 0))
        largest = jnp.max(jnp.where(present, scale, 0))
        per_level = jnp.where(present, scale / jnp.where(largest > 0, largest, 1), 1)
        problem = _Problem(scaled, per_level, mean, radius * length, present)
        found = _follow(problem, _exchange(problem), length, max_iterations)
        size = jnp.max(jnp.abs(mean))
        residual = found.error / jnp.where(size > 0, size, 1)
    return Complementarity(found.z * scale, residual, found.iterations)


class _Problem(NamedTuple):
    """C z + m >= t s and z >= 0, complementary, with z'Cz = radius^2.

    Attributes:
      matrix: (T, T) C.
      scale: (T,) s, at most one.
      mean: (T,) m.
      radius: the length of J'u.
      present: (T,) bool, the indices that take part.
    """

    matrix: Array
    scale: Array
    mean: Array
    radius: Array
    present: Array


class _Point(NamedTuple):
    """A point and its errors.

    Attributes:
      t: the level.
      z: (T,) at least zero.
      wrong: (T,) bool, the indices on the wrong side of its support.
      error: the largest violation of a condition.
      iterations: number of systems solved so far.
    """

    t: Array
    z: Array
    wrong: Array
    error: Array
    iterations: Array


def _noise(z: Array) -> Any:
    return 4 * len(z) * jnp.finfo(z.dtype).eps


def _judge(problem: _Problem, t: Array, z: Array, iterations: Array) -> _Point:
    """The point of a level and of a z that may be below zero."""
    matrix, scale, mean, radius, present = problem
    size = jnp.abs(mean) + jnp.abs(t) * scale + jnp.max(jnp.abs(mean))
    slack = matrix @ z + mean - t * scale
    wrong = present & (jnp.where(z == 0, slack, z) < -_noise(z) / 4 * size)
    z = jnp.maximum(jnp.where(present, z, 0), 0)
    # The root for a small radius is lost in rounding, but its length is known.
    length = jnp.sqrt(jnp.maximum(z @ (matrix @ z), 0))
    z *= jnp.where(length > radius, radius / jnp.where(length > 0, length, 1), 1)
    error = violation(z, matrix @ z + mean - t * scale, present)
    return _Point(t, z, wrong, jnp.maximum(error, radius - length), iterations)


def _solve(problem: _Problem, support: Array, iterations: Array) -> _Point:
    """The point of a support: z is linear in the level, and the radius determines the level."""
    matrix, scale, mean, radius, _ = problem
    both = solve_on(support, matrix, jnp.stack([scale, mean], axis=1))
    rise, start = both[:, 0], both[:, 1]
    a, b = scale @ rise, jnp.where(support, scale, 0) @ start
    c = jnp.where(support, mean, 0) @ start - radius**2
    t = (b + jnp.sqrt(jnp.maximum(b**2 - a * c, 0))) / jnp.where(a > 0, a, 1)
    return _judge(problem, t, t * rise - start, iterations + 1)


@one_launch
def _exchange(problem: _Problem) -> _Point:
    """Exchange all indices on the wrong side of a support, as long as that reduces their number."""

    def step(carry: Any) -> Any:
        support, now, fewest, tries = carry
        now = _solve(problem, support, now.iterations)
        count = jnp.sum(now.wrong, dtype=jnp.int32)
        tries = jnp.where(count < fewest, _BLOCK_TRIES, tries - 1)
        tries = jnp.where(count > 0, tries, 0)
        return support ^ now.wrong, now, jnp.minimum(count, fewest), tries

    zero, num = jnp.zeros((), jnp.int32), len(problem.scale)
    slopes = jnp.where(problem.present, problem.mean / problem.scale, jnp.inf)
    support = (jnp.arange(num) == jnp.argmin(slopes)) & problem.present
    nothing = _judge(problem, problem.radius * 0, problem.scale * 0, zero)
    start = support, nothing, zero + num + 1, zero + _BLOCK_TRIES
    return lax.while_loop(lambda carry: carry[3] > 0, step, start)[1]


@one_launch
def _follow(problem: _Problem, guess: _Point, longest: Array, max_iterations: int) -> _Point:
    """Follow the projections of (J'p, k) on the cone of all (d, t) with <g_i, d> >= t.

    They exist for any vectors: (C + s s') z + m >= k s gives J'u, and t = k - s'z. The larger k,
    the longer J'u, until t stays zero if vectors cancel. The k of the radius lies between two
    bounds; the next k to try is the one it would have on the support of the last.
    """
    matrix, scale, mean, radius, present = problem
    eps = jnp.finfo(scale.dtype).eps
    size = jnp.maximum(radius, jnp.max(jnp.abs(mean)))

    def reaches(z: Array) -> Array:
        """Whether J'u is as long as the radius, up to rounding."""
        rounding = _noise(z) * size**2 + 2 * eps * jnp.sum(z) ** 2
        return jnp.abs(z @ (matrix @ z) - radius**2) <= rounding

    def cancels(z: Array) -> Array:
        """Whether z'(Cz + m), which is t s'z, is only rounding error of its cancelling terms."""
        return jnp.abs(z @ (matrix @ z + mean)) < _noise(z) * jnp.sum(z) ** 2

    def right(point: _Point) -> Array:
        return ~jnp.any(point.wrong) & reaches(point.z) & ~cancels(point.z)

    def step(carry: Any) -> Any:
        best, flat, k, low, high, tries, _ = carry
        # Start with the level zero; its k is known afterwards.
        begin = tries == 0
        bent = matrix + jnp.where(begin, 0, 1) * scale[:, None] * scale[None, :]
        z, _, systems = complementarity(
            bent, mean - jnp.where(begin, 0, k) * scale, best.z > 0, present
        )
        k, t = jnp.where(begin, scale @ z, k), jnp.where(begin, 0, k - scale @ z)
        now = _judge(problem, t, z, best.iterations + systems)
        beyond = z @ (matrix @ z) >= radius**2
        low, high = jnp.where(beyond, low, k), jnp.where(beyond, k, high)
        high = jnp.where(begin & ~beyond, k + most, high)
        # If vectors cancel, the level zero is the last one within the radius.
        error = jnp.where(beyond, jnp.inf, violation(now.z, matrix @ now.z + mean, present))
        flat = _where(begin, now._replace(error=error), flat)
        is_last = ~begin & jnp.isfinite(flat.error) & cancels(z)
        then = _solve(problem, z > 0, now.iterations)
        best = _where(now.error < best.error, now, best)
        best = _where(then.error < best.error, then, best)
        best = _where(is_last, flat, best)._replace(iterations=then.iterations)
        k = then.t + scale @ then.z
        k = jnp.where((low < k) & (k < high), k, low + (high - low) / 2)
        apart = high - low > 4 * eps * (jnp.abs(low) + jnp.abs(high))
        return best, flat, k, low, high, tries + 1, apart & ~is_last & ~reaches(z) & ~right(then)

    # The range of k: from z = 0 to a z whose rounding error is as large as the radius.
    least = jnp.min(jnp.where(present, mean / scale, jnp.inf))
    most = 2 * (longest + radius) + radius / jnp.sqrt(_noise(scale))
    start = guess, guess, least, least, least, jnp.zeros((), jnp.int32), ~right(guess)
    found = lax.while_loop(lambda carry: carry[6] & (carry[5] < max_iterations), step, start)
    return found[0]


def _where(condition: Array, first: _Point, second: _Point) -> _Point:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), first, second)
