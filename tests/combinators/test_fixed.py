"""Losses with constant weights beside balanced ones, before and between questions too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl

pytestmark = pytest.mark.usefixtures("quick_compiler")

GRADS = jnp.array([[4.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 8.0]])
KINDS = {"a": "balanced", "b": 0.1, "c": "balanced"}
ALL = (True, True, True)


def weights_over(balancer, steps, active=()):
    """The task weights of each step."""
    state, update = balancer.init(jnp.zeros(3)), jax.jit(balancer.update)
    rows = []
    for step in range(steps):
        present = dict(zip("abc", active[step] if step < len(active) else ALL, strict=True))
        losses = dict.fromkeys("abc", jnp.ones(()))
        _, state = update(GRADS, state, losses=losses, active=present)
        rows.append(state.task_weights)
    return np.asarray(rows)


NORMALIZE = jaxmtl.normalize(num_tasks=2)


@pytest.mark.parametrize(
    ("inner", "start"),
    [
        (jaxmtl.warm_up(NORMALIZE, 2), [0.5, 0.1, 0.5]),
        (jaxmtl.warm_up(NORMALIZE, 2, weights=[3.0, 4.0]), [3.0, 0.1, 4.0]),
        (jaxmtl.warm_up(NORMALIZE, 2, weights={"a": 3.0, "c": 4.0}), [3.0, 0.1, 4.0]),
        (jaxmtl.vqgan_adaptive([False, True], start=2), [1.0, 0.1, 0.0]),
        (jaxmtl.prioritise(jaxmtl.warm_up(NORMALIZE, 2), [1.0, 3.0]), [0.5, 0.1, 1.5]),
    ],
)
def test_a_start_of_its_own_leaves_the_constant_weights_alone(inner, start):
    weights = weights_over(jaxmtl.with_fixed(inner, KINDS), 4)
    np.testing.assert_allclose(weights[:2], [start, start], rtol=1e-6)
    np.testing.assert_allclose(weights[:, 1], 0.1, rtol=1e-6)
    assert np.all(np.abs(weights[2:, 0] - start[0]) + np.abs(weights[2:, 2] - start[2]) > 1e-3)


def test_on_the_way_from_the_start_too():
    inner = jaxmtl.warm_up(NORMALIZE, 1, ramp=3)
    weights = weights_over(jaxmtl.with_fixed(inner, KINDS), 6)
    np.testing.assert_allclose(weights[:, 1], 0.1, rtol=1e-6)
    steps = np.diff(weights[:, 0])
    np.testing.assert_allclose(steps[:4], steps[0], rtol=1e-5)


def test_a_fixed_loss_that_was_absent_when_the_method_was_asked():
    balancer = jaxmtl.with_fixed(jaxmtl.every(NORMALIZE, 3), KINDS)
    weights = weights_over(balancer, 3, active=[(True, False, True)])
    np.testing.assert_allclose(weights[:, 1], [0, 0.1, 0.1], rtol=1e-6)
    doubled = jaxmtl.prioritise(balancer, {"a": 1.0, "b": 2.0, "c": 1.0})
    weights = weights_over(doubled, 3, active=[(True, False, True)])
    np.testing.assert_allclose(weights[:, 1], [0, 0.2, 0.2], rtol=1e-6)


def test_a_start_around_it_says_the_weights_of_all():
    balancer = jaxmtl.with_fixed(NORMALIZE, KINDS)
    weights = weights_over(jaxmtl.warm_up(balancer, 1, weights={"a": 1.0, "b": 2.0, "c": 3.0}), 2)
    np.testing.assert_allclose(weights[0], [1, 2, 3], rtol=1e-6)
    np.testing.assert_allclose(weights[1, 1], 0.1, rtol=1e-6)


def test_with_fixed_within_with_fixed():
    inner = jaxmtl.with_fixed(jaxmtl.every(NORMALIZE, 2), {"a": "balanced", "c": "balanced"})
    balancer = jaxmtl.with_fixed(inner, KINDS)
    np.testing.assert_allclose(weights_over(balancer, 3)[:, 1], 0.1, rtol=1e-6)
