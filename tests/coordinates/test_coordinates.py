"""GradDrop and the trimmed mean, coordinate by coordinate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxmtl
from tests.references import gradients

pytestmark = pytest.mark.usefixtures("quick_compiler")


def test_graddrop_keeps_one_sign_with_the_probability_of_its_purity():
    j = gradients(0, 4, 12).astype(np.float32)
    balancer = jaxmtl.graddrop(0)

    def step(state, _):
        updates, state = balancer.update(jnp.asarray(j), state)
        return state, updates

    draws = 4000
    _, updates = jax.jit(lambda s: jax.lax.scan(step, s, length=draws))(
        balancer.init(jnp.zeros(12))
    )
    updates = np.asarray(updates, np.float64)
    positive, negative = np.maximum(j, 0).sum(axis=0), np.minimum(j, 0).sum(axis=0)
    is_positive = np.isclose(updates, positive, rtol=1e-5)
    assert np.all(is_positive | np.isclose(updates, negative, rtol=1e-5))
    purity = (1 + j.sum(axis=0) / np.abs(j).sum(axis=0)) / 2
    share = is_positive.mean(axis=0)
    np.testing.assert_allclose(share, purity, atol=5 * 0.5 / np.sqrt(draws))
    # The coordinates draw for themselves.
    mixed = (purity > 0.2) & (purity < 0.8)
    pairs = np.corrcoef(is_positive[:, mixed].T)
    assert np.abs(pairs - np.eye(mixed.sum())).max() < 5 / np.sqrt(draws)


def test_graddrop_leak():
    grads = jnp.array([[3.0, 3.0], [-1.0, -1.0]])
    balancer = jaxmtl.graddrop(1, leak=0.25)
    state, seen = balancer.init(jnp.zeros(2)), set()
    for _ in range(40):
        updates, state = balancer.update(grads, state)
        seen |= {float(u) for u in updates}
    assert seen == {3 - 0.25, 0.75 - 1}


def test_trimmed_mean_reference_number():
    j = jnp.array([[1e11, 3.0], [1.0, -1e11], [-1e10, 1e10], [2.0, 2.0]])
    balancer = jaxmtl.trimmed_mean(1)
    updates, _ = balancer.update(j, balancer.init(jnp.zeros(2)))
    np.testing.assert_array_equal(updates, [1.5, 2.5])


def test_trimmed_mean_is_that_of_scipy():
    for num, trimmed in [(3, 1), (7, 2), (8, 3), (4, 0)]:
        j = gradients(num, num, 20, spread=2)
        balancer = jaxmtl.trimmed_mean(trimmed)
        updates, _ = jax.jit(balancer.update)(jnp.asarray(j, jnp.float32), balancer.init(j[0]))
        expected = scipy.stats.trim_mean(j, trimmed / num + 1e-9, axis=0)
        np.testing.assert_allclose(updates, expected, rtol=1e-5, atol=1e-7)


def test_trimmed_mean_of_the_tasks_present():
    j = np.array([[1.0], [5.0], [np.nan], [3.0], [100.0]], np.float32)
    balancer = jaxmtl.trimmed_mean(1)
    state = balancer.init(jnp.zeros(1))
    active = jnp.array([True, True, False, True, True])
    updates, _ = balancer.update(jnp.asarray(j), state, active=active)
    np.testing.assert_array_equal(updates, [4.0])
    two = jnp.array([True, True, False, False, False])
    updates, _ = balancer.update(jnp.asarray(j), state, active=two)
    np.testing.assert_array_equal(updates, [0.0])
