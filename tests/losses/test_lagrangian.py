"""Constraints with multipliers: each step against NumPy in float64, ends against KKT points."""

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

BOUNDS = [None, 2.5, 200.0]
# Losses of HISTORY are about 0.025, 2.5 and 250, so that both constraints are met at some steps.
FORMS = ["additive", "damped", "pi", "log"]


def of_paper(history, form, rate, damping, decay, largest, bounds=BOUNDS):
    """The weights and the multipliers of each step."""
    bounded = np.array([b is not None for b in bounds])
    limits = np.array([0 if b is None else b for b in bounds], float)
    multipliers = np.full(len(bounds), 1.0 if form == "log" else 0.0)
    sums, weights, found = np.zeros(len(bounds)), [], []
    for t, losses in enumerate(history):
        excess = losses - limits
        sums = decay * sums + (1 - decay) * excess
        average = sums / (1 - decay ** (t + 1))
        if form == "log":
            multipliers = np.exp(np.log(multipliers) + rate * average)
            multipliers = np.clip(multipliers, 1e-8 * largest, largest)
        else:
            multipliers = np.clip(multipliers + rate * excess, 0, largest)
        added = {"damped": damping * np.maximum(excess, 0), "pi": damping * average}.get(form, 0)
        weights.append(np.where(bounded, np.clip(multipliers + added, 0, largest), 1))
        found.append(np.where(bounded, multipliers, 1))
    return np.array(weights), np.array(found)


@pytest.mark.parametrize("form", FORMS)
def test_each_step(form):
    options = {"rate": 0.02, "damping": 0.3, "decay": 0.8, "largest": 5.0}
    expected, multipliers = of_paper(HISTORY, form, **options)
    assert np.ptp(expected[:, 1:], axis=0).min() > 0.1
    assert expected.max() == 5.0
    in_both_types(lambda: jaxmtl.lagrangian(BOUNDS, form=form, **options), expected, 2e-4)
    balancer = jaxmtl.lagrangian(BOUNDS, form=form, **options)
    _, state = weights_over_time(balancer, HISTORY.astype(np.float32))
    np.testing.assert_allclose(state.method.multipliers, multipliers[-1], rtol=1e-3)
    np.testing.assert_allclose(
        state.method.slack, [np.inf, *(np.array(BOUNDS[1:]) - HISTORY[-1, 1:])], rtol=1e-5
    )


# The nearest point to (2, 1) with A x <= b: both hold with equality, and x = p - A' (A A')^-1 (A p
# - b). The losses of the constraints are linear, of any sign; a third bound is far away.
MATRIX, LIMITS, POINT = np.array([[1.0, 0.5], [0.3, -1.0]]), np.array([0.5, -1.2]), np.array([2, 1])
MULTIPLIERS = np.linalg.solve(MATRIX @ MATRIX.T, MATRIX @ POINT - LIMITS)
SOLUTION = POINT - MATRIX.T @ MULTIPLIERS


def losses_fn(x):
    first, second = jnp.asarray(MATRIX, x.dtype) @ x
    fit = jnp.sum((x - jnp.asarray(POINT, x.dtype)) ** 2) / 2
    return {"fit": fit, "first": first, "second": second, "length": jnp.sum(x**2)}


def trained(balancer, losses_fn=losses_fn, steps=3000):
    route = jaxmtl.value_and_balanced_grad(losses_fn, balancer)

    def step(carry, _):
        x, state = carry
        _, grad, state = route(state, x)
        return (x - 0.05 * grad, state), None

    x = jnp.zeros(2)
    run = jax.jit(lambda x, state: jax.lax.scan(step, (x, state), None, length=steps)[0])
    return run(x, balancer.init(x))


@pytest.mark.parametrize("form", FORMS)
def test_a_convex_problem_ends_at_its_kkt_point(form):
    assert np.all(MULTIPLIERS > 1)
    assert np.sum(SOLUTION**2) < 2
    bounds = {"fit": None, "first": LIMITS[0], "second": LIMITS[1], "length": 2.0}
    x, state = trained(jaxmtl.lagrangian(bounds, form=form))
    np.testing.assert_allclose(x, SOLUTION, atol=1e-3)
    by_name = jaxmtl.by_task(losses_fn(x), state.method.multipliers)
    found = [by_name[name] for name in ("first", "second", "length")]
    np.testing.assert_allclose(found, [*MULTIPLIERS, 0], atol=1e-3)
    assert not np.any(state.method.at_largest)
    slack = jaxmtl.by_task(losses_fn(x), state.method.slack)
    np.testing.assert_allclose(slack["length"], 2 - np.sum(SOLUTION**2), atol=1e-2)
    assert np.isinf(slack["fit"])


