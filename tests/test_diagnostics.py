"""Reports, names, fixed losses and inferred shared leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from jaxmtl.diagnostics import report
from tests.references import gradients, min_norm_weights, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.mark.parametrize("spread", [0, 3])
def test_report_against_numpy(spread):
    j = gradients(0, 4, 30, spread=spread, kind="conflicting")
    w = np.array([0.5, 2.0, 1.0, 0.1])
    found = jax.jit(report)(jnp.asarray(j @ j.T, jnp.float32), jnp.asarray(w, jnp.float32))
    n, d = np.linalg.norm(j, axis=1), w @ j
    cosines = (j / n[:, None]) @ (j / n[:, None]).T
    upper = np.triu_indices(4, 1)
    np.testing.assert_allclose(found.norms, n, rtol=1e-6)
    np.testing.assert_allclose(found.cosines, cosines, atol=1e-6)
    assert found.conflicts == pytest.approx(np.mean(cosines[upper] < 0))
    assert found.norm_ratio == pytest.approx(n.max() / n.min(), rel=1e-5)
    pairs = 2 * np.outer(n, n) / (n[:, None] ** 2 + n[None] ** 2)
    assert found.similarity == pytest.approx(np.mean(pairs[upper]), rel=1e-5)
    np.testing.assert_allclose(found.update_cosines, j @ d / n / np.linalg.norm(d), atol=1e-5)
    unit = j / n[:, None]
    exact = np.linalg.norm(min_norm_weights(unit) @ unit)
    assert found.stationarity == pytest.approx(exact, rel=1e-4)


def test_report_of_nothing_and_of_zero_gradients_is_finite():
    for gramian in (np.zeros((3, 3)), np.diag([1.0, 0.0, 4.0])):
        found = report(jnp.asarray(gramian, jnp.float32), jnp.ones(3))
        assert all(np.all(np.isfinite(value)) for value in found)
    assert found.norm_ratio == 2
    assert found.conflicts == 0
    with pytest.raises(ValueError, match=r"shape \(T, T\) for weights of shape \(T,\)"):
        report(jnp.ones((2, 3)), jnp.ones(2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: jaxmtl.mgda(num_tasks=3),
        lambda: jaxmtl.uncertainty(3),
        lambda: jaxmtl.every(jaxmtl.upgrad(num_tasks=3), 2),
        lambda: jaxmtl.on_shared(jaxmtl.gradnorm(3), {"w": True, "v": False}),
    ],
)
@pytest.mark.slow
def test_report_only_changes_nothing(make):
    plain, reporting = make(), jaxmtl.report_only(make())
    params = {"w": jnp.zeros(20), "v": jnp.zeros(10)}
    state, other = plain.init(params), reporting.init(params)
    losses = {"a": jnp.array(1.0), "b": jnp.array(2.0), "c": jnp.array(0.5)}
    for seed in range(3):
        j = gradients(seed, 3, 30, spread=1)
        grads = {"w": jnp.asarray(j[:, :20], jnp.float32), "v": jnp.asarray(j[:, 20:], jnp.float32)}
        updates, state = jax.jit(plain.update)(grads, state, losses=losses)
        same, other = jax.jit(reporting.update)(grads, other, losses=losses)
        np.testing.assert_allclose(same["w"], updates["w"], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(other.task_weights, state.task_weights, rtol=1e-6)
    seen = jaxmtl.find_state((other, optax.EmptyState())).report
    assert np.all(np.asarray(seen.norms) > 0)
    named = jaxmtl.by_task(losses, seen.cosines)
    np.testing.assert_array_equal(named["b"], seen.cosines[1])


def test_find_state_through_chains_and_wrappers():
    optimizer = optax.named_chain(
        ("balance", jaxmtl.mgda(num_tasks=2)), ("rest", optax.chain(optax.adam(0.1)))
    )
    assert jaxmtl.find_state(optimizer.init(jnp.zeros(2))).task_weights.shape == (2,)
    for state, count in [(optax.adam(0.1).init(jnp.zeros(2)), 0), ([optimizer.init(0.0)] * 2, 2)]:
        with pytest.raises(ValueError, match=f"but it holds {count}"):
            jaxmtl.find_state(state)
    with pytest.raises(ValueError, match="values must have one entry for each of the 2 losses"):
        jaxmtl.by_task({"a": 1.0, "b": 2.0}, jnp.ones(3))
    with pytest.raises(ValueError, match="report_only keeps a number for each task"):
        jaxmtl.report_only(jaxmtl.mgda())


KINDS = {"a": "balanced", "b": 0.3, "c": "balanced", "d": 2.0}


@pytest.mark.parametrize(
    "make",
    [
        lambda: jaxmtl.mgda(num_tasks=2),
        lambda: jaxmtl.uncertainty(2),
        lambda: jaxmtl.gradnorm(2),
        lambda: jaxmtl.every(jaxmtl.upgrad(num_tasks=2), 2),
        lambda: jaxmtl.ntk(2),
    ],
)
def test_fixed_losses_are_outside(make):
    plain, combined = make(), jaxmtl.with_fixed(make(), KINDS)
    params = jnp.zeros(30)
    state, other = plain.init(params), combined.init(params)
    rows = np.array([0, 2])
    for seed in range(3):
        j = gradients(seed, 4, 30, spread=1)
        losses = dict(zip("abcd", jnp.arange(1.0, 5.0) / (seed + 1), strict=True))
        traces = jnp.array([1.0, 9.0, 4.0, 9.0])
        alone, state = plain.update(
            jnp.asarray(j[rows], jnp.float32),
            state,
            losses={"a": losses["a"], "c": losses["c"]},
            ntk_traces=traces[rows],
        )
        updates, other = combined.update(
            jnp.asarray(j, jnp.float32), other, losses=losses, ntk_traces=traces
        )
        expected = np.asarray(alone, np.float64) + 0.3 * j[1] + 2 * j[3]
        assert relative_error(updates, expected) < 1e-5
        np.testing.assert_allclose(other.task_weights[rows], state.task_weights, rtol=1e-6)


def test_fixed_losses_may_be_absent_and_misnamed():
    balancer = jaxmtl.with_fixed(jaxmtl.equal(), KINDS)
    assert balancer.init(jnp.zeros(4)).task_weights.shape == (4,)
    active = dict(zip("abcd", [True, False, False, True], strict=True))
    losses = dict.fromkeys("abcd", 1.0)
    updates, _ = balancer.update(
        jnp.eye(4), balancer.init(jnp.zeros(4)), losses=losses, active=active
    )
    np.testing.assert_allclose(updates, [1, 0, 0, 2])
    with pytest.raises(ValueError, match="must have the same names"):
        balancer.update(jnp.eye(4), balancer.init(jnp.zeros(4)), losses=dict.fromkeys("abce", 1.0))
    for make, message in [
        (
            lambda: jaxmtl.with_fixed(jaxmtl.mgda(), {"a": "fixed", "b": "balanced"}),
            '"balanced" or',
        ),
        (lambda: jaxmtl.with_fixed(jaxmtl.mgda(), [1.0, 2.0]), 'at least one "balanced"'),
        (lambda: jaxmtl.with_fixed(jaxmtl.gradnorm(3), KINDS), "holds 2 times"),
        (lambda: jaxmtl.with_fixed(jaxmtl.moco(2), KINDS), "works on the gradients themselves"),
        (lambda: jaxmtl.with_fixed(jaxmtl.static({"x": 1, "y": 2}), KINDS), "must have the names"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def program(params, x):
    h = jnp.tanh(x @ params["trunk"]["w"]) + params["trunk"]["b"][None]

    def layer(h, w):
        return jnp.tanh(h @ w), None

    h, _ = jax.lax.scan(layer, h, params["deep"])
    frozen = jax.lax.stop_gradient(h @ params["frozen"])
    side = jax.jit(lambda h, w: h @ w)(h, params["depth"])
    return {
        "depth": jnp.mean(side**2),
        "labels": jnp.mean(jnp.where(x[:, 0] > 0, 1.0, h @ params["labels"])),
        "prior": jnp.sum(params["labels"] ** 2) + jnp.mean(frozen),
    }


def test_shared_leaves_are_found_in_the_program():
    params = {
        "trunk": {"w": jnp.ones((3, 4)), "b": jnp.ones(4)},
        "deep": jnp.ones((2, 4, 4)),
        "frozen": jnp.ones(4),
        "depth": jnp.ones(4),
        "labels": jnp.ones(4),
        "unused": jnp.ones(2),
    }
    expected = {
        "trunk": {"w": True, "b": True},
        "deep": True,
        "frozen": False,
        "depth": False,
        "labels": True,
        "unused": False,
    }
    assert jaxmtl.shared_leaves(program, params, jnp.ones((5, 3))) == expected
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    x = jax.ShapeDtypeStruct((5, 3), jnp.float32)
    assert jaxmtl.shared_leaves(program, shapes, x) == expected
    with_aux = jaxmtl.shared_leaves(lambda *a: (program(*a), None), shapes, x, has_aux=True)
    assert with_aux == expected
    balancer = jaxmtl.on_shared(jaxmtl.mgda(), expected)
    _, grads = jaxmtl.value_and_task_grads(program)(params, jnp.ones((5, 3)))
    updates, _ = balancer.update(grads, balancer.init(params))
    np.testing.assert_allclose(updates["depth"], grads["depth"].sum(axis=0), rtol=1e-6)


def test_what_nobody_can_tell_is_refused():
    def stacked(params, x):
        return jnp.stack(list(program(params, x).values()))

    with pytest.raises(ValueError, match="must return a tree of scalars"):
        jaxmtl.shared_leaves(lambda p: jnp.stack([p.sum(), p[0]]), jnp.ones(2))
    with pytest.raises(ValueError, match="The function returned 1 losses"):
        jaxmtl.shared_leaves(lambda p: {"a": p.sum()}, jnp.ones(2))
    with pytest.raises(ValueError, match="With has_aux=True the function must return a pair"):
        jaxmtl.shared_leaves(lambda p: {"a": p.sum(), "b": p[0]}, jnp.ones(2), has_aux=True)
