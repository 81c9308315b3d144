"""Shared parts of the physics-informed problems: a tanh network, its derivatives, sampled points.

Residuals of differential equations need the value of the network, its slopes, and one sum of second
derivatives. All of them are propagated together, in forward mode: one matrix product per layer, for
D + 2 arrays with D coordinates.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._typing import Array, PyTree
from jaxmtl.problems._problem import Batch, Problem


class Box(NamedTuple):
    """The domain of a problem: a rectangle.

    Attributes:
      low: the smallest value of each coordinate.
      high: the largest value of each coordinate.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each coordinate of points drawn uniformly."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        return (low + high) / 2, (high - low) / np.sqrt(12)

    def uniform(self, key: Array, num: int) -> Array:
        """Draw points, (num, D)."""
        low, high = jnp.array([self.low]), jnp.array([self.high])
        return low + (high - low) * jax.random.uniform(key, (num, len(self.low)))

    def grid(self, num: int) -> np.ndarray:
        """Lay a grid of num points along two coordinates, ends included: (num^2, 2), float64."""
        lines = [np.linspace(*ends, num) for ends in zip(self.low, self.high, strict=True)]
        return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(lines))


UNSCALED = np.zeros(2), np.ones(2)


def init_tanh(key: Array, widths: Sequence[int], bias: float = 0.0) -> PyTree:
    """Draw Glorot normal kernels; all biases are the same.

    Args:
      key: the key of the random numbers.
      widths: the numbers of inputs, of units in each hidden layer, of outputs; at most ten layers.
      bias: their initial value.

    Returns:
      ``{"trunk": {"layer_0": layer, ...}, "heads": {}}``, each layer a "kernel" (in, out) and a
      "bias" (out,).
    """
    trunk, keys = {}, jax.random.split(key, len(widths) - 1)
    for i, shape in enumerate(itertools.pairwise(widths)):
        kernel = (2 / sum(shape)) ** 0.5 * jax.random.normal(keys[i], shape)
        trunk[f"layer_{i}"] = {"bias": jnp.full(shape[1], bias, kernel.dtype), "kernel": kernel}
    return {"trunk": trunk, "heads": {}}


def evaluate(
    params: PyTree, points: Array | np.ndarray, scaling: tuple[np.ndarray, np.ndarray]
) -> Array:
    """Evaluate the network, (N,), at points (N, D), standardised by mean and deviation."""
    points = jnp.asarray(points)
    *hidden, last = _layers(params)
    mean, deviation = (jnp.asarray(x, points.dtype)[None] for x in scaling)
    x = (points - mean) / deviation
    for layer in hidden:
        x = jnp.tanh(x @ layer["kernel"] + layer["bias"][None])
    return (x @ last["kernel"] + last["bias"][None])[:, 0]


def evaluate_with_derivatives(
    params: PyTree,
    points: Array | np.ndarray,
    scaling: tuple[np.ndarray, np.ndarray],
    curvature: tuple[float, ...],
) -> tuple[Array, Array, Array]:
    """Evaluate the network, its slopes, and a weighted sum of its second derivatives.

    Through a layer z = h W + b, all of them transform as h does; through a = tanh z, a' = 1 - a^2,
      a_d = a' z_d,      sum_d c_d a_dd = a' sum_d c_d z_dd - 2 a a' sum_d c_d z_d^2.

    Args:
      params: as from ``init_tanh``.
      points: (N, D).
      scaling: as for ``evaluate``; the derivatives are with respect to the points themselves.
      curvature: c, one number for each coordinate; (1, 1) is the Laplacian.

    Returns:
      The values (N,), the slopes (D, N), and sum_d c_d u_dd (N,).
    """
    first, *rest = _layers(params)
    points = jnp.asarray(points)
    mean, deviation = (jnp.asarray(x, points.dtype)[None] for x in scaling)
    weights = jnp.asarray(curvature, points.dtype)[:, None, None]
    value = ((points - mean) / deviation) @ first["kernel"] + first["bias"][None]
    slopes = (first["kernel"] / deviation.T)[:, None]  # the same at every point
    second = jnp.zeros_like(value)
    for layer in rest:
        a = jnp.tanh(value)
        slope = 1 - a**2
        second = slope * (second - 2 * a * jnp.sum(weights * slopes**2, axis=0))
        streams = jnp.concatenate([a[None], slope[None] * slopes, second[None]]) @ layer["kernel"]
        value, slopes, second = streams[0] + layer["bias"][None], streams[1:-1], streams[-1]
    return value[:, 0], slopes[..., 0], second[:, 0]


def _layers(params: PyTree) -> list[PyTree]:
    return [params["trunk"][name] for name in sorted(params["trunk"])]


def mean_squares(
    residuals: Callable[[PyTree, Batch], dict[str, Array]],
) -> Callable[[PyTree, Batch], dict[str, Array]]:
    """Write ``(params, batch) -> losses`` for residuals whose losses are means of squares."""

    def losses(params: PyTree, batch: Batch) -> dict[str, Array]:
        return {task: jnp.mean(r**2) for task, r in residuals(params, batch).items()}

    return losses


def of_dcgd(
    name: str,
    box: Box,
    residuals: Callable[[PyTree, Batch], dict[str, Array]],
    solution: Callable[[np.ndarray], Array],
    on_edge: Callable[[np.ndarray], np.ndarray],
    sample: Callable[[Array], Batch],
) -> Problem:
    """Build a problem of two losses with DCGD's network, evaluated on a grid of 100 x 100 points.

    Args:
      name: the name of the problem.
      box: its domain.
      residuals: ``(params, batch) -> {"boundary": ..., "residual": ...}``.
      solution: points (N, 2) -> (N,).
      on_edge: points (N, 2) -> (N,) bool, the points with given values.
      sample: key -> batch.
    """
    points = box.grid(100)
    return Problem(
        name=name,
        tasks=("boundary", "residual"),
        init=lambda key: init_tanh(key, (2, 50, 50, 50, 1)),
        losses=mean_squares(residuals),
        metrics=relative_errors(lambda params, points: evaluate(params, points, box.scaling)),
        maximize={"boundary": False, "residual": False},
        metric_names={"boundary": "relative error on the edge", "residual": "relative L2 error"},
        sample=sample,
        test={
            "points": points.astype(np.float32),
            "exact": np.asarray(solution(points), np.float32),
            "edge": on_edge(points),
        },
        learning_rate=5e-3,
        steps=1000,
        shared={"trunk": True, "heads": False},
    )


def relative_errors(
    value: Callable[[PyTree, Array | np.ndarray], Array],
) -> Callable[[PyTree, Batch], dict[str, Array]]:
    """Write the metrics: errors on the edge and everywhere, relative to the solution's size.

    Args:
      value: ``(params, points) -> (N,)``, the network.

    Returns:
      ``(params, split) -> {"boundary": ..., "residual": ...}``, root mean squares over the
      solution's; "residual", over all points, is the relative L2 error.
    """

    def metrics(params: PyTree, split: Batch) -> dict[str, Array]:
        error, size = value(params, split["points"]) - split["exact"], jnp.mean(split["exact"] ** 2)
        edge = split["edge"].astype(error.dtype)
        return {
            "boundary": jnp.sqrt(jnp.sum(edge * error**2) / jnp.sum(edge) / size),
            "residual": jnp.sqrt(jnp.mean(error**2) / size),
        }

    return metrics
