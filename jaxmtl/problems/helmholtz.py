"""The Helmholtz equation in a square, solved by a network: residual against boundary.

u_xx + u_yy + u = q for -1 <= x, y <= 1, with u = 0 on the boundary, and q such that the solution is
u = sin(pi x) sin(4 pi y). The residual has the size of the second derivatives, up to 168, and the
boundary error the size of u: with equal weights the boundary hardly counts.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import static_count
from jaxmtl._typing import Array, PyTree
from jaxmtl.problems import _pinn
from jaxmtl.problems._problem import Batch, Problem

BOX = _pinn.Box((-1.0, -1.0), (1.0, 1.0))
_ON_A_SIDE = 128


def helmholtz(inside: int = 1280) -> Problem:
    """Build the Helmholtz problem of the PINN literature, with the network and points of DCGD.

    The tasks are "boundary", the sum over the four sides of the mean square of u, and "residual",
    the mean square of the residual of the equation. A batch is 128 points on each side and 1280
    inside, drawn again at each step. Both are evaluated on a grid of 100 x 100 points: "residual"
    by the relative L2 error, "boundary" by the error at the points on the edge, relative to the
    same solution.

    Args:
      inside: the number of points inside.

    Returns:
      A ``Problem`` of three tanh layers of 50, all shared. The papers train for 50000 steps.

    Raises:
      ValueError: if ``inside`` is not a whole number above zero.

    Examples:
      >>> problem = helmholtz()
      >>> params, batch = problem.init(jax.random.key(0)), problem.sample(jax.random.key(1))
      >>> losses = problem.losses(params, batch)
      >>> bool(losses["residual"] > 1000 * losses["boundary"])
      True

    References:
      Wang, Teng & Perdikaris, `Understanding and Mitigating Gradient Flow Pathologies in
      Physics-Informed Neural Networks <https://arxiv.org/abs/2001.04536>`_, 2021

      Hwang & Lim, `Dual Cone Gradient Descent for Training Physics-Informed Neural Networks
      <https://arxiv.org/abs/2409.18426>`_, 2024
    """
    inside = static_count("inside", inside)
    return _pinn.of_dcgd(
        "Helmholtz",
        BOX,
        residuals,
        solution,
        lambda points: np.max(np.abs(points), axis=1) == 1,
        lambda key: _sample(key, inside),
    )


def solution(points: Array | np.ndarray) -> Array:
    """Evaluate the exact solution, (N,), at points (N, 2), x and y.

    Examples:
      >>> print(solution(jnp.array([[0.5, 0.125], [1.0, 0.3]])).round(4))
      [1. 0.]
    """
    x, y = jnp.asarray(points).T
    return jnp.sin(jnp.pi * x) * jnp.sin(4 * jnp.pi * y)


def source(points: Array | np.ndarray) -> Array:
    """Evaluate q = u_xx + u_yy + u of the exact solution, (N,).

    Examples:
      >>> print(source(jnp.array([[0.5, 0.125]])).round(1))
      [-166.8]
    """
    return (1 - 17 * jnp.pi**2) * solution(points)


def residuals(params: PyTree, batch: Batch) -> dict[str, Array]:
    """Evaluate the residuals, whose mean squares are the losses, for example for ``ntk_traces``.

    Args:
      params: the parameters of the problem's network.
      batch: "inside" (N, 2) and "sides" (4 n, 2), with n points on each side.

    Returns:
      "boundary" (4 n,), which is 2 u, since the four mean squares are summed, and
      "residual" (N,).

    Examples:
      >>> problem = helmholtz(inside=10)
      >>> batch = problem.sample(jax.random.key(1))
      >>> found = residuals(problem.init(jax.random.key(0)), batch)
      >>> found["boundary"].shape, found["residual"].shape
      ((512,), (10,))
    """
    inside = batch["inside"]
    u, _, laplacian = _pinn.evaluate_with_derivatives(params, inside, BOX.scaling, (1.0, 1.0))
    return {
        "boundary": 2 * _value(params, batch["sides"]),
        "residual": laplacian + u - source(inside),
    }


def _value(params: PyTree, points: Array | np.ndarray) -> Array:
    return _pinn.evaluate(params, points, BOX.scaling)


def _sample(key: Array, inside: int) -> Batch:
    of_inside, of_sides = jax.random.split(key)
    along = BOX.uniform(of_sides, 2 * _ON_A_SIDE)  # both coordinates: the points of two sides
    ends = jnp.repeat(jnp.array([-1.0, 1.0]), _ON_A_SIDE)
    sides = [jnp.stack([ends, along[:, 0]], axis=1), jnp.stack([along[:, 1], ends], axis=1)]
    return {"inside": BOX.uniform(of_inside, inside), "sides": jnp.concatenate(sides)}
