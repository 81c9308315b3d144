"""Positive weights for which the Gramian times the weights equals an inverse power of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import check_above, check_at_least, check_count
from jaxmtl._typing import Array
from jaxmtl.solvers._inputs import read_mask, read_matrix
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.scaling import equilibrate


class Barrier(NamedTuple):
    """Weights w with G w = w^(-1/a), and their accuracy.

    Attributes:
      weights: (T,) weights, above zero; zero for absent and zero vectors.
      residual: max_i |w_i^(1/a) (G w)_i - 1|, 0 if it is exact; infinite if out of range.
      iterations: number of Newton steps.
    """

    weights: Array
    residual: Array
    iterations: Array


def barrier(
    gramian: Array,
    alpha: float | Array = 1.0,
    active: Array | None = None,
    *,
    tolerance: float = 0.0,
    max_iterations: int = 100,
) -> Barrier:
    """Find w > 0 with G w = w^(-1/a), the minimiser of w'Gw/2 - sum_i w_i^(1-1/a) / (1-1/a).

    For a = 1 this is G w = 1/w, the minimiser of w'Gw/2 - sum_i log w_i. The solver takes damped
    Newton steps on the logarithms of the weights, with scales s that bring all lengths to about one
    and C = S G S: w = s x, C x = t x^(-1/a), t_i = s_i^(1-1/a).

    Args:
      gramian: (T, T) inner products of the vectors.
      alpha: a, above zero.
      active: (T,) bool, which vectors take part; all if None.
      tolerance: residual at which to stop; 0 continues as far as rounding allows.
      max_iterations: maximum number of Newton steps.

    Returns:
      A ``Barrier``. If positive weights make the combination vanish, no solution exists; the
      weights are then large, and the residual shows that they are no solution. The same holds if
      the powers of an extreme a are out of range: the weights of parallel vectors have the ratios
      of the -a-th powers of their lengths, and t spans the -1/a-th. Not differentiable in reverse
      mode.

    Raises:
      ValueError: if the Gramian is not square.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import barrier
      >>> print(barrier(jnp.array([[4.0, 0.0], [0.0, 1.0]])).weights)
      [0.5 1. ]

    References:
      Navon et al., `Multi-Task Learning as a Bargaining Game <https://arxiv.org/abs/2202.01017>`_,
      2022

      Ban & Ji, `Fair Resource Allocation in Multi-Task Learning
      <https://arxiv.org/abs/2402.15638>`_, 2024
    """
    gramian = read_matrix("gramian", gramian)
    num = gramian.shape[0]
    alpha = check_above("alpha", alpha, 0)
    tolerance = check_at_least("tolerance", tolerance, 0)
    max_iterations = check_count("max_iterations", max_iterations)
    present = read_mask("active", active, num)
    return _damped_newton(gramian, alpha, present, tolerance, max_iterations)


@one_launch
def _damped_newton(
    gramian: Array, alpha: Any, present: Array, tolerance: Any, max_iterations: Any
) -> Barrier:
    num = gramian.shape[0]
    scaled, scale = equilibrate(gramian)
    eps = jnp.finfo(scaled.dtype).eps
    present &= jnp.diagonal(scaled) > 0
    pairs = present[:, None] & present[None, :]
    identity = jnp.eye(num, dtype=scaled.dtype)
    matrix = jnp.where(pairs, scaled, identity)
    # One common factor for t, so that its values lie around one; x carries its power back.
    log_t = jnp.where(present, (1 - 1 / alpha) * jnp.log(scale), 0)
    centre = jnp.sum(log_t) / jnp.maximum(jnp.sum(present, dtype=log_t.dtype), 1)
    log_t = jnp.where(present, log_t - centre, 0)
    t = jnp.exp(log_t)

    def newton(carry: Any) -> Any:
        x, iterations, before, _ = carry
        # In relative steps p = dx/x the system is X C X + diag(pull / a), well scaled.
        pull = t * x ** (1 - 1 / alpha)
        force = x * (matrix @ x)
        hessian = x[:, None] * matrix * x[None, :] + jnp.diag(pull / alpha)
        # Scaled to a unit diagonal before factoring: t may span many orders.
        d = 1 / jnp.sqrt(jnp.diagonal(hessian))
        factor = jax.scipy.linalg.cho_factor(
            d[:, None] * hessian * d[None, :] + num * eps * identity
        )
        p = d * jax.scipy.linalg.cho_solve(factor, d * (pull - force))
        residual = jnp.max(jnp.abs(jnp.where(present, force / pull - 1, 0)))
        largest = jnp.max(jnp.abs(p))
        damped = p / jnp.where(largest > 0.5, 1 + largest, 1)
        # Near the solution a step squares the residual; a step that does not is only rounding.
        gains = (largest > 1e-2) | (residual < before / 2)
        go_on = (residual > tolerance) & gains & jnp.isfinite(largest)
        iterations = iterations + go_on.astype(iterations.dtype)
        return jnp.where(go_on, x * (1 + damped), x), iterations, residual, go_on

    with jax.default_matmul_precision("highest"):
        # The solution if all vectors were orthogonal; it is finite for every t.
        start = jnp.exp((log_t - jnp.log(jnp.diagonal(matrix))) * (alpha / (1 + alpha)))
        infinite = jnp.full((), jnp.inf, start.dtype)
        x, iterations, _, _ = lax.while_loop(
            lambda carry: carry[3] & (carry[1] < max_iterations),
            newton,
            (start, jnp.zeros((), jnp.int32), infinite, jnp.asarray(True)),
        )
        balance = x * (matrix @ x) / (t * x ** (1 - 1 / alpha))
        residual = jnp.max(jnp.abs(jnp.where(present, balance - 1, 0)))
        # Powers out of range leave 0/0, which shows only that the weights are wrong.
        residual = jnp.where(jnp.isnan(residual) & jnp.all(jnp.isfinite(x)), jnp.inf, residual)
    weights = scale * x * jnp.exp(centre * alpha / (1 + alpha))
    return Barrier(jnp.where(present, weights, 0), residual, iterations)
