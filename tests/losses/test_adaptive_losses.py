"""SoftAdapt and ReLoBRaLo over many steps, against their formulas in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmtl.losses.relobralo import relobralo
from jaxmtl.losses.softadapt import softadapt

pytestmark = pytest.mark.usefixtures("quick_compiler")

RNG = np.random.default_rng(0)
HISTORY = RNG.uniform(0.2, 5.0, size=(40, 3)) * np.array([0.01, 1.0, 100.0])


def weights_over_time(balancer, history, active=None):
    """The weights of successive steps, and the last state."""
    active = np.ones(history.shape, bool) if active is None else np.asarray(active, bool)
    grads = jnp.eye(history.shape[1], dtype=history.dtype)

    def step(state, inputs):
        losses, mask = inputs
        updates, state = balancer.update(grads, state, losses=losses, active=mask)
        return state, updates

    start = balancer.init(grads[0])
    state, weights = jax.lax.scan(step, start, (jnp.asarray(history), jnp.asarray(active)))
    return np.asarray(weights, np.float64), state


def in_both_types(balancer_of, expected, tolerance=2e-5):
    """Compare with float64 in float64, and with float32 as far as that goes."""
    single, _ = weights_over_time(balancer_of(), HISTORY.astype(np.float32))
    np.testing.assert_allclose(single, expected, atol=tolerance)
    with jax.enable_x64(True):
        double, _ = weights_over_time(balancer_of(), HISTORY)
    np.testing.assert_allclose(double, expected, rtol=1e-10)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("beta", [0.1, -0.02])
@pytest.mark.parametrize("variant", ["original", "normalized", "loss_weighted"])
def test_softadapt(variant, beta):
    slopes = np.diff(HISTORY, axis=0)
    if variant == "normalized":
        slopes = slopes / np.abs(slopes).sum(axis=1, keepdims=True)
    raw = softmax(beta * slopes)
    if variant == "loss_weighted":
        raw = HISTORY[1:] * raw
    expected = np.vstack([np.full(3, 1 / 3), raw / raw.sum(axis=1, keepdims=True)])
    assert np.ptp(expected[1:], axis=1).min() > 1e-3
    in_both_types(lambda: softadapt(3, beta=beta, variant=variant), expected)


def test_softadapt_by_hand():
    history = np.log(np.array([[1.0, 8.0], [3.0, 8.0], [3.0, 1.0]], np.float32)) + np.float32(1)
    weights, _ = weights_over_time(softadapt(2, beta=1.0), history)
    np.testing.assert_allclose(weights, [[1 / 2, 1 / 2], [3 / 4, 1 / 4], [8 / 9, 1 / 9]], rtol=1e-6)


@pytest.mark.parametrize("variant", ["original", "normalized", "loss_weighted"])
def test_softadapt_waits_for_a_task_that_comes_late(variant):
    history = np.float32([[1, 2, 3], [2, 2, 2], [1, 1, 4], [3, 5, 2]])
    active = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]])
    weights, state = weights_over_time(softadapt(3, beta=1.0, variant=variant), history, active)
    slopes = np.array([[1.0, 0.0], [2.0, 3.0]])
    if variant == "normalized":
        slopes /= np.abs(slopes).sum(axis=1, keepdims=True)
    pair = softmax(slopes[:1])[0] * (2 if variant == "loss_weighted" else 1)
    # The second task's slope is to its last loss, two steps ago; the third has none at step 2.
    last = np.array([2.0, 3.0, -2.0])
    last = softmax(last / 7 if variant == "normalized" else last)
    if variant == "loss_weighted":
        last = last * [3, 5, 2] / np.dot(last, [3, 5, 2])
        pair = pair / pair.sum()
    expected = [[0.5, 0.5, 0], [*pair, 0], [0.5, 0, 0.5], last]
    np.testing.assert_allclose(weights, expected, rtol=2e-6)
    np.testing.assert_array_equal(state.method.last, [3, 5, 2])


def test_softadapt_weighs_in_logarithms():
    """exp(-100) is no float32 number, but it is not small against what it competes with."""
    history = np.float32([[1e6 + 1000, 1e-35], [1e6, 1e-35]])
    weights, _ = weights_over_time(softadapt(2, beta=0.1, variant="loss_weighted"), history)
    expected = np.array([1e6 * np.exp(-100.0), 1e-35])
    np.testing.assert_allclose(weights[1], expected / expected.sum(), rtol=1e-4)
    history = np.float32([[1e30, 0], [1e30, 50]])
    weights, _ = weights_over_time(softadapt(2, beta=1.0, variant="loss_weighted"), history)
    expected = np.array([1e30, 50 * np.exp(50.0)])
    np.testing.assert_allclose(weights[1], expected / expected.sum(), rtol=1e-4)


def test_softadapt_where_losses_are_zero_or_negative():
    history = np.float32([[1, 1, 1], [0, -2, 2], [0, 0, 0], [0, 0, 0]])
    weights, _ = weights_over_time(softadapt(3, beta=0.0, variant="loss_weighted"), history)
    np.testing.assert_allclose(weights, [[1 / 3] * 3, [0, 0, 1], [0] * 3, [0] * 3], atol=1e-7)
    weights, _ = weights_over_time(softadapt(3, variant="normalized"), history)
    np.testing.assert_allclose(weights[3], 1 / 3, rtol=1e-6)


def look_backs(seed, probability, steps):
    """Whether each step keeps its weights: the draws of the balancer, made once more."""
    key, keeps = jax.random.key(seed), []
    for _ in range(steps):
        key, drawn = jax.random.split(key)
        keeps.append(float(jax.random.uniform(drawn, (), jnp.float32)) < probability)
    return keeps


def simulate_relobralo(history, keeps, decay, temperature):
    weights, seen = np.ones(history.shape[1]), []
    for t, losses in enumerate(history):

        def balanced(before, losses=losses):
            return len(losses) * softmax(losses / (temperature * before))

        old = weights if keeps[t] else balanced(history[0])
        weights = decay * old + (1 - decay) * balanced(history[max(t - 1, 0)])
        seen.append(weights)
    return np.array(seen)


@pytest.mark.parametrize(
    ("decay", "temperature", "saudade"),
    [(0.9, 1.0, 0.5), (0.999, 0.5, 0.8), (0.0, 2.0, 1.0), (1.0, 1.0, 0.5)],
)
def test_relobralo(decay, temperature, saudade):
    keeps = look_backs(3, saudade, len(HISTORY))
    if saudade in (0.5, 0.8):
        assert 0 < sum(keeps) < len(keeps)
    expected = simulate_relobralo(HISTORY, keeps, decay, temperature)
    np.testing.assert_allclose(expected.sum(axis=1), 3, rtol=1e-12)

    def make():
        options = {"decay": decay, "temperature": temperature, "expected_saudade": saudade}
        return relobralo(3, 3, **options)

    in_both_types(make, expected, 1e-4)


def test_relobralo_by_hand():
    history = np.float32([[4, 4], [2, 4], [2, 8]])
    balanced = [softmax(np.array(r)) * 2 for r in ([1.0, 1.0], [0.5, 1.0], [1.0, 2.0], [0.5, 2.0])]
    weights, _ = weights_over_time(relobralo(2, 0, decay=0.75, expected_saudade=1.0), history)
    second = 0.75 * balanced[0] + 0.25 * balanced[1]
    third = 0.75 * second + 0.25 * balanced[2]
    np.testing.assert_allclose(weights, [balanced[0], second, third], rtol=1e-6)
    weights, _ = weights_over_time(relobralo(2, 0, decay=0.75, expected_saudade=0.0), history)
    np.testing.assert_allclose(weights[2], 0.75 * balanced[3] + 0.25 * balanced[2], rtol=1e-6)


def test_relobralo_looks_back_as_often_as_it_is_told():
    """With decay 1 a step that looks back has the weights of the first losses, others do not."""
    history = np.float32(np.tile([[1.0, 1.0]], (1000, 1)) * (1 + np.arange(1000)[:, None] * [0, 1]))
    balancer = relobralo(2, 1, decay=1.0, temperature=1e3, expected_saudade=0.9)
    weights, _ = weights_over_time(balancer, history)
    assert np.mean(np.diff(weights[:, 1]) > 0) == pytest.approx(0.1, abs=0.03)
    other, _ = weights_over_time(relobralo(2, 2, decay=1.0, temperature=1e3,
                                           expected_saudade=0.9), history)  # fmt: skip
    assert np.any(other != weights)


def test_relobralo_keeps_the_weights_of_absent_tasks_and_the_sum():
    active = np.random.default_rng(5).uniform(size=(40, 3)) < 0.6
    active[[0, 7]] = False
    balancer = relobralo(3, 0, decay=0.8, temperature=0.7, expected_saudade=0.7)
    state, weights = balancer.init(jnp.zeros(3)), np.ones(3)
    for losses, mask in zip(HISTORY.astype(np.float32), active, strict=True):
        updates, state = balancer.update(jnp.eye(3), state, losses=losses, active=mask)
        new = np.asarray(state.method.weights)
        np.testing.assert_array_equal(new[~mask], weights[~mask])
        np.testing.assert_array_equal(updates, np.where(mask, new, 0))
        np.testing.assert_allclose(new.sum(), 3, rtol=1e-6)
        weights = new
    first = [HISTORY[np.argmax(active[:, i]), i] for i in range(3)]
    np.testing.assert_allclose(state.method.first.mean, first, rtol=1e-6)


def test_relobralo_does_not_drift_in_many_steps():
    history = np.tile(HISTORY.astype(np.float32), (100, 1))
    weights, _ = weights_over_time(relobralo(3, 0, temperature=0.1), history)
    np.testing.assert_allclose(weights.sum(axis=1), 3, rtol=2e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: relobralo(3, 0, decay=0.5, temperature=0.01, expected_saudade=0.5),
        lambda: softadapt(3),
        lambda: softadapt(3, variant="normalized"),
        lambda: softadapt(3, variant="loss_weighted"),
    ],
)
def test_many_hostile_steps_stay_finite_in_eager_mode(make):
    stays_finite(make(), RNG)


def stays_finite(balancer, rng):
    hostile = rng.choice([0.0, -1.0, 1e-30, 1e-38, 1.0, 1e30, 1e38], size=(30, 3))
    state = balancer.init(jnp.zeros(3))
    with jax.debug_nans(True):
        for t, losses in enumerate(hostile.astype(np.float32)):
            active = np.array([t % 3 > 0, t % 5 > 0, t % 7 > 0]) & (t % 11 > 0)
            updates, state = balancer.update(jnp.eye(3), state, losses=losses, active=active)
            assert np.all(np.isfinite(updates))
            assert np.all(np.asarray(updates) >= 0)


def test_messages():
    with pytest.raises(ValueError, match="variant must be one of original, normalized, loss_weig"):
        softadapt(3, variant="other")
    with pytest.raises(ValueError, match="decay must be a number from 0 to 1"):
        relobralo(3, 0, decay=1.5)
    with pytest.raises(
        ValueError, match="temperature must be a finite number above 0, but it is 0"
    ):
        relobralo(3, 0, temperature=0)
    with pytest.raises(ValueError, match="expected_saudade must be a number from 0 to 1"):
        relobralo(3, 0, expected_saudade=-0.1)
    with pytest.raises(ValueError, match="key must be one JAX random key"):
        relobralo(3, "key")
    with pytest.raises(ValueError, match="num_tasks must be a whole number"):
        softadapt(3.0)
