"""Weights over the steps: averaged, held, and starting late."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from tests.references import gradients, min_norm_weights

pytestmark = pytest.mark.usefixtures("quick_compiler")

PARAMS = jnp.zeros(6)
STACKS = [gradients(seed, 3, 6, kind="conflicting") for seed in range(7)]
WEIGHTS = np.array([min_norm_weights(j) for j in STACKS])


def run(balancer, stacks=STACKS, **kwargs):
    """The task weights of every step, and the last state."""
    update = jax.jit(balancer.update)
    state, weights = balancer.init(PARAMS), []
    for j in stacks:
        updates, state = update(jnp.asarray(j, jnp.float32), state, **kwargs)
        weights.append(np.asarray(state.task_weights))
        np.testing.assert_allclose(updates, weights[-1] @ j, atol=1e-5)
    return np.array(weights), state


def test_smooth_is_the_average_that_starts_at_the_first_weights():
    weights, _ = run(jaxmtl.smooth(jaxmtl.mgda(num_tasks=3), 0.8))
    average = WEIGHTS[0]
    for t, fresh in enumerate(WEIGHTS):
        average = 0.8 * average + 0.2 * fresh
        np.testing.assert_allclose(weights[t], average, atol=1e-5)


def test_smooth_keeps_the_average_of_an_absent_task():
    balancer = jaxmtl.smooth(jaxmtl.real_time_loss(num_tasks=2), 0.5)
    state = balancer.init(jnp.zeros(2))
    steps = [([1.0, 2.0], [True, False]), ([0.5, 4.0], [True, True]), ([0.25, 1.0], [False, True])]
    expected = [[1, 0], [1.5, 0.25], [0, 0.625]]
    for (losses, active), weights in zip(steps, expected, strict=True):
        _, state = balancer.update(
            jnp.eye(2), state, losses=jnp.array(losses), active=jnp.array(active)
        )
        np.testing.assert_allclose(state.task_weights, weights)
    np.testing.assert_allclose(state.method.average, [1.5, 0.625])


def test_every_holds_the_weights_in_between():
    weights, state = run(jaxmtl.every(jaxmtl.mgda(num_tasks=3), 3))
    np.testing.assert_allclose(weights, WEIGHTS[[0, 0, 0, 3, 3, 3, 6]], atol=1e-5)
    assert state.timing.finite_steps == 7
    nested, _ = run(jaxmtl.every(jaxmtl.every(jaxmtl.mgda(num_tasks=3), 2), 3))
    np.testing.assert_allclose(nested, WEIGHTS[[0, 0, 0, 0, 0, 0, 6]], atol=1e-5)


def test_every_moves_the_method_only_when_it_asks():
    balancer = jaxmtl.every(jaxmtl.real_time_loss(num_tasks=2), 2)
    smooth = jaxmtl.every(jaxmtl.smooth(jaxmtl.real_time_loss(num_tasks=2), 0.5), 2)
    state, averaged = balancer.init(jnp.zeros(2)), smooth.init(jnp.zeros(2))
    for loss, held, average in [(1, 1, 1), (9, 1, 1), (0.5, 2, 1.5), (9, 2, 1.5), (0.25, 4, 2.75)]:
        losses = jnp.array([loss, 1.0])
        _, state = balancer.update(jnp.eye(2), state, losses=losses)
        _, averaged = smooth.update(jnp.eye(2), averaged, losses=losses)
        np.testing.assert_allclose(state.task_weights, [held, 1])
        np.testing.assert_allclose(averaged.task_weights, [average, 1])


def test_a_task_absent_when_asked_keeps_its_last_weight():
    balancer = jaxmtl.every(jaxmtl.real_time_loss(num_tasks=2), 2)
    state, all_here = balancer.init(jnp.zeros(2)), jnp.array([True, True])
    losses = jnp.array([0.5, 0.25])
    _, state = balancer.update(jnp.eye(2), state, losses=losses, active=all_here)
    _, state = balancer.update(jnp.eye(2), state, losses=losses, active=~all_here)
    np.testing.assert_array_equal(state.task_weights, [0, 0])
    one_here = jnp.array([True, False])
    _, state = balancer.update(jnp.eye(2), state, losses=2 * losses, active=one_here)
    np.testing.assert_allclose(state.task_weights, [1, 0])
    _, state = balancer.update(jnp.eye(2), state, losses=losses, active=all_here)
    np.testing.assert_allclose(state.task_weights, [1, 4])


def test_warm_up_and_ramp():
    static = jaxmtl.static([3.0, 1.0])
    balancer = jaxmtl.warm_up(static, 2, ramp=3, weights={"a": 1.0, "b": 5.0})
    state, weights = balancer.init(jnp.zeros(2)), []
    for _ in range(8):
        _, state = balancer.update(jnp.eye(2), state)
        weights.append(state.task_weights)
    share = np.clip(np.array([0, 0, 1, 2, 3, 4, 5, 6]) / 4, 0, 1)
    expected = np.outer(1 - share, [1, 5]) + np.outer(share, [3, 1])
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_before_the_start_the_tasks_present_share_equally_and_the_method_sees_nothing():
    balancer = jaxmtl.warm_up(jaxmtl.initial_loss(2), 2)
    state = balancer.init(jnp.zeros(2))
    _, state = balancer.update(jnp.eye(2), state, losses=jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(state.task_weights, [0.5, 0.5])
    only = jnp.array([False, True])
    _, state = balancer.update(jnp.eye(2), state, losses=jnp.array([1.0, 2.0]), active=only)
    np.testing.assert_allclose(state.task_weights, [0, 1])
    _, state = balancer.update(jnp.eye(2), state, losses=jnp.array([4.0, 8.0]))
    np.testing.assert_allclose(state.task_weights, [0.25, 0.125])


def test_priorities_hold_from_the_first_step():
    late = jaxmtl.prioritise(jaxmtl.vqgan_adaptive([False, True], start=1), [5.0, 2.0])
    warmed = jaxmtl.prioritise(jaxmtl.warm_up(jaxmtl.static([1.0, 1.0]), 1), [1.0, 10.0])
    final = jaxmtl.warm_up(jaxmtl.prioritise(jaxmtl.static([1.0, 1.0]), [1.0, 10.0]), 1)
    for balancer, expected in [
        (late, [[5, 0], [5, 1.6]]),
        (warmed, [[0.5, 5], [1, 10]]),
        (final, [[0.5, 0.5], [1, 10]]),
    ]:
        state = balancer.init(jnp.zeros(2))
        for weights in expected:
            updates, state = balancer.update(jnp.eye(2), state)
            np.testing.assert_allclose(updates, weights, rtol=1e-6)


def test_start_and_period_go_together():
    for balancer in (
        jaxmtl.warm_up(jaxmtl.every(jaxmtl.mgda(num_tasks=3), 2), 1),
        jaxmtl.every(jaxmtl.warm_up(jaxmtl.mgda(num_tasks=3), 1), 2),
    ):
        weights, _ = run(balancer)
        np.testing.assert_allclose(weights[1:], WEIGHTS[[1, 1, 3, 3, 5, 5]], atol=1e-5)


def test_weights_of_any_size_are_held_exactly():
    balancer = jaxmtl.every(jaxmtl.static([1e-12, 3.0]), 2)
    _, state = balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)))
    np.testing.assert_array_equal(state.task_weights, np.array([1e-12, 3.0], np.float32))


@pytest.mark.parametrize("asks", [True, False])
def test_a_broken_step_counts_nothing(asks):
    balancer = jaxmtl.every(jaxmtl.mgda(num_tasks=3), 2)
    stack = jnp.asarray(STACKS[0], jnp.float32)
    state = balancer.init(PARAMS)
    if not asks:
        _, state = balancer.update(stack, state)
    updates, new_state = balancer.update(stack.at[1, 1].set(jnp.nan), state)
    assert np.isnan(updates).any()
    for new, old in zip(jax.tree.leaves(new_state), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(new, old)


def losses_fn(params, x):
    h = jnp.tanh(params["w"] @ x)
    return {"a": jnp.sum(h**2), "b": jnp.sum(jnp.cos(h)), "c": 2 + jnp.sum(jnp.sin(3 * h))}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda b: jaxmtl.every(b, 3),
        lambda b: jaxmtl.warm_up(b, 2, ramp=2),
        lambda b: jaxmtl.on_shared(jaxmtl.every(b, 2), lambda path: path == "w"),
        lambda b: jaxmtl.prioritise(jaxmtl.smooth(jaxmtl.every(b, 2), 0.5), [1.0, 2.0, 3.0]),
    ],
)
@pytest.mark.parametrize(
    "method", [jaxmtl.upgrad, lambda num_tasks: jaxmtl.gradnorm(num_tasks), jaxmtl.gls]
)
@pytest.mark.slow
def test_both_routes_agree_at_every_step(method, wrap):
    balancer = wrap(method(num_tasks=3))
    params = {"w": jnp.asarray(gradients(0, 4, 5), jnp.float32), "free": jnp.ones(2)}
    route = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
    stacked = jax.jit(jaxmtl.value_and_task_grads(losses_fn))
    update = jax.jit(balancer.update)
    state = expected_state = balancer.init(params)
    for seed in range(6):
        x = jnp.asarray(gradients(seed, 5, 2), jnp.float32)
        losses, grads = stacked(params, x)
        expected, expected_state = update(grads, expected_state, params, losses=losses)
        value, grad, state = route(state, params, x)
        np.testing.assert_allclose(value["c"], losses["c"], rtol=1e-6)
        np.testing.assert_allclose(grad["w"], expected["w"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state.task_weights, expected_state.task_weights, rtol=1e-4)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grad)


def test_names_in_aux_do_not_reach_the_choice():
    def with_aux(x):
        return {"a": jnp.sum(x**2), "b": jnp.sum(x)}, {"name": "s", "twice": 2 * x}

    balancer = jaxmtl.every(jaxmtl.mgda(num_tasks=2), 2)
    route = jaxmtl.value_and_balanced_grad(with_aux, balancer, has_aux=True)
    (_, aux), _, _ = route(balancer.init(jnp.zeros(2)), jnp.ones(2))
    assert aux["name"] == "s"


def dots(jaxpr, name):
    """Count the primitives of a name in the branches of the outermost cond."""
    (cond,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "cond"]
    return [str(branch).count(name) for branch in cond.params["branches"]]


def test_the_steps_in_between_skip_the_work():
    """No Gramian and no solve in the chain; no stacked gradients on the cheap route."""
    balancer = jaxmtl.every(jaxmtl.upgrad(num_tasks=3), 2)
    state, stack = balancer.init(PARAMS), jnp.ones((3, 6))
    rests, asks = dots(jax.make_jaxpr(balancer.update)(stack, state).jaxpr, "dot_general")
    assert rests == 0 < asks
    params = {"w": jnp.ones((4, 5))}
    route = jaxmtl.value_and_balanced_grad(losses_fn, balancer)
    jaxpr = jax.make_jaxpr(route)(balancer.init(params), params, jnp.ones((5, 2))).jaxpr
    (cond,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "cond"]
    rests, asks = (str(branch) for branch in cond.params["branches"])
    assert "f32[3,4,5]" in asks
    assert "f32[3,4,5]" not in rests
    # One product forward, one backward.
    assert len(re.findall("dot_general", rests)) == 2


def test_they_work_in_chains_and_scans():
    optimizer = optax.chain(
        jaxmtl.smooth(jaxmtl.every(jaxmtl.mgda(num_tasks=3), 2), 0.5), optax.adam(0.1)
    )
    stacks = jnp.asarray(np.stack(STACKS), jnp.float32)

    def step(carry, stack):
        params, state = carry
        updates, state = optimizer.update(stack, state, params)
        return (optax.apply_updates(params, updates), state), optax.tree.get(state, "task_weights")

    _, weights = jax.jit(lambda c: jax.lax.scan(step, c, stacks))((PARAMS, optimizer.init(PARAMS)))
    first = (WEIGHTS[0] + WEIGHTS[2]) / 2
    np.testing.assert_allclose(weights[3], first, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jaxmtl.every(jaxmtl.mgda(), 2), "the number of tasks must be known"),
        (lambda: jaxmtl.smooth(jaxmtl.mgda(), 0.5), "smooth keeps an average for each task"),
        (lambda: jaxmtl.smooth(jaxmtl.mgda(num_tasks=2), 1.0), "decay must be a number from 0 to"),
        (
            lambda: jaxmtl.every(jaxmtl.mgda(num_tasks=2), 0),
            "k must be a whole number of at least 1",
        ),
        (
            lambda: jaxmtl.warm_up(jaxmtl.mgda(num_tasks=2), -1),
            "steps must be a whole number of at",
        ),
        (
            lambda: jaxmtl.warm_up(jaxmtl.mgda(num_tasks=2), 1.5),
            "steps must be a whole number of a",
        ),
        (
            lambda: jaxmtl.warm_up(jaxmtl.vqgan_adaptive([False, True], start=3), 1),
            "already has a start of its own",
        ),
        (
            lambda: jaxmtl.warm_up(jaxmtl.static({"a": 1, "b": 2}), 1, weights={"a": 1, "c": 2}),
            "must have the same names",
        ),
        (lambda: jaxmtl.warm_up(jaxmtl.gradnorm(2), 1, weights=[1, 2, 3]), "weights holds 3 value"),
        (lambda: jaxmtl.every(optax.adam(0.1), 2), r"balancer must be a jaxmtl.Balancer"),
    ],
)
def test_misuse_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_constants_of_float64_pass_silently():
    """A method may return what NumPy made of the user's numbers."""
    fixed = {"a": "balanced", "b": "balanced", "c": 0.5}
    for balancer in (
        jaxmtl.smooth(jaxmtl.static([1.0, 2.0, 0.5]), 0.9),
        jaxmtl.with_fixed(jaxmtl.static({"a": 1.0, "b": 2.0}), fixed),
    ):
        updates, _ = balancer.update(jnp.eye(3), balancer.init(jnp.zeros(3)))
        np.testing.assert_allclose(updates, [1.0, 2.0, 0.5])
