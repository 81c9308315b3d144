"""Residual-based attention over many steps and minibatches, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.losses.test_adaptive_losses import (
    HISTORY,
    in_both_types,
    stays_finite,
    weights_over_time,
)

pytestmark = pytest.mark.usefixtures("quick_compiler")


def of_paper(history, decay, rate, active):
    multipliers, weights = np.zeros(history.shape[1]), []
    for losses, there in zip(history, active, strict=True):
        residuals = np.sqrt(losses)
        moved = decay * multipliers + rate * residuals / residuals[there].max()
        multipliers = np.where(there, moved, multipliers)
        weights.append(np.where(there, multipliers**2, 0))
    return np.array(weights), multipliers


@pytest.mark.parametrize(("decay", "rate"), [(0.999, 0.01), (0.9, 0.5), (0.0, 1.0)])
def test_each_step(decay, rate):
    history = HISTORY / np.array([0.01, 1.0, 100.0])
    everywhere = np.ones(history.shape, bool)
    expected, _ = of_paper(history, decay, rate, everywhere)
    assert expected.max() <= (rate / (1 - decay)) ** 2
    found, _ = weights_over_time(
        jaxmtl.residual_attention(3, decay=decay, rate=rate), history.astype(np.float32)
    )
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    wide, _ = of_paper(HISTORY, decay, rate, everywhere)
    in_both_types(lambda: jaxmtl.residual_attention(3, decay=decay, rate=rate), wide)


def test_minibatches_of_points_by_index():
    """Scattered losses and ``active``; through one backward pass, and with NaN elsewhere."""
    rng, num_points = np.random.default_rng(0), 40
    targets, x = rng.normal(size=num_points), jnp.zeros(num_points)
    balancer = jaxmtl.residual_attention(num_points, decay=0.8, rate=0.3)

    def losses_fn(x, index):
        squares = (x - jnp.asarray(targets, x.dtype))[index] ** 2
        return jnp.full(num_points, jnp.nan).at[index].set(squares)

    route = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
    state, masks = balancer.init(x), []
    for _ in range(6):
        index = rng.choice(num_points, size=10, replace=False)
        active = jnp.zeros(num_points, bool).at[index].set(True)
        _, grad, state = route(state, x, index, active=active)
        masks.append(np.asarray(active))
    history = np.tile(targets**2, (6, 1))
    weights, multipliers = of_paper(history, 0.8, 0.3, masks)
    np.testing.assert_allclose(state.method.multipliers, multipliers, rtol=1e-5)
    np.testing.assert_allclose(grad, -2 * weights[-1] * targets, rtol=1e-5)


def test_any_size_zeros_and_hostile_losses():
    balancer = jaxmtl.residual_attention(3, decay=0.5)
    plain, _ = weights_over_time(balancer, HISTORY.astype(np.float32))
    for size in (1e-30, 1e30):
        scaled, _ = weights_over_time(balancer, (size * HISTORY).astype(np.float32))
        np.testing.assert_allclose(scaled, plain, rtol=1e-5, atol=1e-12)
    none, _ = weights_over_time(balancer, np.zeros((3, 3), np.float32))
    assert np.all(none == 0)
    stays_finite(jaxmtl.residual_attention(3), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxmtl.residual_attention(0), "num_points must be a whole number of at least 1"),
        (lambda: jaxmtl.residual_attention(3, decay=1.0), "decay must be a number from 0 to below"),
        (lambda: jaxmtl.residual_attention(3, rate=0), "rate must be a finite number above 0"),
        (
            lambda: jaxmtl.residual_attention(3).update(
                jnp.eye(2), jaxmtl.residual_attention(3).init(jnp.zeros(2)), losses=jnp.ones(2)
            ),
            "built for 3 tasks, but received 2",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
