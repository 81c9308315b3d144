"""PCGrad against the projections of whole gradients, in the orders it drew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests import references
from tests.references import J2, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")


def orders_of(key, num_tasks):
    """The orders of the first step, drawn as the method documents: split, then one a task."""
    _, step_key = jax.random.split(key)
    keys = jax.random.split(step_key, num_tasks)
    return [np.asarray(jax.random.permutation(k, num_tasks)) for k in keys]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("num_tasks", [1, 2, 3, 8])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_projections(num_tasks, reduction, spread):
    key = jax.random.key(num_tasks)
    j = references.gradients(num_tasks, num_tasks, 12, spread, kind="gaussian")
    balancer = jaxmtl.pcgrad(key, reduction=reduction)
    state = balancer.init(jnp.zeros(12))
    updates, new_state = jax.jit(balancer.update)(jnp.asarray(j, jnp.float32), state)
    expected = references.pcgrad(j, orders_of(key, num_tasks))
    if reduction == "mean":
        expected = expected / num_tasks
    assert relative_error(updates, expected) < 1e-5
    assert np.any(new_state.method.key_data != state.method.key_data)


def test_reference_numbers():
    balancer = jaxmtl.pcgrad(0, num_tasks=2)
    updates, state = balancer.update(jnp.asarray(J2, jnp.float32), balancer.init(jnp.zeros(3)))
    np.testing.assert_allclose(state.task_weights, [20 / 9, 30 / 19], rtol=1e-6)
    np.testing.assert_allclose(updates, [0.5847953216, 3.8011695906, 3.8011695906], rtol=1e-5)


def test_every_order_is_drawn():
    """A task's own place in its order must not matter, and no partner may be favoured."""
    keys = jax.random.split(jax.random.key(0), 600)
    drawn = np.array([[tuple(o) for o in orders_of(k, 3)] for k in keys[:200]])
    first = np.bincount(drawn[:, 0, 0], minlength=3)
    assert first.min() > 40


def test_two_tasks_never_conflict():
    for seed in range(20):
        j = references.gradients(seed, 2, 5, spread=3)
        balancer = jaxmtl.pcgrad(0)
        d, _ = balancer.update(jnp.asarray(j, jnp.float32), balancer.init(jnp.zeros(5)))
        cosine = j @ np.asarray(d, np.float64) / np.linalg.norm(j, axis=1) / np.linalg.norm(d)
        assert cosine.min() > -1e-5


def test_shared_leaves_are_projected_as_one_vector_and_heads_left_alone():
    j = references.gradients(3, 2, 6)
    j[1] -= 1.5 * j[0]
    grads = {
        "a": jnp.asarray(j[:, :2], jnp.float32),
        "b": jnp.asarray(j[:, 2:], jnp.float32),
        "head": jnp.array([[5.0, 0.0], [0.0, 7.0]]),
    }
    params = {"a": jnp.zeros(2), "b": jnp.zeros(4), "head": jnp.zeros(2)}
    balancer = jaxmtl.on_shared(jaxmtl.pcgrad(0), lambda path: path != "head")
    updates, _ = balancer.update(grads, balancer.init(params))
    expected = references.pcgrad(j, [[0, 1], [0, 1]])
    assert relative_error(np.concatenate([updates["a"], updates["b"]]), expected) < 1e-5
    np.testing.assert_array_equal(updates["head"], [5, 7])


def test_the_key_may_be_a_seed_or_a_raw_key():
    j = jnp.asarray(references.gradients(5, 4, 8), jnp.float32)
    results = []
    for key in (3, jax.random.key(3), jax.random.PRNGKey(3)):
        balancer = jaxmtl.pcgrad(key)
        results.append(balancer.update(j, balancer.init(jnp.zeros(8)))[0])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
