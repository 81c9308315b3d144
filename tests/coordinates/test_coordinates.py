"""GradDrop and the trimmed mean, coordinate by coordinate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_graddrop_leak_of_each_task(dtype):
    """l_i g_i + (1 - l_i) (g_i where its sign was drawn), for leaks from none to all."""
    leak = np.array([0.0, 0.25, 1.0, 0.5])
    j = np.asarray(jnp.asarray(gradients(1, 4, 60), dtype), np.float64)
    balancer = jaxmtl.graddrop(3, leak=leak)
    assert balancer.weighting.num_tasks == 4
    updates, _ = balancer.update(
        jnp.asarray(j, dtype).reshape(4, 6, 10), balancer.init(jnp.zeros((6, 10), dtype))
    )
    updates = np.asarray(updates, np.float64).ravel()
    expected = [
        (leak[:, None] * j + (1 - leak)[:, None] * np.where(sign * j > 0, j, 0)).sum(axis=0)
        for sign in (1, -1)
    ]
    error = 4 * float(jnp.finfo(dtype).eps)
    is_positive, is_negative = (np.isclose(updates, e, rtol=0, atol=error) for e in expected)
    assert np.all(is_positive | is_negative)
    assert np.sum(is_positive & ~is_negative) > 10
    assert np.sum(is_negative & ~is_positive) > 10


def test_graddrop_leak_by_name_and_one_for_all_are_the_same():
    grads, losses = jnp.asarray(gradients(2, 2, 40), jnp.float32), {"depth": 1.0, "labels": 2.0}

    def update(leak, **kwargs):
        balancer = jaxmtl.graddrop(5, leak=leak)
        return balancer.update(grads, balancer.init(jnp.zeros(40)), **kwargs)[0]

    one = update(0.25)
    for leak in ({"labels": 0.25, "depth": 0.25}, [0.25, 0.25], jnp.full(2, 0.25)):
        np.testing.assert_array_equal(update(leak, losses=losses), one)
    by_name = update({"labels": 1.0, "depth": 0.0}, losses=losses)
    np.testing.assert_array_equal(by_name, update(np.array([0.0, 1.0])))
    assert np.any(by_name != update(np.array([1.0, 0.0])))
    with pytest.raises(ValueError, match="must have the same names"):
        update({"labels": 1.0, "normals": 0.0}, losses=losses)


def test_graddrop_leak_is_a_hyperparameter_that_follows_a_schedule():
    grads = jnp.asarray(gradients(2, 2, 40), jnp.float32)
    for value in (0.5, jnp.array([0.25, 1.0])):
        factory = optax.inject_hyperparams(jaxmtl.graddrop, static_args=("key", "num_tasks"))
        injected, plain = factory(key=3, leak=value), jaxmtl.graddrop(3, leak=value)
        updates, _ = jax.jit(injected.update)(grads, injected.init(jnp.zeros(40)))
        expected, _ = jax.jit(plain.update)(grads, plain.init(jnp.zeros(40)))
        np.testing.assert_array_equal(updates, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"leak": -0.1}, "leak must be a number from 0 to 1, but it is -0.1"),
        ({"leak": 1.5}, "leak must be a number from 0 to 1, but it is 1.5"),
        ({"leak": "half"}, "leak must be a number from 0 to 1, but it is 'half'"),
        ({"leak": [0.5, 1.5]}, r"leak must be from 0 to 1 for every task, but it is \[0.5 1.5\]"),
        ({"leak": {"a": np.nan, "b": 0.0}}, "leak must be from 0 to 1 for every task"),
        ({"leak": np.zeros((2, 2))}, "leak must hold one scalar per task"),
        ({"leak": None}, "leak must hold one scalar per task"),
        ({"leak": [0.5, 0.5], "num_tasks": 3}, "leak holds 2 values, but there are 3 tasks"),
    ],
)
def test_graddrop_refuses_other_leaks(arguments, message):
    with pytest.raises(ValueError, match=message):
        jaxmtl.graddrop(0, **arguments)


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
