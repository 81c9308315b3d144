"""A small problem of four tasks, the same on one device and on many."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmtl
from jaxmtl.methods import METHODS

NUM_TASKS = 4
# Eight divides a first axis, a later one, both or none; one leaf is a scalar.
SHAPES = {
    "trunk": {"w": (8, 16), "b": (16,), "gain": ()},
    "heads": {"images": (16, 8), "labels": (16, 3), "total": (3, 8)},
}
LOSSES = (1.5, 0.5, 2.5, 1.0)
UPDATED = ("graddrop", "imtl_g", "mgda", "moco", "normalize", "pcgrad", "uncertainty", "upgrad")
UPDATES = 3
TRAINED = "mgda"
STEPS = 5


def make(name):
    return METHODS[name].make(NUM_TASKS, jax.random.key(7))


def _each_shape(function):
    return jax.tree.map(function, SHAPES, is_leaf=lambda node: isinstance(node, tuple))


def params():
    rng = np.random.default_rng(0)
    return _each_shape(lambda shape: np.asarray(rng.normal(size=shape) / 3, np.float32))


def stacked_grads():
    """Gradients of some steps, (UPDATES, T, *leaf.shape): conflicting, of unlike lengths."""
    rng = np.random.default_rng(1)
    lengths = np.array([1.0, 0.1, 3.0, 0.03])

    def draw(shape):
        per_task = rng.normal(size=(UPDATES, NUM_TASKS, *shape))
        per_task -= 0.7 * per_task.mean(axis=1, keepdims=True)
        return (per_task * lengths.reshape(-1, *[1] * len(shape))).astype(np.float32)

    return _each_shape(draw)


def leaves():
    """The parameters' leaves."""
    return jax.tree.leaves(params())


def stacked_leaves():
    return jax.tree.leaves(stacked_grads())


def batch():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(32, 8)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[rng.integers(0, 3, size=32)]
    return {"x": x, "labels": labels, "total": 30 * x.sum(axis=1) + 50}


def make_losses_fn(dense=jnp.matmul, gather=lambda params: params):
    """Four losses of a network with a normalisation layer.

    Args:
      dense: the product of (batch, in) with (in, out).
      gather: what is done to the parameters before they are used.
    """

    def losses_fn(params, batch):
        params = gather(params)
        trunk, heads = params["trunk"], params["heads"]
        h = dense(batch["x"], trunk["w"])
        h = h - jnp.mean(h, axis=1, keepdims=True)
        h = h / jnp.sqrt(jnp.mean(h**2, axis=1, keepdims=True) + 1e-5)
        h = jnp.tanh(h * (1 + trunk["gain"]) + trunk["b"][None])
        images = dense(h, heads["images"])
        errors = {
            "depth": 3 * jnp.mean(h, axis=1) - batch["x"][:, 0],
            "images": images - batch["x"],
            "total": jnp.sum(images * jnp.sum(heads["total"], axis=0)[None], axis=1)
            - batch["total"],
        }
        losses = {name: jnp.mean(error**2) for name, error in errors.items()}
        logits = dense(h, heads["labels"])
        return losses | {"labels": jnp.mean(optax.softmax_cross_entropy(logits, batch["labels"]))}

    return losses_fn


def make_training(losses_fn):
    """The optimizer, and a step from parameters, its state and a batch to new ones and losses."""
    optimizer = optax.chain(make(TRAINED), optax.adam(1e-2))

    def step(params, opt_state, batch):
        losses, grads = jaxmtl.value_and_task_grads(losses_fn)(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params, losses=losses)
        return optax.apply_updates(params, updates), opt_state, jnp.stack(jax.tree.leaves(losses))

    return optimizer, step


def as_lists(tree):
    """A tree of arrays that every process can see as lists, by path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf).tolist()
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
