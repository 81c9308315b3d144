"""Instance-wise risk minimisation on Fashion-MNIST: one loss an image, plain gradient descent."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._per_example import per_example
from jaxmtl.backward._routes import value_and_balanced_grad
from jaxmtl.balancing._base import Balancer
from jaxmtl.combinators._ridge import with_ridge
from jaxmtl.combinators._rounding import skip_rounding
from jaxmtl.gradients.dualproj import dualproj
from jaxmtl.gradients.mgda import mgda
from jaxmtl.gradients.pcgrad import pcgrad
from jaxmtl.gradients.upgrad import upgrad
from jaxmtl.losses.equal import equal
from jaxmtl.problems.multi_fashion import FOLDER, read_images
from jaxmtl.reproductions._runs import Record, Train, as_json
from jaxmtl.reproductions._seeds import for_each

BATCH = 32
IMAGES = 60_000
_KERNELS = {"conv_0": (3, 3, 1, 32), "conv_1": (3, 3, 1, 64), "conv_2": (3, 3, 1, 64)}
_LAYERS = {"dense_0": (576, 128), "dense_1": (128, 10)}


ROWS: dict[str, Callable[[], Balancer]] = {
    "equal": lambda: equal(num_tasks=BATCH),
    "upgrad": lambda: upgrad(num_tasks=BATCH),
    "dualproj": lambda: dualproj(num_tasks=BATCH),
    "mgda": lambda: mgda(num_tasks=BATCH),
    "pcgrad": lambda: pcgrad(0, num_tasks=BATCH),
    # As in the authors' library.
    "with_ridge(upgrad)": lambda: with_ridge(upgrad(num_tasks=BATCH), 1e-4),
    "with_ridge(dualproj)": lambda: with_ridge(dualproj(num_tasks=BATCH), 1e-4),
    # Below a hundredth of the longest.
    "skip_rounding(upgrad)": lambda: skip_rounding(upgrad(num_tasks=BATCH), 8e4),
}


def steps_of_epoch(size: int) -> int:
    """Count the batches of an epoch, or raise ValueError."""
    if size % BATCH or not BATCH <= size <= IMAGES:
        raise ValueError(
            f"size must be a multiple of {BATCH} from {BATCH} to {IMAGES}, but it is {size}."
        )
    return size // BATCH


def trainer(problem: str, size: int, row: str) -> Train:
    """Write the training of one row on the first images of a fixed random order.

    The network is the paper's: three convolutions, the second and third with as many groups as
    input channels, and two dense layers. The order of the images in an epoch, and the first
    parameters, are those of the seed, whatever the row.

    Args:
      problem: "fashion_mnist".
      size: how many images; a multiple of 32, and ``steps`` one of size / 32.
      row: one of ``ROWS``.

    Returns:
      ``train(rate, seeds, steps, advance)``. It returns the mean loss over all images after each
      epoch, one for each seed: "curve", and at the last step "at_last".
    """
    images, labels = _first_images(size)
    network = jax.vmap(logits, in_axes=(None, 0))
    balancer = ROWS[row]()
    step = value_and_balanced_grad(per_example(loss_of_one, in_axes=(None, 0, 0)), balancer)
    batches = steps_of_epoch(size)

    def start(key: Array) -> PyTree:
        params = init(key)
        return params, balancer.init(params)

    def epoch(key: Array, rate: Array, carry: PyTree, number: Array) -> tuple[PyTree, Array]:
        order = jax.random.permutation(jax.random.fold_in(key, number), size)

        def one_step(index: Array, carry: PyTree) -> PyTree:
            params, state = carry
            chosen = jax.lax.dynamic_slice_in_dim(order, index * BATCH, BATCH)
            _, grad, state = step(state, params, images[chosen], labels[chosen])
            return jax.tree.map(lambda p, g: p - rate * g, params, grad), state

        carry = jax.lax.fori_loop(0, batches, one_step, carry)
        losses = optax.softmax_cross_entropy_with_integer_labels(network(carry[0], images), labels)
        return carry, jnp.mean(losses)

    def epochs(keys: Array, rate: Array, carry: PyTree, number: Array) -> tuple[PyTree, Array]:
        def of_seed(given: tuple[Array, PyTree]) -> tuple[PyTree, Array]:
            return epoch(given[0], rate, given[1], number)

        return for_each(of_seed, (keys, carry))

    run = jax.jit(epochs, donate_argnums=2)

    def train(rate: float, seeds: int, steps: int, advance: Callable[[int], None]) -> Record:
        keys = jax.random.split(jax.random.key(0), seeds)
        carry, found = jax.jit(jax.vmap(start))(keys), []
        for number in range(steps // batches):
            carry, losses = run(keys, jnp.float32(rate), carry, jnp.int32(number))
            found.append(as_json(losses, 6))
            advance(batches * seeds)
        return {"at_last": found[-1], "curve": found}

    return train


def init(key: Array) -> PyTree:
    """Draw parameters as PyTorch does for such layers: uniformly up to 1 / sqrt(inputs)."""
    shapes = _KERNELS | _LAYERS
    params = {}
    for layer_key, (name, shape) in zip(
        jax.random.split(key, len(shapes)), shapes.items(), strict=True
    ):
        most, keys = np.prod(shape[:-1]) ** -0.5, jax.random.split(layer_key)
        params[name] = {
            "kernel": jax.random.uniform(keys[0], shape, minval=-most, maxval=most),
            "bias": jax.random.uniform(keys[1], shape[-1:], minval=-most, maxval=most),
        }
    return params


def logits(params: PyTree, image: Array) -> Array:
    """Compute the ten logits of one image (28, 28)."""
    x = jax.nn.elu(_convolve(params["conv_0"], image[None]))
    x = jax.nn.elu(_largest(_convolve(params["conv_1"], x), 2))
    x = jax.nn.elu(_largest(_convolve(params["conv_2"], x), 3))
    x = jnp.moveaxis(x, 0, -1).reshape(-1)
    x = jax.nn.elu(x @ params["dense_0"]["kernel"] + params["dense_0"]["bias"])
    return x @ params["dense_1"]["kernel"] + params["dense_1"]["bias"]


def loss_of_one(params: PyTree, image: Array, label: Array) -> Array:
    """Evaluate the cross-entropy of one image."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, image), label)


def _convolve(layer: PyTree, x: Array) -> Array:
    """Convolve an image (channels, height, width) in as many groups as it has channels.

    As one product for each group: XLA's own convolution in groups takes seconds on a CPU.
    """
    channels, height, width = x.shape[0], x.shape[1] - 2, x.shape[2] - 2
    places = [(i, j) for i in range(3) for j in range(3)]
    patches = jnp.stack([x[:, i : i + height, j : j + width] for i, j in places], axis=1)
    kernel = layer["kernel"].reshape(len(places), channels, -1)
    x = jnp.einsum("pco,cphw->cohw", kernel, patches)
    return x.reshape(-1, height, width) + layer["bias"][:, None, None]


def _largest(x: Array, width: int) -> Array:
    """Take the largest of each square; ``reduce_window`` is slow on a CPU."""
    size = x.shape[1] // width
    squares = x[:, : size * width, : size * width].reshape(-1, size, width, size, width)
    return squares.max(axis=(2, 4))


@functools.cache  # all rows train on the same
def _first_images(size: int) -> tuple[Array, Array]:
    images, labels = read_images("train", FOLDER)
    order: Any = np.random.default_rng(0).permutation(len(images))[:size]
    chosen = (images[order] - images.mean()) / images.std()
    return jnp.asarray(chosen, jnp.float32), jnp.asarray(labels[order], jnp.int32)
