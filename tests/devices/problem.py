"""A small problem of four tasks, the same on one device and on many."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmtl
from jaxmtl.methods import METHODS

NUM_TASKS = 4
STEPS = 5
# Axes that 8 divides come first, later or not at all, and one leaf is a scalar.
SHAPES = {
    "trunk": {"w": (8, 16), "b": (16,), "scale": (16,), "wider": (16, 24), "gain": ()},
    "heads": {"depth": (24,), "labels": (24, 3), "images": (24, 8), "total": (3, 8)},
}
LOSSES = (1.5, 0.5, 2.5, 1.0)
UPDATE_METHODS = (
    "mgda",
    "upgrad",
    "pcgrad",
    "normalize",
    "uncertainty",
    "imtl_g",
    "moco",
    "graddrop",
)
TRAINED_METHODS = ("mgda", "normalize")


def make(name):
    return METHODS[name].make(NUM_TASKS, jax.random.key(7))


def shapes():
    """The parameters' shapes, as leaves."""
    return jax.tree.map(tuple, SHAPES, is_leaf=lambda node: isinstance(node, tuple))


def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: np.asarray(rng.normal(size=shape) / 3 + (shape == ()), np.float32),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def stacked_grads(step):
    """Gradients that partly conflict, of norms that differ by a factor of a hundred."""
    rng = np.random.default_rng(10 + step)
    sizes = np.array([1.0, 0.1, 3.0, 0.03])

    def draw(shape):
        common = rng.normal(size=shape)
        rows = rng.normal(size=(NUM_TASKS, *shape)) + 0.3 * common
        return (rows * sizes.reshape(-1, *[1] * len(shape))).astype(np.float32)

    return jax.tree.map(draw, SHAPES, is_leaf=lambda node: isinstance(node, tuple))


def batch():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(32, 8)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[rng.integers(0, 3, size=32)]
    return {"x": x, "labels": labels, "total": 30 * x.sum(axis=1) + 50}


def make_losses_fn(dense):
    """The four losses; ``dense`` is the product of (batch, in) with (in, out)."""

    def losses_fn(params, batch):
        trunk, heads = params["trunk"], params["heads"]
        h = dense(batch["x"], trunk["w"]) + trunk["b"][None]
        h = h - jnp.mean(h, axis=1, keepdims=True)
        h = h / jnp.sqrt(jnp.mean(h**2, axis=1, keepdims=True) + 1e-5) * trunk["scale"][None]
        h = jnp.tanh(dense(trunk["gain"] * jnp.tanh(h), trunk["wider"]))
        depth = dense(h, heads["depth"][:, None])[:, 0]
        logits = dense(h, heads["labels"])
        images = dense(h, heads["images"])
        total = jnp.sum(images * jnp.sum(heads["total"], axis=0)[None], axis=1)
        return {
            "depth": jnp.mean((depth - 3.0) ** 2),
            "images": jnp.mean((images - batch["x"]) ** 2),
            "labels": jnp.mean(optax.softmax_cross_entropy(logits, batch["labels"])),
            "total": jnp.mean((total - batch["total"]) ** 2),
        }

    return losses_fn


def make_step(losses_fn, name):
    """One training step and its optimizer."""
    optimizer = optax.chain(make(name), optax.adam(1e-2))

    def step(params, opt_state, batch):
        losses, grads = jaxmtl.value_and_task_grads(losses_fn)(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params, losses=losses)
        return optax.apply_updates(params, updates), opt_state, jnp.stack(jax.tree.leaves(losses))

    return optimizer, step
