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
