"""Group DRO, BRDR, CoV weighting, UW-SO and powers of the losses, against NumPy in float64."""

import numpy as np
import pytest

import jaxmtl
from tests.losses.test_adaptive_losses import (
    HISTORY,
    in_both_types,
    softmax,
    stays_finite,
    weights_over_time,
)

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 3.0])
def test_power_mean(power):
    raw = HISTORY**power
    expected = raw / raw.sum(axis=1, keepdims=True)
    in_both_types(lambda: jaxmtl.power_mean(power, num_tasks=3), expected)


def test_a_large_power_is_the_largest_loss_alone():
    weights, _ = weights_over_time(jaxmtl.power_mean(1e30), np.float32([[1e30, 2e30, 2e-30]]))
    np.testing.assert_array_equal(weights, [[0, 1, 0]])
    # Its gradient is that of the power mean itself, up to the length.
    losses = np.array([0.5, 2.0, 1.0])
    slope = losses**3 / np.sum(losses**4) ** 0.75
    weights, _ = weights_over_time(jaxmtl.power_mean(3.0), np.float32([losses]))
    np.testing.assert_allclose(weights[0], slope / slope.sum(), rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 20.0])
def test_softmax_inverse(temperature):
    history = HISTORY / np.array([0.01, 1.0, 100.0])
    expected = softmax(1 / (temperature * history))
    found, _ = weights_over_time(jaxmtl.softmax_inverse(temperature), history.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    zero, _ = weights_over_time(jaxmtl.softmax_inverse(), np.float32([[0.0, 1.0, 1e-38]]))
    np.testing.assert_allclose(zero, [[0.5, 0, 0.5]])


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_brdr(decay):
    squares = average = np.zeros(3)
    expected = []
    for t, losses in enumerate(HISTORY):
        squares = decay * squares + (1 - decay) * losses**2
        started = 1 - decay ** (t + 1)
        rates = losses / np.sqrt(squares / started)
        average = decay * average + (1 - decay) * rates / rates.mean()
        expected.append(average / started)
    np.testing.assert_allclose(expected[0], 1)
    np.testing.assert_allclose(np.mean(expected, axis=1), 1)
    in_both_types(lambda: jaxmtl.brdr(3, decay=decay), np.array(expected))


def test_brdr_of_points_and_of_any_size():
    balancer = jaxmtl.brdr(3, decay=0.5)
    plain, _ = weights_over_time(balancer, HISTORY.astype(np.float32))
    for size in (1e-30, 1e30):
        scaled, _ = weights_over_time(balancer, (size * HISTORY).astype(np.float32))
        np.testing.assert_allclose(scaled, plain, rtol=1e-5)


def authors_cov(history):
    """The statistics of the authors' code, without their epsilon."""
    num = history.shape[1]
    mean_loss = mean_ratio = sums = np.zeros(num)
    for t, losses in enumerate(history):
        ratio = losses / (losses if t == 0 else mean_loss)
        cov = np.sqrt(sums / max(t, 1)) / np.where(mean_ratio > 0, mean_ratio, 1)
        yield np.full(num, 1 / num) if t < 2 else cov / cov.sum()
        old, share = mean_ratio, 1 / (t + 1)
        mean_ratio = (1 - share) * old + share * ratio
        sums = sums + (ratio - old) * (ratio - mean_ratio)
        mean_loss = (1 - share) * mean_loss + share * losses


def test_cov_weighting():
    expected = np.array(list(authors_cov(HISTORY)))
    assert np.ptp(expected[2:], axis=1).min() > 1e-3
    in_both_types(lambda: jaxmtl.cov_weighting(3), expected)


def test_cov_weighting_where_nothing_varies():
    weights, _ = weights_over_time(jaxmtl.cov_weighting(2), np.full((5, 2), 3.0, np.float32))
    np.testing.assert_array_equal(weights, 0.5)


def test_group_dro():
    rate = 0.01
    expected = softmax(rate * np.cumsum(HISTORY, axis=0))
    in_both_types(lambda: jaxmtl.group_dro(3, rate=rate), expected)
    negative = softmax(rate * np.cumsum(-HISTORY, axis=0))
    found, _ = weights_over_time(jaxmtl.group_dro(3, rate=rate), -HISTORY.astype(np.float32))
    np.testing.assert_allclose(found, negative, atol=2e-5)


def test_doremi():
    reference, rate, even = np.array([0.02, 1.5, 90.0]), 0.02, 1e-3
    weights, expected = np.full(3, 1 / 3), []
    for losses in HISTORY:
        raw = weights * np.exp(rate * np.maximum(losses - reference, 0))
        weights = (1 - even) * raw / raw.sum() + even / 3
        expected.append(weights)
    in_both_types(lambda: jaxmtl.group_dro(3, rate=rate, reference=reference), np.array(expected))
    _, state = weights_over_time(
        jaxmtl.group_dro(3, rate=rate, reference=reference), HISTORY.astype(np.float32)
    )
    np.testing.assert_allclose(state.method.mean_weights, np.mean(expected, axis=0), rtol=1e-4)


def test_group_dro_keeps_what_absent_tasks_had():
    active = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1]], bool)
    balancer = jaxmtl.group_dro(3, rate=0.05)
    weights, state = weights_over_time(balancer, HISTORY[:4].astype(np.float32), active)
    first = softmax(0.05 * HISTORY[0])
    raw = first * np.exp(0.05 * HISTORY[1]) * active[1]
    np.testing.assert_allclose(weights[1], raw / raw.sum(), rtol=1e-5)
    np.testing.assert_array_equal(weights[2], 0)
    kept = np.exp(state.method.log_weights)
    np.testing.assert_allclose(kept.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(state.method.mean_weights.sum(), 1, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: jaxmtl.power_mean(2.0),
        lambda: jaxmtl.softmax_inverse(0.1),
        lambda: jaxmtl.brdr(3, decay=0.5),
        lambda: jaxmtl.cov_weighting(3),
        lambda: jaxmtl.group_dro(3, rate=10.0),
        lambda: jaxmtl.group_dro(3, rate=10.0, reference=[0.0, 1.0, 2.0]),
    ],
)
def test_many_hostile_steps_stay_finite_in_eager_mode(make):
    stays_finite(make(), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxmtl.power_mean(-1.0), "power must be a"),
        (lambda: jaxmtl.softmax_inverse(0), "temperature must be a finite number above 0"),
        (lambda: jaxmtl.brdr(3, decay=1.0), "decay must be a"),
        (lambda: jaxmtl.group_dro(3, rate=0), "rate must be a finite number above 0"),
        (lambda: jaxmtl.group_dro(3, reference=[1.0, 2.0]), "reference holds 2 values"),
        (lambda: jaxmtl.cov_weighting(2.5), "num_tasks must be a whole number"),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
