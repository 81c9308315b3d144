"""Instance-wise risk minimisation: the network, the training, what is stored."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxmtl.reproductions import _images, load

SIZE = 64


@pytest.fixture
def images(monkeypatch):
    """Images with a bright row that tells the label."""
    rng = np.random.default_rng(0)
    labels = np.arange(SIZE) % 10
    drawn = rng.normal(size=(SIZE, 28, 28)).astype(np.float32)
    drawn[np.arange(SIZE), 2 * labels + 3] += 3
    found = jnp.asarray(drawn), jnp.asarray(labels, jnp.int32)
    monkeypatch.setattr(_images, "_first_images", lambda size: found)
    return found


class Network(nn.Module):
    """The same layers, in flax."""

    @nn.compact
    def __call__(self, x):
        x = nn.elu(nn.Conv(32, (3, 3), padding="VALID", name="conv_0")(x))
        x = nn.Conv(64, (3, 3), padding="VALID", feature_group_count=32, name="conv_1")(x)
        x = nn.elu(nn.max_pool(x, (2, 2), (2, 2)))
        x = nn.Conv(64, (3, 3), padding="VALID", feature_group_count=64, name="conv_2")(x)
        x = nn.elu(nn.max_pool(x, (3, 3), (3, 3)))
        x = nn.elu(nn.Dense(128, name="dense_0")(x.reshape(len(x), -1)))
        return nn.Dense(10, name="dense_1")(x)


def test_the_network_is_that_of_flax(images):
    params = _images.init(jax.random.key(1))
    found = jax.vmap(_images.logits, (None, 0))(params, images[0][:3])
    expected = Network().apply({"params": params}, images[0][:3, ..., None])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_mean_is_trained_as_by_hand(images):
    advanced = []
    train = _images.trainer("fashion_mnist", SIZE, "equal")
    found = train(0.1, 2, 4, advanced.append)
    assert sum(advanced) == 2 * 4

    @jax.jit
    def mean_loss(params, x, y):
        logits = Network().apply({"params": params}, x[..., None])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    for seed, key in enumerate(jax.random.split(jax.random.key(0), 2)):
        params = _images.init(key)
        for epoch in range(2):
            order = jax.random.permutation(jax.random.fold_in(key, epoch), SIZE)
            for rows in (order[:32], order[32:]):
                grads = jax.grad(mean_loss)(params, images[0][rows], images[1][rows])
                params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
            expected = mean_loss(params, *images)
            np.testing.assert_allclose(found["curve"][epoch][seed], expected, rtol=1e-3)
    assert found["at_last"] == found["curve"][-1]


RATES = {"equal": 0.3, "mgda": 0.3, "upgrad": 0.1, "dualproj": 0.15, "pcgrad": 0.05 / 32}  # a sum
RATES |= {"with_ridge(upgrad)": 0.1, "with_ridge(dualproj)": 0.15, "skip_rounding(upgrad)": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize("row", _images.ROWS)
def test_every_row_trains(images, row):
    found = _images.trainer("fashion_mnist", SIZE, row)(RATES[row], 1, 16, lambda n: None)
    assert found["at_last"][0] < 0.8 * found["curve"][0][0]


def test_what_is_stored():
    for run in load("iwrm"):
        assert len(run["curve"]) == run["steps"] * 32 // run["size"] == 25
        assert len(run["at_last"]) == run["seeds"]
        assert run["curve"][-1] == run["at_last"]
