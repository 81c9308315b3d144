"""Weights on schedules, against the schedules' formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl

pytestmark = pytest.mark.usefixtures("quick_compiler")

WEIGHTS = {
    "kl": optax.linear_schedule(0.0, 2.0, transition_steps=4),
    "edge": optax.cosine_decay_schedule(3.0, decay_steps=5),
    "fit": 0.7,
    "own": lambda step: 1 / (step + 1),
}
NAMES = sorted(WEIGHTS)


def expected(steps):
    t = np.arange(steps, dtype=float)
    by_name = {
        "kl": 2 * np.minimum(t / 4, 1),
        "edge": 1.5 * (1 + np.cos(np.pi * np.minimum(t / 5, 1))),
        "fit": np.full(steps, 0.7),
        "own": 1 / (t + 1),
    }
    return np.stack([by_name[name] for name in NAMES], axis=1)


def followed(balancer, steps, dtype=jnp.float32):
    grads = jnp.eye(len(NAMES), dtype=dtype)

    def step(state, _):
        updates, state = balancer.update(grads, state)
        return state, (updates, state.task_weights)

    run = jax.jit(lambda state: jax.lax.scan(step, state, None, length=steps))
    return run(balancer.init(grads[0]))


def test_numbers_and_schedules_by_name():
    state, (updates, weights) = followed(jaxmtl.static(WEIGHTS), 8)
    np.testing.assert_allclose(updates, expected(8), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(updates, weights)
    assert state.method.steps == 8
    with jax.enable_x64(True):
        state, (updates, _) = followed(jaxmtl.static(WEIGHTS), 8, jnp.float64)
        assert updates.dtype == state.task_weights.dtype == jnp.float64
        # A step is an int32, as optax's, and one divided by it a float32.
        np.testing.assert_allclose(updates, expected(8), rtol=1e-7, atol=1e-7)
        np.testing.assert_array_equal(updates[:, NAMES.index("fit")], 0.7)
    with pytest.raises(ValueError, match="must have the same names"):
        jaxmtl.static(WEIGHTS).update(
            jnp.eye(4), state, losses={"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}
        )


def test_by_position_and_through_the_cheap_route():
    balancer = jaxmtl.static([WEIGHTS[name] for name in NAMES])
    route = jaxmtl.value_and_balanced_grad(lambda x: x * jnp.arange(1.0, 5.0), balancer)
    state = balancer.init(jnp.ones(4))
    for wanted in expected(3):
        _, grad, state = route(state, jnp.ones(4))
        np.testing.assert_allclose(grad, wanted * np.arange(1, 5), rtol=1e-6, atol=1e-6)


def test_a_broken_step_is_not_counted_and_a_saved_state_goes_on():
    balancer, grads = jaxmtl.static(WEIGHTS), jnp.eye(4)
    update = jax.jit(balancer.update)
    _, state = update(grads, balancer.init(grads[0]))
    for broken in ({"grads": grads.at[1, 1].set(jnp.nan)}, {"losses": jnp.full(4, jnp.nan)}):
        updates, held = update(**({"grads": grads, "state": state} | broken))
        assert not np.all(np.isfinite(updates))
        jax.tree.map(np.testing.assert_array_equal, held, state)
    copy = jax.tree.map(lambda leaf: jnp.asarray(np.array(leaf)), state)
    for wanted in expected(4)[1:]:
        updates, state = update(grads, state)
        again, copy = update(grads, copy)
        np.testing.assert_array_equal(again, updates)
        np.testing.assert_allclose(updates, wanted, rtol=1e-6, atol=1e-6)


def test_numbers_alone_count_nothing():
    balancer = jaxmtl.static({"a": 0.1, "b": 3.0})
    assert balancer.init(jnp.zeros(2)).method == ()
    updates, _ = balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)))
    np.testing.assert_array_equal(updates, np.float32([0.1, 3.0]))


def test_every_counts_the_questions():
    balancer = jaxmtl.every(jaxmtl.static(WEIGHTS), 2)
    _, (updates, _) = followed(balancer, 6)
    np.testing.assert_allclose(updates, np.repeat(expected(3), 2, axis=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (optax.constant_schedule(1.0), "weights must hold one real number per task"),
        ([optax.constant_schedule(1.0), np.inf], "weights must be finite"),
        ([1.0, lambda step: jnp.ones(2)], r"value 1 .*but it returns ShapeDtypeStruct\(shape=\(2"),
        ([1.0, lambda step: None], "value 1 .*but it returns None"),
        ([lambda: 1.0, 1.0], "value 0 .*but called with a step it raised TypeError"),
        ({"a": jaxmtl.mgda, "b": 1.0}, "schedule of weights, value 0 .* one real number"),
    ],
)
def test_messages(weights, message):
    with pytest.raises(ValueError, match=message):
        jaxmtl.static(weights)
