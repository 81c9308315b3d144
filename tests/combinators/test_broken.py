"""A task whose loss or gradient is not finite is left out, and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.references import as_vector, gradients, min_norm_weights, relative_error
from tests.test_every_method import PARAMS, as_tree, make, needed

pytestmark = pytest.mark.usefixtures("quick_compiler")

LOSSES = np.array([1.5, 0.5, 2.5], np.float32)
BROKEN = {
    "gradient nan": (np.nan, 1.0),
    "gradient inf": (-np.inf, 1.0),
    "loss nan": (1.0, np.nan),
    "loss inf": (1.0, np.inf),
}
# One of each kind of state and route.
KINDS = ["mgda", "moco"] + [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("static", "uncertainty", "gradnorm", "upgrad", "modo", "trimmed_mean")
]


@pytest.mark.parametrize("broken", ["gradient nan", "loss inf"])
@pytest.mark.parametrize("name", KINDS)
def test_as_if_the_broken_task_were_absent(name, broken):
    entry, loss = BROKEN[broken]
    j, losses = gradients(0, 3, 10, kind="conflicting"), LOSSES.copy()
    sound = as_tree(j)
    j[1, 4], losses[1] = entry, loss
    grads = as_tree(j)
    balancer, skipping = make(name), jaxmtl.skip_broken(make(name))
    first = jax.jit(balancer.update)
    _, state = first(sound, balancer.init(PARAMS), losses=LOSSES, **needed(name, sound))
    present = np.array([True, False, True])
    expected = balancer.update(grads, state, losses=losses, active=present, **needed(name, grads))
    result = skipping.update(grads, state, losses=losses, **needed(name, grads))
    assert np.all(np.isfinite(as_vector(result[0])))
    for new, old in zip(*map(jax.tree.leaves, (result, expected)), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-7)
    # Where nothing is broken, nothing changes.
    same = skipping.update(sound, state, losses=LOSSES, **needed(name, sound))
    plain = balancer.update(sound, state, losses=LOSSES, **needed(name, sound))
    for new, old in zip(*map(jax.tree.leaves, (same, plain)), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-7)


def losses_fn(params, x):
    """Finite losses, of which the second has no finite gradient where its length is zero."""
    return {
        "a": jnp.sum((params["trunk"] - x) ** 2),
        "b": 1.0 + jnp.linalg.norm(params["trunk"] * (x - 1)),
        "c": jnp.sum(jnp.sin(params["trunk"])) + jnp.sum(params["head"] ** 2),
    }


def routes(balancer):
    """The gradient of the trunk and the new state, by every route that serves the combinator."""
    params = {"trunk": jnp.array([0.3, -0.4]), "head": jnp.array([2.0])}
    state, x = balancer.init(params), jnp.ones(2)

    def stacked():
        losses, grads = jaxmtl.value_and_task_grads(losses_fn)(params, x)
        return balancer.update(grads, state, params, losses=losses)

    def at_once():
        return jaxmtl.value_and_balanced_grad(losses_fn, balancer)(state, params, x)[1:]

    def features():
        def decode(head, trunk, x):
            return losses_fn({"trunk": trunk, "head": head}, x)

        step = jaxmtl.value_and_features_grad(lambda p, x: p["trunk"], decode, balancer)
        _, (shared, head), new = step(balancer.init(params), params, params["head"], x)
        return {"trunk": shared["trunk"], "head": head}, new

    return {"stacked": stacked, "at once": at_once, "features": features}


@pytest.mark.parametrize("route", ["stacked", "at once", "features"])
def test_a_finite_loss_without_a_finite_gradient(route):
    trunk_only = {"trunk": True, "head": False}
    method = jaxmtl.mgda(num_tasks=3)
    if route != "features":
        method = jaxmtl.on_shared(method, trunk_only)
    balancer = jaxmtl.report_only(jaxmtl.skip_broken(method))
    update, state = jax.jit(routes(balancer)[route])()
    trunk = np.array([0.3, -0.4])
    j = np.stack([2 * (trunk - 1), np.cos(trunk)])
    expected = min_norm_weights(j) @ j
    np.testing.assert_allclose(update["trunk"], expected, rtol=1e-5)
    np.testing.assert_allclose(update["head"], [4.0], rtol=1e-6)
    np.testing.assert_array_equal(state.report.finite_gradients, [True, False, True])
    np.testing.assert_array_equal(state.report.finite_losses, [True, True, True])
    np.testing.assert_array_equal(state.report.broken_steps, [0, 1, 0])


def test_held_weights_and_a_task_that_breaks_in_between():
    balancer = jaxmtl.skip_broken(jaxmtl.every(jaxmtl.normalize(num_tasks=2), 2))
    state, grads = balancer.init(jnp.zeros(2)), jnp.diag(jnp.array([2.0, 4.0]))
    step = jaxmtl.value_and_balanced_grad(lambda x, g: {"a": g[0] @ x, "b": g[1] @ x}, balancer)
    for broken, expected in [(False, [1.0, 1.0]), (True, [1.0, 0.0]), (False, [1.0, 1.0])]:
        now = grads.at[1, 1].set(jnp.nan) if broken else grads
        _, update, state = jax.jit(step)(state, jnp.ones(2), now)
        np.testing.assert_allclose(update * np.array([1, 1]), expected, rtol=1e-6)


def test_all_tasks_broken_give_zero_and_lean_is_refused():
    balancer = jaxmtl.skip_broken(jaxmtl.upgrad(num_tasks=2))
    updates, _ = balancer.update(jnp.full((2, 3), jnp.nan), balancer.init(jnp.zeros(3)))
    np.testing.assert_array_equal(updates, np.zeros(3))
    with pytest.raises(ValueError, match="leave memory out"):
        jaxmtl.value_and_balanced_grad(losses_fn, balancer, memory="lean")


REPORTING = jaxmtl.report_only(jaxmtl.mgda(num_tasks=3))
reporting = jax.jit(REPORTING.update)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_report_names_who_broke_the_step(broken):
    entry, loss = BROKEN[broken]
    j, losses = gradients(1, 3, 10), LOSSES.copy()
    j[1, 4], losses[1] = entry, loss
    state = REPORTING.init(PARAMS)
    for _ in range(2):
        updates, state = reporting(as_tree(j), state, losses=losses)
    assert not np.all(np.isfinite(as_vector(updates)))
    seen = state.report
    np.testing.assert_array_equal(seen.broken_steps, [0, 2, 0])
    np.testing.assert_array_equal(seen.finite_losses, np.isfinite(losses))
    np.testing.assert_array_equal(seen.finite_gradients, np.isfinite(j).all(1))
    np.testing.assert_array_equal(state.method.iterations, 0)
    others = np.array([0, 2])
    lengths = np.linalg.norm(j[others], axis=1)
    np.testing.assert_allclose(np.asarray(seen.norms)[others], lengths, rtol=1e-6)
    assert np.isfinite(seen.norms[1]) == np.isfinite(entry)
    cosine = j[0] @ j[2] / lengths.prod()
    assert relative_error(np.asarray(seen.cosines)[0, 2], cosine) < 1e-5
    if "gradient" in broken:
        np.testing.assert_allclose(seen.norm_ratio, lengths.max() / lengths.min(), rtol=1e-6)
        assert np.all(np.isfinite([seen.similarity, seen.conflicts, seen.stationarity]))
