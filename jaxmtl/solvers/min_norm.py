"""The min-norm point of the convex hull of T vectors, from their Gramian."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import check_at_least, check_count, wide_dtype
from jaxmtl._typing import Array
from jaxmtl.solvers._inputs import read_mask, read_matrix
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.complementarity import complementarity
from jaxmtl.solvers.scaling import equilibrate, reciprocal, reciprocal_length

# With 16, vectors that cancel (T = 64 of rank 16) stayed far from their shortest combination.
_MAX_SUPPORT_CHANGES = 32


class MinNorm(NamedTuple):
    """A min-norm point and its accuracy.

    Attributes:
      weights: (T,) convex weights w.
      gap: the relative duality gap (w'Gw - min_i (Gw)_i) / w'Gw. If w'Gw is below its own
        rounding error, so that float32 cannot distinguish it from zero, that error replaces it.
      iterations: Frank-Wolfe iterations; 0 if the closed form for two vectors applies.
    """

    weights: Array
    gap: Array
    iterations: Array


def min_norm(
    gramian: Array,
    active: Array | None = None,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> MinNorm:
    """Find the convex weights of the shortest combination, argmin w'Gw over w >= 0, sum w = 1.

    For two vectors: w_1 = clip((G_22 - G_12) / (G_11 + G_22 - 2 G_12), 0, 1).

    For more: Frank-Wolfe with pairwise steps. Each step moves weight between the two vectors for
    which this gains most, until the relative duality gap is below the tolerance, the value cannot
    be distinguished from zero, or a step no longer changes it. Then a polish on the support: with
    scales s that bring all lengths to about one and C = S G S, the same problem reads C x >= s,
    x >= 0, complementary, and w ~ s x, for any spread of the lengths.

    Args:
      gramian: (T, T) inner products of the vectors, real floating.
      active: (T,) bool, which vectors take part; all if None.
      tolerance: relative duality gap at which to stop.
      max_iterations: maximum number of Frank-Wolfe iterations.

    Returns:
      A ``MinNorm``. On a Gramian accumulated in float32 expect a gap, measured on the vectors, of
      1e-6 if they are of similar length and the point is not much shorter than they are, and of
      1e-5 (T <= 16) to 1e-4 (T = 64, or strong conflict) if their lengths span a factor of 1000.
      Not differentiable in reverse mode (it loops until converged). For a non-finite Gramian the
      result is NaN or a meaningless finite point.

    Raises:
      ValueError: if the Gramian is not square.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import min_norm
      >>> vectors = jnp.array([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [3.0, 3.0, 3.0]])
      >>> point = min_norm(vectors @ vectors.T)
      >>> print(point.weights.round(4))
      [0.5 0.5 0. ]

    References:
      Frank & Wolfe, `An algorithm for quadratic programming
      <https://doi.org/10.1002/nav.3800030109>`_, 1956

      Lacoste-Julien & Jaggi, `On the Global Linear Convergence of Frank-Wolfe Optimization
      Variants <https://arxiv.org/abs/1511.05932>`_, 2015

      Hintermueller, Ito & Kunisch, `The primal-dual active set strategy as a semismooth Newton
      method <https://doi.org/10.1137/S1052623401383558>`_, 2002
    """
    gramian = read_matrix("gramian", gramian)
    num = gramian.shape[0]
    present = read_mask("active", active, num)
    tolerance = check_at_least("tolerance", tolerance, 0)
    max_iterations = check_count("max_iterations", max_iterations)
    gramian = gramian.astype(wide_dtype(gramian.dtype))
    gramian = jnp.where(present[:, None] & present[None, :], gramian, 0)
    with jax.default_matmul_precision("highest"):
        # The problem has no unit. A power of two removes the size without rounding.
        scale = reciprocal_length(jnp.max(jnp.diagonal(gramian)))
        inner = gramian * scale * scale
        if num <= 2:
            weights = _closed_form(inner, present)
            gap, _, _ = _duality_gap(inner, weights, present)
            return MinNorm(weights, gap, jnp.zeros((), jnp.int32))
        walked, iterations = _frank_wolfe(inner, present, tolerance, max_iterations)
        gap, _, _ = _duality_gap(inner, walked, present)
        # A point that still conflicts after all steps is close to zero.
        polished = _polish(inner, present, walked > 0, gap > 1)
        polished_gap, _, _ = _duality_gap(inner, polished, present)
        # The polish can fail if the support is degenerate; a NaN loses the comparison.
        better = (polished_gap < gap) & (jnp.sum(polished) > 0)
        return MinNorm(
            jnp.where(better, polished, walked), jnp.where(better, polished_gap, gap), iterations
        )


def _closed_form(inner: Array, active: Array) -> Array:
    """The shortest combination of one or two vectors."""
    if inner.shape[0] == 1:
        return jnp.ones_like(inner[0])
    # Each weight has its own formula: one minus the other would lose all digits of a small weight,
    # which may belong to a long vector. Their sum is one in any order of rounding; the square of
    # the difference, g_11 + g_22 - 2 g_12, differs from that sum if the vectors are almost equal.
    toward = jnp.maximum(jnp.diagonal(inner)[::-1] - inner[0, 1], 0)
    total = jnp.sum(toward)
    both = jnp.where(total > 0, toward * reciprocal(total), 0.5)
    return jnp.where(jnp.all(active), both, active.astype(inner.dtype))


def _duality_gap(inner: Array, weights: Array, active: Array) -> tuple[Array, Array, Array]:
    """The relative gap of a point, its value w'Gw, and the rounding error of that value."""
    slopes = inner @ weights
    value = weights @ slopes
    lengths = weights @ jnp.sqrt(jnp.diagonal(inner))
    error = jnp.finfo(inner.dtype).eps * lengths**2
    gap = jnp.maximum(value - jnp.min(slopes, where=active, initial=jnp.inf), 0)
    unit = jnp.maximum(value, error)
    # A value outside float32's range, from lengths spread over 1e19 or more, bounds no gap.
    lost = (gap > 0) & (unit < jnp.finfo(inner.dtype).tiny)
    return jnp.where(lost, jnp.inf, gap * reciprocal(unit)), value, error


@one_launch
def _frank_wolfe(
    inner: Array, active: Array, tolerance: float, max_iterations: int
) -> tuple[Array, Array]:
    """Pairwise Frank-Wolfe from the shortest vector: weights and iterations."""
    squares = jnp.diagonal(inner)
    eps = jnp.finfo(inner.dtype).eps

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        weights, iterations, _ = carry
        slopes = inner @ weights
        toward = jnp.argmin(jnp.where(active, slopes, jnp.inf))
        # From each vector j toward that one: the exact step along the line, at most all of w_j,
        # and its gain. The steepest pair is not the best one if the norms differ much.
        drop = jnp.where(active, slopes - slopes[toward], 0)
        across = squares + squares[toward] - 2 * inner[toward]
        full = jnp.where(across > 0, drop / jnp.where(across > 0, across, 1), jnp.inf)
        size = jnp.minimum(full, weights)
        gain = size * (drop - size * across / 2)
        away = jnp.argmax(gain)
        moved = weights.at[away].add(-size[away]).at[toward].add(size[away])
        gap, value, error = _duality_gap(inner, weights, active)
        go_on = (gap > tolerance) & (value > error) & (gain[away] > eps / 8 * value)
        return jnp.where(go_on, moved, weights), iterations + go_on.astype(iterations.dtype), go_on

    shortest = jnp.argmin(jnp.where(active, squares, jnp.inf))
    start = jax.nn.one_hot(shortest, len(squares), dtype=inner.dtype)
    weights, iterations, _ = lax.while_loop(
        lambda carry: carry[2] & (carry[1] < max_iterations),
        step,
        (start, jnp.zeros((), jnp.int32), jnp.asarray(True)),
    )
    return weights, iterations


@one_launch
def _polish(inner: Array, active: Array, support: Array, cancels: Array) -> Array:
    """Solve the problem with scaled lengths on a guess of the support.

    If vectors cancel, C x >= s has no solution. (C + r r') x >= r, r ~ s, always has one, and on
    the same ray if the first has one, at the cost of some digits.
    """
    scaled, scale = equilibrate(inner)
    r = scale / jnp.max(scale)
    bent = scaled + jnp.where(cancels, 1, 0) * r[:, None] * r[None, :]
    x = complementarity(bent, -scale, support, active, max_iterations=_MAX_SUPPORT_CHANGES).z
    weights = x * scale
    return weights * reciprocal(jnp.sum(weights))
