"""Losses that are negative or pass zero, and losses at their exact minimum, for every method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from jaxmtl.methods import METHODS
from tests.combinators.test_rounding import at_its_minimum
from tests.losses.test_adaptive_losses import weights_over_time
from tests.test_every_method import PARAMS, as_tree, each, make, needed

pytestmark = pytest.mark.usefixtures("quick_compiler")

# A policy's loss falls far below zero, another one hardly moves.
STEPS = np.linspace(0, 1, 41)[:, None]
FALLING = np.array([2.0, 2.0, 3.0]) + STEPS * np.array([-22.0, -0.1, -1.0])
BOUNDS = np.array([-25.0, 0.0, 1.0])
BOUNDED = [name for name in METHODS if METHODS[name].any_sign == "lower_bounds"]
# What they need besides; those of the rest are in the table.
OWN = {"dwa": {"window": 3}, "relobralo": {"key": 0, "decay": 0.5}}
SAVED = {
    "mgda": {"normalizer": "loss"},
    "softadapt": {"variant": "loss_weighted"},
    "normalize": {"alpha": 1.0},
}


def bounded(name, lower_bounds):
    factory = getattr(jaxmtl, name)
    known = {"num_tasks": 3, "lower_bounds": lower_bounds}
    return factory(**(known | OWN.get(name, {}) | SAVED.get(name, {})))


@pytest.mark.parametrize("name", [*BOUNDED, *SAVED])
def test_only_what_is_above_the_bounds_counts(name):
    """The same weights as of losses above zero, each less its bound."""
    with jax.enable_x64(True):
        shifted, _ = weights_over_time(bounded(name, BOUNDS), FALLING)
        plain, _ = weights_over_time(bounded(name, None), FALLING - BOUNDS)
    np.testing.assert_allclose(shifted, plain, rtol=1e-6)


@each(
    [name for name in METHODS if METHODS[name].any_sign != "no"],
    soon=("real_time_loss", "gradnorm", "uncertainty"),
)
def test_weights_stay_in_bounds_while_losses_pass_zero(name):
    """With its bounds, where it has such an argument; the laggard is not left without weight."""
    balancer = bounded(name, BOUNDS) if name in BOUNDED else make(name)
    if METHODS[name].any_sign == "ideal":
        balancer = getattr(jaxmtl, name)(ideal=BOUNDS)
    state, grads = balancer.init(PARAMS), as_tree(1 + np.eye(3, 10))
    update = jax.jit(balancer.update)
    for losses in FALLING:
        updates, state = update(grads, state, losses=losses, **needed(name, grads))
        sizes = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(updates)]
        assert 1e-3 < max(sizes) < 1e3


@pytest.mark.parametrize("name", ["gradnorm", "normalize", "brdr"])
def test_a_loss_that_fell_below_zero_leads_and_has_less_weight(name):
    """Also without bounds: the rate of |L/L(0)| = 10 took it for the laggard."""
    weights, _ = weights_over_time(bounded(name, None), FALLING.astype(np.float32))
    assert weights[-1, 0] < weights[-1, 1]


@pytest.mark.parametrize("name", ["uncertainty", "imtl_l", "imtl"])
def test_learned_weights_rest_where_the_loss_is_at_its_bound_or_below(name):
    history = np.float32([[1.0, 1.0, 1.0]] * 5 + [[0.0, -3.0, 1.0]] * 200)
    weights, _ = weights_over_time(getattr(jaxmtl, name)(3), history)
    if name != "imtl":  # whose weights are shares of all
        np.testing.assert_array_equal(weights[6:, :2], np.broadcast_to(weights[6, :2], (199, 2)))
    assert weights.max() < 3


def test_dwa_goes_on_where_a_window_was_zero():
    history = np.float32([[0.0, 4.0], [0.0, 2.0], [1.0, 1.0]])
    weights, _ = weights_over_time(jaxmtl.dwa(2, window=1), history)
    ratio = np.exp(np.array([1.0, 0.5]) / 2)  # a window of zeros counts as unchanged
    np.testing.assert_allclose(weights[2], 2 * ratio / ratio.sum(), rtol=1e-6)


def test_magnitudes_are_matched_to_one_loss():
    balancer = jaxmtl.real_time_loss(
        reference="student", lower_bounds={"student": 1.0, "teacher": -2.0}
    )
    state = balancer.init(jnp.zeros(2))
    for student, teacher in [(3.0, -1.0), (2.0, 6.0)]:
        losses = {"student": student, "teacher": teacher}
        updates, state = balancer.update(jnp.eye(2), state, losses=losses)
        np.testing.assert_allclose(updates, [1, (student - 1) / (teacher + 2)], rtol=1e-6)
    plain = jaxmtl.real_time_loss(reference=2.5)
    updates, _ = plain.update(jnp.eye(2), plain.init(jnp.zeros(2)), losses=jnp.array([5.0, 0.5]))
    np.testing.assert_allclose(updates, [0.5, 5])


@each(list(METHODS), soon=("real_time_loss", "famo", "mgda"))
def test_held_weights_are_safe_where_the_table_says_so(name):
    """A loss at its exact minimum, of 1e-15 and with a gradient of rounding, at the first step."""
    balancer, (grads, _) = jaxmtl.every(make(name), 1000), at_its_minimum()
    losses = jnp.array([1.0, 2.0, 1e-15])
    _, state = balancer.update(grads, balancer.init(PARAMS), losses=losses, **needed(name, grads))
    weights = np.abs(np.asarray(state.timing.weights, np.float64))
    assert (weights[2] <= 1e4 * weights[:2].max()) == METHODS[name].holds


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxmtl.gradnorm(2, lower_bounds=[0.0]), "lower_bounds holds 1 values"),
        (lambda: jaxmtl.gls(lower_bounds=[0.0, np.inf]), "lower_bounds must be finite"),
        (
            lambda: jaxmtl.gradnorm(2, initial_losses=[1.0, 1.0], lower_bounds=[0.0, 2.0]),
            "initial_losses must be above lower_bounds for every task",
        ),
        (lambda: jaxmtl.mgda(lower_bounds=[0.0, 0.0]), 'normalizer="loss" and "loss.", but'),
        (lambda: jaxmtl.softadapt(2, lower_bounds=[0.0, 0.0]), 'variant="loss_weighted", but'),
        (lambda: jaxmtl.real_time_loss(reference=-1.0), "reference must be a finite number above"),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bounds_bear_the_names_of_the_losses():
    balancer = jaxmtl.gls(lower_bounds={"policy": -2.0, "value": 0.0})
    with pytest.raises(ValueError, match="must have the same names"):
        balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)), losses={"policy": 1.0, "v": 1.0})