@pytest.mark.parametrize("form", FORMS)
def test_a_bound_that_cannot_be_met_stops_at_the_maximum_and_says_so(form):
    bounds = {"fit": None, "first": None, "second": None, "length": -1.0}
    x, state = trained(jaxmtl.lagrangian(bounds, form=form, largest=8.0))
    assert np.all(np.isfinite(x))
    by_name = jaxmtl.by_task(losses_fn(x), state.method.at_largest)
    assert {name: bool(flag) for name, flag in by_name.items()} == {
        "fit": False,
        "first": False,
        "second": False,
        "length": True,
    }
    assert np.max(state.method.multipliers) == np.max(state.task_weights) == 8
    assert jaxmtl.by_task(losses_fn(x), state.method.slack)["length"] < -1
    # The minimum of |x - p|^2 / 2 + sum(A x) + 8 |x|^2.
    np.testing.assert_allclose(x, (POINT - MATRIX.sum(axis=0)) / 17, atol=1e-5)


def test_scalars_name_what_is_kept_of_each_constraint():
    balancer = jaxmtl.lagrangian({"fit": None, "kl": 0.5}, rate=2.0, largest=1.0)
    losses = {"fit": jnp.array(3.0), "kl": jnp.array(2.5)}
    _, state = balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)), losses=losses)
    found = jaxmtl.scalars({"nested": state}, losses)
    assert found["multiplier/kl"] == 1
    assert found["slack/kl"] == -2
    assert found["at_largest/kl"]
    assert not found["at_largest/fit"]
    smoothed = jaxmtl.smooth(balancer, 0.5)
    assert "multiplier/kl" in jaxmtl.scalars(smoothed.init(jnp.zeros(2)), losses)


@pytest.mark.parametrize("form", FORMS)
def test_absent_and_broken_steps_move_nothing(form):
    balancer = jaxmtl.lagrangian([None, 1.0, 1.0], form=form, rate=0.1)
    state = balancer.init(jnp.zeros(3))
    update = jax.jit(balancer.update)
    _, state = update(jnp.eye(3), state, losses=jnp.array([1.0, 2.0, 3.0]))
    active = jnp.array([True, False, True])
    updates, after = update(jnp.eye(3), state, losses=jnp.array([1.0, jnp.nan, 5.0]), active=active)
    assert updates[1] == 0
    for new, old in zip(after.method, state.method, strict=True):
        np.testing.assert_array_equal(new[:2], old[:2])
        assert new[2] != old[2] or new.dtype == bool
    updates, broken = update(jnp.eye(3), after, losses=jnp.array([1.0, jnp.nan, 5.0]))
    assert np.all(np.isnan(updates))
    jax.tree.map(np.testing.assert_array_equal, broken, after)


@pytest.mark.parametrize("form", FORMS)
def test_many_hostile_steps_stay_finite_in_eager_mode(form):
    balancer = jaxmtl.lagrangian([None, -3e38, 1.0], form=form, rate=1e20)
    stays_finite(balancer, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxmtl.lagrangian([None, np.nan]), "bounds must hold one number per task that is"),
        (lambda: jaxmtl.lagrangian([None, -np.inf]), "bounds must hold one number per task that"),
        (lambda: jaxmtl.lagrangian([None, 1e40]), "bounds must hold one number per task that is f"),
        (lambda: jaxmtl.lagrangian([True, True]), "bounds must hold one"),
        (lambda: jaxmtl.lagrangian([None, 1.0], form="augmented"), "form must be one of additive,"),
        (lambda: jaxmtl.lagrangian([None, 1.0], rate=0), "rate must be a finite number above 0"),
        (
            lambda: jaxmtl.lagrangian([None, 1.0], damping=-1),
            "damping must be a number of at least",
        ),
        (
            lambda: jaxmtl.lagrangian([None, 1.0], largest=0),
            "largest must be a finite number above",
        ),
        (lambda: jaxmtl.lagrangian([None, 1.0], decay=1.0), "decay must be a number from 0 to bel"),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
