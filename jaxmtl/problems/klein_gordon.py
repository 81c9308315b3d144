"""The Klein-Gordon equation, solved by a network: its residual against initial and boundary values.

u_tt - u_xx + u^3 = f for 0 <= t, x <= 1, with u and u_t given at t = 0 and u at both ends, and f
such that the solution is u = x cos(5 pi t) + (t x)^3.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import static_count
from jaxmtl._typing import Array, PyTree
from jaxmtl.problems import _pinn
from jaxmtl.problems._problem import Batch, Problem

BOX = _pinn.Box((0.0, 0.0), (1.0, 1.0))
_ON_A_SIDE = 128


def klein_gordon(inside: int = 1280) -> Problem:
    """Build the Klein-Gordon problem of the PINN literature, with the network and points of DCGD.

    The tasks are "boundary", the sum of four mean squares (of u - x and of u_t at t = 0, and of the
    error of u at x = 0 and at x = 1), and "residual", the mean square of the residual of the
    equation. A batch is 128 points at t = 0 and at either end, and 1280 inside, drawn again at each
    step. Both are evaluated on a grid of 100 x 100 points: "residual" by the relative L2 error,
    "boundary" by the error at the points with given values, relative to the same solution.

    Args:
      inside: the number of points inside. (The code published with DCGD has 128.)

    Returns:
      A ``Problem`` of three tanh layers of 50, all shared. The papers train for 50000 steps.

    Raises:
      ValueError: if ``inside`` is not a whole number above zero.

    Examples:
      >>> problem = klein_gordon()
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
        "Klein-Gordon",
        BOX,
        residuals,
        solution,
        lambda points: (points[:, 0] == 0) | (points[:, 1] == 0) | (points[:, 1] == 1),
        lambda key: _sample(key, inside),
    )


def solution(points: Array | np.ndarray) -> Array:
    """Evaluate the exact solution, (N,), at points (N, 2), t and x.

    Examples:
      >>> print(solution(jnp.array([[0.0, 0.5], [1.0, 1.0]])).round(4))
      [0.5 0. ]
    """
    t, x = jnp.asarray(points).T
    return x * jnp.cos(5 * jnp.pi * t) + (t * x) ** 3


def source(points: Array | np.ndarray) -> Array:
    """Evaluate f = u_tt - u_xx + u^3 of the exact solution, (N,).

    Examples:
      >>> print(source(jnp.array([[0.0, 1.0]])).round(1))
      [-245.7]
    """
    t, x = jnp.asarray(points).T
    u_tt = -25 * jnp.pi**2 * x * jnp.cos(5 * jnp.pi * t) + 6 * t * x**3
    return u_tt - 6 * t**3 * x + solution(points) ** 3


def residuals(params: PyTree, batch: Batch) -> dict[str, Array]:
    """Evaluate the residuals, whose mean squares are the losses, for example for ``ntk_traces``.

    Args:
      params: the parameters of the problem's network.
      batch: "inside" (N, 2), "start" (n, 2) with t = 0, "ends" (2 n, 2) with n at either end.

    Returns:
      "boundary" (4 n,), which is twice the errors, since the four mean squares are summed,
      and "residual" (N,).

    Examples:
      >>> problem = klein_gordon(inside=10)
      >>> batch = problem.sample(jax.random.key(1))
      >>> found = residuals(problem.init(jax.random.key(0)), batch)
      >>> found["boundary"].shape, found["residual"].shape
      ((512,), (10,))
    """
    inside, start, ends = batch["inside"], batch["start"], batch["ends"]
    u, _, wave = _pinn.evaluate_with_derivatives(params, inside, BOX.scaling, (1.0, -1.0))
    along_t = jnp.broadcast_to(jnp.array([[1.0, 0.0]], start.dtype), start.shape)
    u_0, u_t = jax.jvp(lambda points: _value(params, points), (start,), (along_t,))
    at_ends = _value(params, ends) - solution(ends)
    return {
        "boundary": 2 * jnp.concatenate([u_0 - solution(start), u_t, at_ends]),
        "residual": wave + u**3 - source(inside),
    }


def _value(params: PyTree, points: Array | np.ndarray) -> Array:
    return _pinn.evaluate(params, points, BOX.scaling)


def _sample(key: Array, inside: int) -> Batch:
    of_inside, of_start, of_ends = jax.random.split(key, 3)
    start = BOX.uniform(of_start, _ON_A_SIDE) * jnp.array([[0.0, 1.0]])
    times = BOX.uniform(of_ends, 2 * _ON_A_SIDE)[:, 0]
    ends = jnp.stack([times, jnp.repeat(jnp.array([0.0, 1.0]), _ON_A_SIDE)], axis=1)
    return {"inside": BOX.uniform(of_inside, inside), "start": start, "ends": ends}
