"""MGDA's normalisers and diagnostics; the solver has tests of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.references import J2, gradients, min_norm_weights, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")

LOSSES = np.array([0.5, 4.0, 2.0, 30.0])


@pytest.mark.parametrize(
    ("normalizer", "scale"),
    [
        ("none", lambda norms, losses: np.ones(4)),
        ("l2", lambda norms, losses: norms),
        ("loss", lambda norms, losses: losses),
        ("loss+", lambda norms, losses: norms * losses),
    ],
)
def test_normalizers(normalizer, scale):
    j = gradients(0, 4, 30, spread=1)
    balancer = jaxmtl.mgda(normalizer=normalizer)
    grads = jnp.asarray(j, jnp.float32)
    updates, _ = jax.jit(balancer.update)(grads, balancer.init(jnp.zeros(30)), losses=LOSSES)
    weights = min_norm_weights(j / scale(np.linalg.norm(j, axis=1), LOSSES)[:, None])
    assert relative_error(updates, weights @ j) < 1e-4


def test_reference_direction_and_diagnostics():
    balancer = jaxmtl.mgda()
    grads = jnp.asarray(J2, jnp.float32)
    updates, state = balancer.update(grads, balancer.init(jnp.zeros(3)))
    np.testing.assert_allclose(updates, [0, 1, 1], atol=1e-6)
    assert state.method.gap < 1e-6
    assert state.method.iterations == 0  # two tasks: closed form
    j = jnp.asarray(gradients(1, 6, 30), jnp.float32)
    _, state = balancer.update(j, balancer.init(jnp.zeros(30)))
    assert 0 < state.method.iterations < 100
    assert state.method.gap < 1e-6


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e5, 1e6])
@pytest.mark.parametrize("longest", [0, 1])
def test_two_tasks_of_very_different_length(ratio, longest):
    """The small weight belongs to the long gradient: an error of 1e-7 in it would rule."""
    balancer = jaxmtl.mgda()
    update = jax.jit(balancer.update)
    for seed in range(30):
        j = np.random.default_rng(seed).normal(size=(2, 4))
        j[longest] *= ratio
        j = j.astype(np.float32).astype(np.float64)
        d, _ = update(jnp.asarray(j, jnp.float32), balancer.init(jnp.zeros(4)))
        d = np.asarray(d, np.float64)
        assert np.all(j @ d >= -1e-6 * np.linalg.norm(j, axis=1) * np.linalg.norm(d))


@pytest.mark.parametrize("normalizer", ["loss", "loss+"])
def test_a_task_of_zero_loss_has_no_weight_where_losses_normalise(normalizer):
    balancer = jaxmtl.mgda(normalizer=normalizer, num_tasks=3)
    losses = jnp.array([0.0, 1.0, 1.0])
    _, state = balancer.update(jnp.eye(3), balancer.init(jnp.zeros(3)), losses=losses)
    np.testing.assert_allclose(state.task_weights, [0, 0.5, 0.5], rtol=1e-6)
    _, state = balancer.update(jnp.eye(3), state, losses=jnp.zeros(3))
    np.testing.assert_array_equal(state.task_weights, [0, 0, 0])


def test_every_loss_falls_along_the_update():
    for seed in range(10):
        j = gradients(seed, 6, 30, kind="conflicting")
        balancer = jaxmtl.mgda()
        d, _ = balancer.update(jnp.asarray(j, jnp.float32), balancer.init(jnp.zeros(30)))
        d = np.asarray(d, np.float64)
        assert np.all(j @ d >= (d @ d) * (1 - 1e-4))
