"""Projection on the dual cone of T vectors, from their Gramian."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import real_array
from jaxmtl._platform import by_target
from jaxmtl._typing import Array
from jaxmtl.solvers._inputs import read_mask, read_matrix, read_vector
from jaxmtl.solvers.complementarity import Complementarity, complementarity
from jaxmtl.solvers.scaling import equilibrate, have_length

# From this number of rows on, a loop saves a CPU more than its turns cost.
_MANY = 64


def dual_cone(gramian: Array, weights: Array, active: Array | None = None) -> Complementarity:
    """Find the weights of the nearest combination that conflicts with no vector.

    argmin v'Gv over v >= u: J'v is the projection of J'u on the cone of all d with <g_i, d> >= 0.
    It is solved for z in v = u + s z, with scales s that bring all lengths to about one and
    C = S G S: z >= 0, C (z + u/s) >= 0, complementary. So the lengths may differ by any factor.

    Args:
      gramian: (T, T) inner products of the vectors.
      weights: (T,) u, or (N, T) for several u at once.
      active: (T,) bool, which vectors take part; all if None.

    Returns:
      A ``Complementarity`` whose ``z`` holds the weights v, of the shape of ``weights``.

    Raises:
      ValueError: if the shapes do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import dual_cone
      >>> vectors = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> print(dual_cone(vectors @ vectors.T, jnp.array([0.5, 0.5])).z)
      [0.5 0.5]

    References:
      Lopez-Paz & Ranzato, `Gradient Episodic Memory for Continual Learning
      <https://arxiv.org/abs/1706.08840>`_, 2017

      Quinton & Rey, `Jacobian Descent for Multi-Objective Optimization
      <https://arxiv.org/abs/2406.16232>`_, 2024
    """
    gramian = read_matrix("gramian", gramian)
    if jnp.ndim(real_array("weights", weights)) == 2:
        weights = jnp.asarray(weights)
        return _for_each(gramian, weights, read_mask("active", active, weights.shape[1]))
    weights = read_vector("weights", weights)
    if gramian.shape != 2 * weights.shape:
        raise ValueError(
            f"gramian must have shape (T, T) for weights of shape (T,), but they have"
            f" {gramian.shape} and {weights.shape}."
        )
    with jax.default_matmul_precision("highest"):
        scaled, scale = equilibrate(gramian)
        present = have_length(gramian, scaled, scale) & read_mask("active", active, len(weights))
        # C (u/s) without the division, which compiles to long code.
        offset = (gramian * scale[:, None]) @ weights
        found = complementarity(scaled, offset, active=present)
        return found._replace(z=weights + found.z * scale)


@jax.jit
def _for_each(gramian: Array, weights: Array, active: Array) -> Complementarity:
    """Project for each row of weights: side by side, or on a CPU one after the other.

    On a CPU, side by side saves nothing, holds N systems, and all take as many steps as the
    slowest.
    """

    def side_by_side(gramian: Array, weights: Array, active: Array) -> Complementarity:
        return jax.vmap(dual_cone, in_axes=(None, 0, None))(gramian, weights, active)

    def in_turn(gramian: Array, weights: Array, active: Array) -> Complementarity:
        return lax.map(lambda u: dual_cone(gramian, u, active), weights)

    if len(weights) < _MANY:
        return side_by_side(gramian, weights, active)
    return by_target(gramian, weights, active, cpu=in_turn, default=side_by_side)
