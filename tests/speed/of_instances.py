"""One loss an example: steps beside a plain one, and beside TorchJD's autogram."""

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmtl
from tests.references import relative_error
from tests.speed.measure import Ratio, compare
from tests.speed.models import Jax

SIZES = (784, 256, 256, 10)


def instances() -> Iterator[Ratio]:
    """A plain step on the mean over ours: what a plain step costs, were that one."""
    for kind, network, batches in (
        ("MLP", _dense, (64, 256)),
        ("convolutions", _convolutions, (32,)),
        ("transformer", _transformer, (32,)),
    ):
        for examples in batches:
            params, inputs, apply = network(np.random.default_rng(0), examples)
            labels = np.arange(examples) % 10

            def losses(params: Any, x: Any, apply: Any = apply, labels: Any = labels) -> Any:
                logits = apply(params, x)
                return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array(labels))

            def mean(params: Any, x: Any, losses: Any = losses) -> Any:
                return jnp.mean(losses(params, x))

            plain = _jitted(jax.value_and_grad(mean), params, inputs)
            for name in ("dualproj", "upgrad"):
                balancer = getattr(jaxmtl, name)(num_tasks=examples)
                step = jaxmtl.value_and_balanced_grad(losses, balancer)
                ours = _jitted(step, balancer.init(params), params, inputs)
                case = f"{kind}, {name}, N = {examples}"
                yield compare("one loss an example beside a plain step", case, ours, plain)
                if kind == "MLP" and importlib.util.find_spec("torchjd"):
                    theirs = _autogram(params, inputs, labels, name)
                    pairs = zip(jax.tree.leaves(ours()[1]), theirs(), strict=True)
                    apart = max(relative_error(g.ravel(), t.numpy().T.ravel()) for g, t in pairs)
                    row = compare("one loss an example beside TorchJD", case, ours, theirs)
                    yield row._replace(note=f"gradients differ by {apart:.0e}")


def _jitted(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    jitted = jax.jit(function)
    return lambda: jitted(*args)


def _draw(rng: np.random.Generator, *shape: int) -> jax.Array:
    fan_in = max(1, int(np.prod(shape[:-1])))
    return jnp.asarray(rng.normal(size=shape) / np.sqrt(fan_in), jnp.float32)


def _dense(rng: np.random.Generator, examples: int) -> Any:
    params = [(_draw(rng, a, b), jnp.zeros(b)) for a, b in itertools.pairwise(SIZES)]

    def apply(params: Any, x: Any) -> Any:
        for kernel, bias in params[:-1]:
            x = jax.nn.relu(x @ kernel + bias[None])
        kernel, bias = params[-1]
        return x @ kernel + bias[None]

    return params, jnp.asarray(rng.normal(size=(examples, SIZES[0])), jnp.float32), apply


def _convolutions(rng: np.random.Generator, examples: int) -> Any:
    """The network of Quinton & Rey (2024), appendix D."""
    shapes = (3, 3, 1, 32), (3, 3, 32, 64), (3, 3, 64, 64), (576, 128), (128, 10)

    def apply(params: Any, x: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        for i, kernel in enumerate(params[:3]):
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers)
            if i:
                window = (1, i + 1, i + 1, 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
            x = jax.nn.elu(x)
        x = jax.nn.elu(x.reshape(len(x), -1) @ params[3])
        return x @ params[4]

    images = jnp.asarray(rng.normal(size=(examples, 28, 28, 1)), jnp.float32)
    return [_draw(rng, *shape) for shape in shapes], images, apply


def _transformer(rng: np.random.Generator, examples: int) -> Any:
    """Two blocks of width 64 on 32 positions."""
    shapes = {"qkv": (64, 192), "out": (64, 64), "up": (64, 256), "down": (256, 64)}
    blocks = [{name: _draw(rng, *shape) for name, shape in shapes.items()} for _ in range(2)]

    def apply(params: Any, x: Any) -> Any:
        for block in params["blocks"]:
            q, k, v = jnp.split(Jax.normal(x) @ block["qkv"], 3, axis=-1)
            weights = jax.nn.softmax(jnp.einsum("nsd,ntd->nst", q, k) / 8, axis=-1)
            x = x + jnp.einsum("nst,ntd->nsd", weights, v) @ block["out"]
            x = x + jax.nn.gelu(Jax.normal(x) @ block["up"]) @ block["down"]
        return jnp.mean(x, axis=1) @ params["head"]

    params = {"blocks": blocks, "head": _draw(rng, 64, 10)}
    return params, jnp.asarray(rng.normal(size=(examples, 32, 64)), jnp.float32), apply


def _autogram(params: Any, inputs: Any, labels: np.ndarray, name: str) -> Callable[[], Any]:
    """TorchJD's recommended way: the Gramian by its engine, then one weighted backward pass."""
    import torch
    from torchjd.aggregation import DualProjWeighting, UPGradWeighting
    from torchjd.autogram import Engine

    layers: list[Any] = []
    for kernel, bias in params:
        layer = torch.nn.Linear(*kernel.shape)
        layer.weight.data, layer.bias.data = (torch.tensor(np.array(x)) for x in (kernel.T, bias))
        layers += [layer, torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    engine = Engine(network, batch_dim=0)
    weighting = {"upgrad": UPGradWeighting, "dualproj": DualProjWeighting}[name]()
    x, y = torch.tensor(np.array(inputs)), torch.tensor(labels)

    def step() -> list[Any]:
        network.zero_grad()
        losses = torch.nn.functional.cross_entropy(network(x), y, reduction="none")
        losses.backward(weighting(engine.compute_gramian(losses)))
        return [parameter.grad for parameter in network.parameters()]

    return step
