"""Weights from the losses, against their formulas in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from jaxmtl import theory

pytestmark = pytest.mark.usefixtures("quick_compiler")

RNG = np.random.default_rng(0)
HISTORY = RNG.uniform(0.2, 5.0, size=(6, 3))


def weights_over_time(balancer, history, active=None):
    """Task weights of successive steps."""
    state, weights = balancer.init(jnp.zeros(3)), []
    update = jax.jit(balancer.update)
    for step, losses in enumerate(history):
        mask = None if active is None else active[step]
        _, state = update(jnp.eye(len(losses), 3), state, losses=losses, active=mask)
        weights.append(np.asarray(state.task_weights, np.float64))
    return np.array(weights)


def test_equal():
    weights = weights_over_time(jaxmtl.equal(num_tasks=3), HISTORY)
    np.testing.assert_allclose(weights, 1 / 3, rtol=1e-7)


def test_static_and_prior_loss():
    np.testing.assert_allclose(
        weights_over_time(jaxmtl.static([3, 0.0, -1]), HISTORY[:1]), [[3, 0, -1]]
    )
    weights = weights_over_time(jaxmtl.prior_loss({"a": 4, "b": 0.3, "c": 7.0}), HISTORY[:1])
    np.testing.assert_allclose(weights, [[1 / 4, 1 / 0.3, 1 / 7]], rtol=1e-6)


def test_real_time_loss():
    weights = weights_over_time(jaxmtl.real_time_loss(num_tasks=3), HISTORY)
    np.testing.assert_allclose(weights, 1 / HISTORY, rtol=1e-6)


@pytest.mark.parametrize("num_batches", [1, 3])
def test_initial_loss_is_averaged_and_then_kept(num_batches):
    weights = weights_over_time(jaxmtl.initial_loss(3, num_batches=num_batches), HISTORY)
    means = [HISTORY[: min(t + 1, num_batches)].mean(axis=0) for t in range(len(HISTORY))]
    np.testing.assert_allclose(weights, 1 / np.array(means), rtol=1e-5)


def test_initial_loss_of_a_task_that_comes_late():
    active = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]], bool)
    weights = weights_over_time(jaxmtl.initial_loss(3, num_batches=2), HISTORY, active)
    last = [HISTORY[[0, 1], 0].mean(), HISTORY[[2, 3], 1].mean(), HISTORY[[0, 2], 2].mean()]
    np.testing.assert_allclose(weights[-1], 1 / np.array(last), rtol=1e-5)


def test_gls_is_the_gradient_of_the_geometric_mean():
    weights = weights_over_time(jaxmtl.gls(num_tasks=3), HISTORY)
    means = np.prod(HISTORY, axis=1) ** (1 / 3)
    np.testing.assert_allclose(weights, means[:, None] / (3 * HISTORY), rtol=1e-5)
    # As a product, these would underflow in float32.
    tiny = weights_over_time(jaxmtl.gls(num_tasks=3), [[1e-20, 1e-20, 1e-20]])
    np.testing.assert_allclose(tiny, 1 / 3, rtol=1e-5)


def test_rlw_is_fresh_every_step_and_sums_to_one():
    weights = weights_over_time(jaxmtl.rlw(0, num_tasks=3), np.ones((200, 3)))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    assert len(np.unique(weights[:, 0])) == 200
    np.testing.assert_allclose(weights.mean(axis=0), 1 / 3, atol=0.05)


def test_dwa_compares_the_last_two_windows():
    history = RNG.uniform(0.2, 5.0, size=(11, 3))
    weights = weights_over_time(jaxmtl.dwa(3, window=3, temperature=2.0), history)
    windows = [history[i : i + 3].mean(axis=0) for i in (0, 3, 6)]
    np.testing.assert_array_equal(weights[:6], 1)
    for step, (earlier, later) in {6: (0, 1), 8: (0, 1), 9: (1, 2)}.items():
        exponentials = np.exp(windows[later] / windows[earlier] / 2.0)
        np.testing.assert_allclose(weights[step], 3 * exponentials / exponentials.sum(), rtol=1e-5)


def test_imtl_l_rests_where_every_weighted_loss_is_one():
    losses = np.array([0.2, 1.0, 30.0])
    balancer = jaxmtl.imtl_l(3, optimizer=optax.sgd(0.02))
    weights = weights_over_time(balancer, np.tile(losses, (1500, 1)))
    np.testing.assert_allclose(weights[-1], 1 / losses, rtol=1e-3)


def test_initial_loss_from_theory():
    values = {"a": theory.zero_output_cross_entropy(10), "b": 2.0, "c": 5.0}
    weights = weights_over_time(jaxmtl.initial_loss(3, values), HISTORY)
    np.testing.assert_allclose(
        weights, np.tile(1 / np.array([np.log(10), 2, 5]), (6, 1)), rtol=1e-6
    )


def test_real_time_weights_are_the_gradient_of_the_log_losses():
    def losses_fn(x):
        return jnp.stack([jnp.sum(x**2), jnp.sum(jnp.exp(x)), 3.0 + jnp.sum(jnp.sin(x))])

    x = jnp.array([0.3, -1.0, 2.0])
    balancer = jaxmtl.real_time_loss()
    _, grad, _ = jaxmtl.value_and_balanced_grad(losses_fn, balancer)(balancer.init(x), x)
    x = np.asarray(x, np.float64)
    losses = [np.sum(x**2), np.sum(np.exp(x)), 3 + np.sum(np.sin(x))]
    expected = 2 * x / losses[0] + np.exp(x) / losses[1] + np.cos(x) / losses[2]
    np.testing.assert_allclose(grad, expected, rtol=1e-5)
