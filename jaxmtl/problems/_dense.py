"""A dense network with a shared trunk and a linear head for each task."""

import itertools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._typing import Array, PyTree


def init_dense(key: Array, trunk: Sequence[int], heads: Mapping[str, int]) -> PyTree:
    """Draw LeCun normal kernels and zero biases.

    Args:
      key: the key of the random numbers.
      trunk: the number of inputs, then the number of units in each hidden layer; at most ten
        layers.
      heads: task -> number of outputs.

    Returns:
      ``{"trunk": {"hidden_0": layer, ...}, "heads": {task: layer}}``, each layer a "kernel"
      (in, out) and a "bias" (out,).
    """
    layers = [("trunk", f"hidden_{i}", *shape) for i, shape in enumerate(itertools.pairwise(trunk))]
    layers += [("heads", task, trunk[-1], columns) for task, columns in heads.items()]
    # One draw, cut into kernels: under jit, a draw per kernel takes seconds longer to compile.
    normals = jax.random.normal(key, (sum(rows * columns for *_, rows, columns in layers),))
    params: dict[str, dict[str, PyTree]] = {"trunk": {}, "heads": {}}
    start = 0
    for part, name, rows, columns in layers:
        stop = start + rows * columns
        kernel = normals[start:stop].reshape(rows, columns) * rows**-0.5
        params[part][name] = {"bias": jnp.zeros(columns), "kernel": kernel}
        start = stop
    return params


def apply_dense(params: PyTree, inputs: Array | np.ndarray) -> dict[str, Array]:
    """Compute every head's output, (B, columns), from inputs (B, in)."""
    x = _features(params["trunk"], inputs)
    return {task: _affine(head, x) for task, head in params["heads"].items()}


def apply_dense_columns(params: PyTree, inputs: Array | np.ndarray) -> Array:
    """Compute the outputs of heads with one each, (B, T), in the sorted order of the tasks."""
    # One product for all heads: many small ones take long to compile.
    heads = [params["heads"][task] for task in sorted(params["heads"])]
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *heads)
    return _affine(joined, _features(params["trunk"], inputs))


def _features(trunk: PyTree, inputs: Array | np.ndarray) -> Array:
    x = jnp.asarray(inputs)
    for name in sorted(trunk):
        x = jax.nn.relu(_affine(trunk[name], x))
    return x


def _affine(layer: PyTree, x: Array) -> Array:
    return x @ layer["kernel"] + layer["bias"][None, :]
