"""GradNorm against its objective, differentiated numerically in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from tests.references import gradients, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")


def objective(w, norms, rates, alpha, mean):
    return np.sum(np.abs(w * norms - mean * rates**alpha))


@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
def test_steps_follow_the_objective(alpha):
    """Several SGD steps, against central differences of L_grad with its target held fixed."""
    rate, num = 1e-3, 4
    balancer = jaxmtl.gradnorm(num, alpha=alpha, optimizer=optax.sgd(rate))
    state, w, first = balancer.init(jnp.zeros(20)), np.ones(num), None
    update = jax.jit(balancer.update)
    for step in range(6):
        j = gradients(step, num, 20, spread=2)
        losses = np.random.default_rng(step).uniform(0.5, 3, num)
        updates, state = update(jnp.asarray(j, jnp.float32), state, losses=losses)
        assert relative_error(updates, w @ j) < 1e-5
        np.testing.assert_allclose(state.task_weights, w, rtol=1e-5)
        first = losses if first is None else first
        norms = np.linalg.norm(j, axis=1)
        ratio = losses / first
        rates, mean = ratio / ratio.mean(), np.mean(w * norms)
        h = 1e-7 * np.eye(num)
        slope = [
            (
                objective(w + e, norms, rates, alpha, mean)
                - objective(w - e, norms, rates, alpha, mean)
            )
            / 2e-7
            for e in h
        ]
        w = np.maximum(w - rate * np.array(slope) / mean, 0)
        w = num * w / w.sum()


def test_fixed_point_has_equal_norms_corrected_for_speed():
    """With steady gradients and losses, w_i n_i / r_i^alpha ends up equal.

    For alpha = 1, that is: the targets N r_i^alpha then sum to what the w_i n_i sum to.
    """
    alpha, norms = 1.0, np.array([1.0, 10.0, 0.3])
    losses_then, losses_now = jnp.array([1.0, 2.0, 4.0]), jnp.array([0.5, 1.5, 1.0])
    decaying = optax.sgd(optax.cosine_decay_schedule(5e-3, 20_000))
    balancer = jaxmtl.gradnorm(3, alpha=alpha, optimizer=decaying, initial_losses=losses_then)
    grads = jnp.asarray(np.diag(norms), jnp.float32)

    def step(state, _):
        return balancer.update(grads, state, losses=losses_now)[1], None

    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, length=20_000))(balancer.init(jnp.zeros(3)))
    ratio = np.asarray(losses_now / losses_then)
    rates = ratio / ratio.mean()
    weights = np.asarray(state.task_weights)
    np.testing.assert_allclose(weights.sum(), 3, rtol=1e-5)
    balanced = weights * norms / rates**alpha
    np.testing.assert_allclose(balanced / balanced.mean(), 1, atol=0.02)


def test_weights_stay_at_or_above_zero_and_sum_to_their_number():
    balancer = jaxmtl.gradnorm(3, optimizer=optax.sgd(100.0))
    state = balancer.init(jnp.zeros(20))
    for step in range(5):
        j = jnp.asarray(gradients(step, 3, 20, spread=3), jnp.float32)
        _, state = balancer.update(j, state, losses=jnp.array([1.0, 2.0, 0.1]) * (1 + step))
        assert np.all(state.task_weights >= 0)
        np.testing.assert_allclose(state.task_weights.sum(), 3, rtol=1e-5)


def test_tiny_gradients_are_balanced_like_large_ones():
    """Adam's epsilon is absolute; the derivative it sees must not be."""

    def weights(scale):
        balancer = jaxmtl.gradnorm(2)
        state = balancer.init(jnp.zeros(2))
        for _ in range(20):
            grads = scale * jnp.array([[1.0, 0.0], [0.0, 9.0]])
            _, state = balancer.update(grads, state, losses=jnp.ones(2))
        return np.asarray(state.task_weights)

    assert weights(1.0)[0] > 1.3
    np.testing.assert_allclose(weights(1e-12), weights(1.0), rtol=1e-4)


def test_present_tasks_keep_their_sum_and_absent_ones_their_weight():
    balancer = jaxmtl.gradnorm(3)
    state = balancer.init(jnp.zeros(20))
    for step in range(4):
        j = jnp.asarray(gradients(step, 3, 20, spread=2), jnp.float32)
        _, state = balancer.update(j, state, losses=jnp.ones(3))
    before = np.asarray(state.method.weights)
    active = [True, False, True]
    _, state = balancer.update(j, state, losses=jnp.array([2.0, 5.0, 1.0]), active=active)
    after = np.asarray(state.method.weights)
    assert after[1] == before[1]
    assert np.any(after != before)
    np.testing.assert_allclose(after.sum(), 3, rtol=1e-5)
