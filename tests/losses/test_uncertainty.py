"""Learned uncertainty against its stationary points and analytic derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl

pytestmark = pytest.mark.usefixtures("quick_compiler")

LOSSES = np.array([0.2, 1.0, 30.0])


def settle(balancer, losses, steps=4000):
    grads = jnp.eye(len(losses))

    def step(state, _):
        return balancer.update(grads, state, losses=losses)[1], None

    state = balancer.init(jnp.zeros(len(losses)))
    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, length=steps))(state)
    return state


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_kendall_rests_where_every_weighted_loss_is_one_half(kind):
    state = settle(jaxmtl.uncertainty(3, kinds=kind, optimizer=optax.sgd(0.05)), LOSSES)
    np.testing.assert_allclose(state.task_weights, 1 / (2 * LOSSES), rtol=1e-4)
    variance = np.exp(np.asarray(state.method.log_variances))
    expected = LOSSES if kind == "regression" else 2 * LOSSES
    np.testing.assert_allclose(variance, expected, rtol=1e-4)


def test_liebel_rests_on_its_quartic():
    """2 sigma^4 = L (1 + sigma^2), the stationary point of L / (2 sigma^2) + log(1 + sigma^2)."""
    state = settle(jaxmtl.uncertainty(3, nonnegative=True, optimizer=optax.sgd(0.05)), LOSSES)
    variance = np.exp(np.asarray(state.method.log_variances, np.float64))
    np.testing.assert_allclose(2 * variance**2, LOSSES * (1 + variance), rtol=1e-4)
    np.testing.assert_allclose(state.task_weights, 1 / (2 * variance), rtol=1e-4)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_the_first_steps_are_gradient_descent_on_the_objective(nonnegative):
    kinds, a = ["regression", "classification", "regression"], np.array([0.5, 1.0, 0.5])
    rate = 0.1
    balancer = jaxmtl.uncertainty(
        3, kinds=kinds, nonnegative=nonnegative, optimizer=optax.sgd(rate)
    )
    state, s = balancer.init(jnp.zeros(3)), np.zeros(3)
    for losses in (LOSSES, 2 * LOSSES, LOSSES[::-1].copy()):
        _, state = balancer.update(jnp.eye(3), state, losses=losses)
        np.testing.assert_allclose(state.task_weights, a * np.exp(-s), rtol=1e-5)
        slope = -a * np.exp(-s) * losses + (1 / (1 + np.exp(-s)) if nonnegative else 0.5)
        s = s - rate * slope


def test_the_pure_loss_trains_the_same_as_the_balancer():
    """sigma among the user's parameters, one back-propagation for all."""
    rate = 0.05

    def losses_fn(x):
        return {"far": jnp.sum((x - 3.0) ** 2) + 0.1, "near": jnp.sum((x + 1.0) ** 2) + 0.2}

    def objective(params):
        return jaxmtl.uncertainty_loss(losses_fn(params["x"]), params["s"])

    params = {"x": jnp.zeros(2), "s": {"far": jnp.zeros(()), "near": jnp.zeros(())}}
    balancer = jaxmtl.uncertainty(2, optimizer=optax.sgd(rate))
    x, state = params["x"], balancer.init(params["x"])
    for _ in range(25):
        grads = jax.grad(objective)(params)
        params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
        _, grad, state = jaxmtl.value_and_balanced_grad(losses_fn, balancer)(state, x)
        x = x - rate * grad
    np.testing.assert_allclose(params["x"], x, rtol=1e-5)
    np.testing.assert_allclose(
        [params["s"]["far"], params["s"]["near"]], state.method.log_variances, rtol=1e-5
    )


def test_nonnegative_stays_above_zero_where_kendall_does_not():
    small, s = jnp.full(2, 1e-3), jnp.full(2, -5.0)
    assert jaxmtl.uncertainty_loss(small, s) < 0
    assert jaxmtl.uncertainty_loss(small, s, nonnegative=True) > 0


@pytest.mark.parametrize("nonnegative", [False, True])
def test_a_loss_of_zero_stays_finite_and_comes_back(nonnegative):
    balancer = jaxmtl.uncertainty(2, optimizer=optax.sgd(1.0), nonnegative=nonnegative)
    state = balancer.init(jnp.zeros(2))
    for _ in range(200):
        updates, state = balancer.update(jnp.eye(2), state, losses=jnp.array([0.0, 1.0]))
    assert np.all(np.isfinite(updates))
    assert np.all(np.isfinite(state.method.log_variances))
    _, state = balancer.update(jnp.eye(2), state, losses=jnp.array([1.0, 1.0]))
    assert state.method.log_variances[0] > -1
    slope = jax.grad(jaxmtl.uncertainty_loss, argnums=1)(jnp.ones(1), jnp.array([-100.0]))
    assert np.isfinite(slope[0])
    assert slope[0] < 0


def test_an_absent_task_does_not_drift_on_momentum():
    balancer = jaxmtl.uncertainty(2, optimizer=optax.adam(0.1))
    state = balancer.init(jnp.zeros(2))
    for _ in range(5):
        _, state = balancer.update(jnp.eye(2), state, losses=jnp.array([9.0, 9.0]))
    before = state.method.log_variances
    for _ in range(5):
        _, state = balancer.update(
            jnp.eye(2), state, losses=jnp.array([9.0, 9.0]), active=[True, False]
        )
    assert state.method.log_variances[0] != before[0]
    assert state.method.log_variances[1] == before[1]


def test_unknown_kind_in_the_pure_loss():
    with pytest.raises(ValueError, match="kinds must be one of"):
        jaxmtl.uncertainty_loss(jnp.ones(2), jnp.zeros(2), kinds="gauss")
    with pytest.raises(ValueError, match="log_variances holds 3 values"):
        jaxmtl.uncertainty_loss(jnp.ones(2), jnp.zeros(3))
