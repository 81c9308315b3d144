"""The point near a mean that serves the worst-served vector best."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._typing import Array
from jaxmtl.solvers.complementarity import Complementarity, solve_on, violation
from jaxmtl.solvers.scaling import equilibrate

# Exchanges of many indices at a time that may fail to leave fewer wrong, before one goes at a time.
_BLOCK_TRIES = 3


def worst_case(
    gramian: Array,
    shares: Array,
    radius: float | Array,
    active: Array | None = None,
    *,
    max_iterations: int = 100,
) -> Complementarity:
    """Find the combination near J'p whose least inner product with a vector is largest.

    max_d min_i <g_i, d> with ||d - J'p|| <= radius ||J'p||. With a level t, d = J'(p + u) is the
    point nearest to J'p with <g_i, d> >= t: u >= 0, G(p + u) >= t, complementary. On a support of
    u all that is linear in t, and the radius gives t as the root of a quadratic; indices on the
    wrong side change the support until none is.

    Args:
      gramian: (T, T) inner products of the vectors.
      shares: (T,) p.
      radius: how far from J'p to look, in its lengths.
      active: (T,) bool, which vectors take part; all if None. Zero vectors take no part.
      max_iterations: supports to try at most.

    Returns:
      A ``Complementarity`` whose ``z`` holds u >= 0, so that d = J'(p + u). Where vectors cancel,
      so that no d serves all, the level is about zero, d nearer than the radius, and u large
      along what cancels. Not differentiable in reverse mode.

    Raises:
      ValueError: where the shapes do not fit.

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
    if gramian.shape != 2 * shares.shape:
        raise ValueError(
            f"gramian must have shape (T, T) for shares of shape (T,), but they have"
            f" {gramian.shape} and {shares.shape}."
        )
    scaled, scale = equilibrate(gramian)
    present = jnp.diagonal(scaled) > 0
    present = present if active is None else active & present
    eps = jnp.finfo(scaled.dtype).eps
    with jax.default_matmul_precision("highest"):
        mean = scaled @ (shares / scale)
        # A mean of zero may come out below it.
        reach = radius**2 * jnp.maximum((shares / scale) @ mean, 0)

    def solve(support: Array) -> tuple[Array, Array]:
        """The level t, and z = u/s, for a support."""
        both = solve_on(support, scaled, jnp.stack([scale, mean], axis=1))
        rise, start = both[:, 0], both[:, 1]
        a, b = scale @ rise, jnp.where(support, scale, 0) @ start
        c = jnp.where(support, mean, 0) @ start - reach
        root = jnp.sqrt(jnp.maximum(b**2 - a * c, 0))
        t = (b + root) / jnp.where(a > 0, a, 1)
        return t, t * rise - start

    indices, zero = jnp.arange(len(scale)), jnp.zeros((), jnp.int32)

    def exchange(carry: Any) -> Any:
        """Exchange all on the wrong side of a support, or one index while that does not help."""
        support, _, fewest, tries, iterations, _ = carry
        t, z = solve(support)
        slack = scaled @ z + mean - t * scale
        noise = len(scale) * eps * (jnp.abs(mean) + jnp.abs(t) * scale + jnp.max(jnp.abs(mean)))
        wrong = present & jnp.where(support, z < -noise, slack < -noise)
        count = jnp.sum(wrong, dtype=jnp.int32)
        tries = jnp.where(count < fewest, _BLOCK_TRIES, tries - 1)
        last = indices == jnp.max(jnp.where(wrong, indices, -1))
        support ^= jnp.where(tries > 0, wrong, last)
        return support, (t, z), jnp.minimum(count, fewest), tries, iterations + 1, count > 0

    with jax.default_matmul_precision("highest"):
        first = jnp.argmin(jnp.where(present, mean / scale, jnp.inf))
        support = (indices == first) & present
        nothing = jnp.zeros_like(reach), jnp.zeros_like(scale)
        _, (t, z), _, _, iterations, _ = lax.while_loop(
            lambda carry: carry[5] & (carry[4] < max_iterations),
            exchange,
            (support, nothing, zero + len(scale) + 1, zero, zero, zero == 0),
        )
        z = jnp.maximum(jnp.where(present, z, 0), 0)
        # The root of a small radius is lost in rounding; its length is known all the same.
        reached = z @ (scaled @ z)
        z *= jnp.where(reached > reach, jnp.sqrt(reach / jnp.where(reached > 0, reached, 1)), 1)
        size = jnp.max(jnp.abs(mean))
        wrong = violation(z, scaled @ z + mean - t * scale, present)
        residual = wrong / jnp.where(size > 0, size, 1)
    return Complementarity(z * scale, residual, iterations)
