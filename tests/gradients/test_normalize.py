"""Direct normalisation against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.references import gradients, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.mark.parametrize("spread", [0.0, 6.0])
def test_unit_gradients_are_summed(spread):
    j = gradients(0, 5, 30, spread)
    balancer = jaxmtl.normalize()
    updates, _ = balancer.update(jnp.asarray(j, jnp.float32), balancer.init(jnp.zeros(30)))
    assert relative_error(updates, np.sum(j / np.linalg.norm(j, axis=1)[:, None], axis=0)) < 1e-5


def test_rate_adjustment():
    alpha, first = 0.7, None
    balancer = jaxmtl.normalize(alpha=alpha, num_tasks=3)
    state, update = balancer.init(jnp.zeros(30)), jax.jit(balancer.update)
    for step in range(3):
        j, losses = gradients(step, 3, 30), np.random.default_rng(step).uniform(0.5, 2, 3)
        updates, state = update(jnp.asarray(j, jnp.float32), state, losses=losses)
        first = losses if first is None else first
        rates = (losses / first) / np.mean(losses / first)
        expected = (rates**alpha / np.linalg.norm(j, axis=1)) @ j
        assert relative_error(updates, expected) < 1e-5


def test_known_initial_losses():
    balancer = jaxmtl.normalize(alpha=1.0, num_tasks=2, initial_losses=[1.0, 2.0])
    updates, _ = balancer.update(
        jnp.eye(2), balancer.init(jnp.zeros(2)), losses=jnp.array([1.0, 1.0])
    )
    np.testing.assert_allclose(updates, [4 / 3, 2 / 3], rtol=1e-6)


def test_averaged_norms_and_a_length_of_ones_own():
    balancer = jaxmtl.normalize(decay=0.8, reference=2.5, num_tasks=3)
    state, update = balancer.init(jnp.zeros(30)), jax.jit(balancer.update)
    stacks = [gradients(seed, 3, 30, spread=2) for seed in range(5)]
    for t, j in enumerate(stacks):
        _, state = update(jnp.asarray(j, jnp.float32), state)
        norms = [np.linalg.norm(j, axis=1) for j in stacks[: t + 1]]
        mean = np.average(norms, axis=0, weights=0.8 ** np.arange(t + 1)[::-1])
        np.testing.assert_allclose(state.task_weights, 2.5 / mean, rtol=1e-5)


def test_encodec_s_balancer():
    """w_i = p_i / sum(p) R / average norm, which prioritise makes of normalize."""
    priorities, total = np.array([1.0, 3.0, 4.0]), 2.0
    balancer = jaxmtl.prioritise(
        jaxmtl.normalize(decay=0.9, reference=total, num_tasks=3), priorities / priorities.sum()
    )
    j = gradients(3, 3, 30, spread=2)
    updates, _ = balancer.update(jnp.asarray(j, jnp.float32), balancer.init(jnp.zeros(30)))
    expected = (priorities / priorities.sum() * total / np.linalg.norm(j, axis=1)) @ j
    assert relative_error(updates, expected) < 1e-5


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_reference_by_name_keeps_its_weight(decay):
    balancer = jaxmtl.normalize(decay=decay, reference="b", num_tasks=3)
    state, update = balancer.init(jnp.zeros(30)), jax.jit(balancer.update)
    norms = []
    for seed in range(3):
        j = gradients(seed, 3, 30, spread=2)
        norms.append(np.linalg.norm(j, axis=1))
        _, state = update(jnp.asarray(j, jnp.float32), state, losses={"a": 1.0, "b": 2.0, "c": 1.0})
        mean = np.average(norms, axis=0, weights=decay ** np.arange(seed + 1.0)[::-1])
        np.testing.assert_allclose(state.task_weights, mean[1] / mean, rtol=1e-5)
        assert state.task_weights[1] == 1
    grads, absent = jnp.asarray(j, jnp.float32), jnp.array([True, False, True])
    _, state = update(grads, state, losses={"a": 1.0, "b": 2.0, "c": 1.0}, active=absent)
    assert bool(state.task_weights[0] > 0) == (decay > 0)  # an average is there to go by


def test_an_average_does_not_remember_rounding():
    balancer = jaxmtl.normalize(decay=0.9, num_tasks=2)
    _, state = balancer.update(jnp.diag(jnp.array([2.0, 1e-7])), balancer.init(jnp.zeros(2)))
    np.testing.assert_allclose(state.task_weights, 0.5)
    _, state = balancer.update(jnp.diag(jnp.array([2.0, 4.0])), state)
    np.testing.assert_allclose(state.task_weights, [0.5, 0.25], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 0.5}, r"an average \(decay other than 0\) .* normalize\(decay=..., num_tasks"),
        ({"reference": 0.0}, "reference must be a finite number above 0"),
        ({"lower_bounds": [0.0, 0.0]}, "lower_bounds are for the rate adjustment"),
    ],
)
def test_messages(arguments, message):
    with pytest.raises(ValueError, match=message):
        jaxmtl.normalize(**arguments)
