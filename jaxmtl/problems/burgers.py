"""Burgers' equation, solved by a network: a wave that steepens into a front.

u_t + u u_x = nu u_xx for -1 <= x <= 1 and 0 <= t <= 1, with nu = 0.01/pi, u = -sin(pi x) at t = 0
and u = 0 at both ends. From t = 1/pi on there is a front at x = 0, about 0.004 wide.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import static_count
from jaxmtl._typing import Array, PyTree
from jaxmtl.problems import _pinn
from jaxmtl.problems._problem import Batch, Problem

VISCOSITY = 0.01 / np.pi
BOX = _pinn.Box((-1.0, 0.0), (1.0, 1.0))
_ON_A_SIDE = 50
_NODES = 128  # more change the solution by 5e-15


def burgers(inside: int = 2000) -> Problem:
    """Build Burgers' equation with the network and points of ConFIG.

    The tasks are "boundary", "initial" and "residual": the mean squares of u at both ends, of
    u + sin(pi x) at t = 0, and of the residual of the equation. A batch is 50, 50 and 2000 points
    of a Latin hypercube, drawn again at each step. All are evaluated by the mean square error on a
    grid of 256 x 100 points: "residual" everywhere, "initial" at t = 0, "boundary" in the columns
    next to the ends.

    Args:
      inside: the number of points inside.

    Returns:
      A ``Problem`` of five tanh layers of 50, all of them shared. The paper trains for 5000 steps.

    Raises:
      ValueError: if ``inside`` is not a whole number above zero.

    Examples:
      >>> problem = burgers()
      >>> problem.tasks
      ('boundary', 'initial', 'residual')

    References:
      Liu, Chu & Thuerey, `ConFIG: Towards Conflict-free Training of Physics Informed Neural
      Networks <https://arxiv.org/abs/2408.11104>`_, 2025
    """
    inside = static_count("inside", inside)
    x, t = np.linspace(-1 + 1 / 256, 1 - 1 / 256, 256), np.linspace(0, 1, 100)
    points = np.stack(np.meshgrid(x, t, indexing="ij"), axis=-1).reshape(-1, 2)
    at_ends, at_start = np.abs(points[:, 0]) == x[-1], points[:, 1] == 0
    return Problem(
        name="Burgers",
        tasks=("boundary", "initial", "residual"),
        init=lambda key: _pinn.init_tanh(key, (2, 50, 50, 50, 50, 50, 1), bias=0.001),
        losses=_pinn.mean_squares(residuals),
        metrics=_metrics,
        maximize={"boundary": False, "initial": False, "residual": False},
        metric_names={"boundary": "MSE at the ends", "initial": "MSE at t = 0", "residual": "MSE"},
        sample=lambda key: _sample(key, inside),
        test={
            "points": points.astype(np.float32),
            "exact": solution(points).astype(np.float32),
            "boundary": at_ends,
            "initial": at_start,
            "residual": np.ones(len(points), bool),
        },
        learning_rate=5e-3,
        steps=1000,
        shared={"trunk": True, "heads": False},
    )


def solution(points: np.ndarray) -> np.ndarray:
    """Evaluate the exact solution in float64: the quotient of two Gaussian integrals.

    With the substitution of Cole and Hopf, and F(y) = exp(-cos(pi y) / (2 pi nu)),
      u(x, t) = -E[sin(pi y) F(y)] / E[F(y)],   y = x - sqrt(4 nu t) z,   z of density exp(-z^2),
    both by Gauss-Hermite quadrature.

    Args:
      points: (N, 2), x and t.

    Returns:
      (N,).

    Examples:
      >>> print(solution(np.array([[-0.5, 0.0], [0.0, 1.0]])).round(4) + 0)
      [1. 0.]
    """
    z, weights = np.polynomial.hermite.hermgauss(_NODES)
    x, t = points[:, :1], points[:, 1:]
    y = x - np.sqrt(4 * VISCOSITY * t) * z
    exponent = -np.cos(np.pi * y) / (2 * np.pi * VISCOSITY)
    density = weights * np.exp(exponent - exponent.real.max(axis=1, keepdims=True))
    numerator, denominator = (density * np.sin(np.pi * y)).sum(axis=1), density.sum(axis=1)
    found: np.ndarray = -numerator / denominator
    return found


def residuals(params: PyTree, batch: Batch) -> dict[str, Array]:
    """Evaluate the residuals, whose mean squares are the losses, for example for ``ntk_traces``.

    Args:
      params: the parameters of the problem's network.
      batch: "inside", "start" with t = 0, and "ends" with x = -1 or 1, (N, 2) each.

    Returns:
      "boundary", "initial" and "residual", each of the length of its points.

    Examples:
      >>> problem = burgers()
      >>> batch = problem.sample(jax.random.key(1))
      >>> found = residuals(problem.init(jax.random.key(0)), batch)
      >>> [found[task].shape for task in problem.tasks]
      [(50,), (50,), (2000,)]
    """
    inside, start, ends = batch["inside"], batch["start"], batch["ends"]
    u, (u_x, u_t), u_xx = _pinn.evaluate_with_derivatives(
        params, inside, _pinn.UNSCALED, (1.0, 0.0)
    )
    return {
        "boundary": _value(params, ends),
        "initial": _value(params, start) + jnp.sin(jnp.pi * start[:, 0]),
        "residual": u_t + u * u_x - VISCOSITY * u_xx,
    }


def _value(params: PyTree, points: Array | np.ndarray) -> Array:
    return _pinn.evaluate(params, points, _pinn.UNSCALED)


def _metrics(params: PyTree, split: Batch) -> dict[str, Array]:
    squares = (_value(params, split["points"]) - split["exact"]) ** 2
    parts = {
        task: split[task].astype(squares.dtype) for task in ("boundary", "initial", "residual")
    }
    return {task: jnp.sum(part * squares) / jnp.sum(part) for task, part in parts.items()}


def _sample(key: Array, inside: int) -> Batch:
    of_inside, of_start, of_ends = jax.random.split(key, 3)
    start, ends = (_latin_hypercube(of, _ON_A_SIDE) for of in (of_start, of_ends))
    return {
        "inside": _latin_hypercube(of_inside, inside),
        "start": start * jnp.array([[1.0, 0.0]]),
        "ends": jnp.stack([jnp.where(ends[:, 0] < 0, -1.0, 1.0), ends[:, 1]], axis=1),
    }


def _latin_hypercube(key: Array, num: int) -> Array:
    """Draw points so that each interval of 1/num of either coordinate's range holds one."""
    of_order, of_offset = jax.random.split(key)
    order = jax.vmap(lambda key: jax.random.permutation(key, num))(jax.random.split(of_order))
    shares = (order.T + jax.random.uniform(of_offset, (num, 2))) / num
    low, high = jnp.array([BOX.low]), jnp.array([BOX.high])
    return low + (high - low) * shares
