"""Four small networks, each written once with JAX and once with PyTorch, on the same numbers.

A network is a trunk, from inputs to features (batch, width), and a linear head with a squared error
for each task. ``trunk(ops, params, x)`` serves both libraries: ``ops`` is ``Jax``, or the ``Torch``
of ``against_torchjd``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, Any]


class Model(NamedTuple):
    """A trunk, its parameters, heads (width,) by task, and a batch; channels last, in NumPy."""

    trunk: Callable[[Any, Params, Any], Any]
    params: Params
    heads: Params
    batch: np.ndarray


def losses_fn(trunk: Callable[..., Any], params: Params, x: jax.Array) -> dict[str, jax.Array]:
    """The losses, by task, in JAX."""
    features = trunk(Jax, params["trunk"], x)
    return {task: jnp.mean((features @ w - 1) ** 2) for task, w in params["heads"].items()}


class Jax:
    """What the trunks need, in JAX."""

    relu, softmax, gelu = jax.nn.relu, jax.nn.softmax, jax.nn.gelu
    normal = staticmethod(lambda x: jax.nn.standardize(x, axis=-1, epsilon=1e-5))

    @staticmethod
    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        """3x3, same size, channels last."""
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)

    @staticmethod
    def mean_of_pixels(x: jax.Array) -> jax.Array:
        """From (batch, height, width, channels) to (batch, channels)."""
        return x.mean((1, 2))


def mlp(num_tasks: int, width: int, depth: int, batch: int) -> Model:
    """Square layers."""
    draw = _drawer()

    def trunk(ops: Any, params: Params, x: Any) -> Any:
        for layer in params.values():
            x = ops.relu(x @ layer)
        return x

    layers = {f"layer_{i}": draw(width, width, fan_in=width) for i in range(depth)}
    return Model(trunk, layers, _heads(draw, num_tasks, width), draw(batch, width))


def conv_net(num_tasks: int, channels: int = 16, size: int = 16, batch: int = 32) -> Model:
    """Three convolutions and a mean over the pixels."""
    draw = _drawer()

    def trunk(ops: Any, params: Params, x: Any) -> Any:
        for kernel in params.values():
            x = ops.relu(ops.conv(x, kernel))
        return ops.mean_of_pixels(x)

    kernels = {
        f"layer_{i}": draw(3, 3, inputs, channels, fan_in=4 * inputs)
        for i, inputs in enumerate((3, channels, channels))
    }
    heads = _heads(draw, num_tasks, channels)
    return Model(trunk, kernels, heads, draw(batch, size, size, 3))


def transformer(
    num_tasks: int, width: int = 64, depth: int = 2, length: int = 32, batch: int = 16
) -> Model:
    """Attention of four heads and a feed-forward layer, each behind a normalisation."""
    draw, attention_heads = _drawer(), 4

    def split(x: Any) -> Any:  # (batch, length, width) -> (batch, attention head, length, part)
        return x.reshape(batch, length, attention_heads, -1).swapaxes(1, 2)

    def trunk(ops: Any, params: Params, x: Any) -> Any:
        for layer in params.values():
            normal = ops.normal(x)
            query, key, value = (split(normal @ layer[name]) for name in ("q", "k", "v"))
            scores = query @ key.swapaxes(2, 3) / (width / attention_heads) ** 0.5
            mixed = (ops.softmax(scores) @ value).swapaxes(1, 2).reshape(batch, length, width)
            x = x + mixed @ layer["o"]
            x = x + ops.gelu(ops.normal(x) @ layer["up"]) @ layer["down"]
        return x.mean(1)

    def block() -> Params:
        square = {name: draw(width, width, fan_in=width) for name in "qkvo"}
        wide = {"up": draw(width, 4 * width, fan_in=width)}
        return square | wide | {"down": draw(4 * width, width, fan_in=4 * width)}

    blocks = {f"layer_{i}": block() for i in range(depth)}
    return Model(trunk, blocks, _heads(draw, num_tasks, width), draw(batch, length, width))


MODELS: dict[str, Callable[[int], Model]] = {
    "narrow MLP": lambda t: mlp(t, width=64, depth=3, batch=128),
    "wide MLP": lambda t: mlp(t, width=512, depth=4, batch=512),
    "convolutions": conv_net,
    "transformer": transformer,
}


def _drawer() -> Callable[..., np.ndarray]:
    rng = np.random.default_rng(0)

    def draw(*shape: int, fan_in: int = 1) -> np.ndarray:
        return (rng.normal(size=shape) / fan_in**0.5).astype(np.float32)

    return draw


def _heads(draw: Callable[..., np.ndarray], num_tasks: int, width: int) -> Params:
    return {f"task_{i:02}": draw(width, fan_in=width) for i in range(num_tasks)}
