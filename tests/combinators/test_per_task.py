"""An optax transformation for each task, against the same formulas written task by task."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from tests.references import Adam, gradients

pytestmark = pytest.mark.usefixtures("quick_compiler")

T, STEPS = 3, 5
PARAMS = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(4)}
# Norms from 0.01 to 100, so that a clip at 1 binds for some tasks and not for others.
STACKS = [
    gradients(s, T, 10, kind="conflicting") * np.array([[100.0], [1.0], [0.01]]) * (1 + s)
    for s in range(STEPS)
]


def as_tree(j):
    j = jnp.asarray(j, jnp.float32)
    return {"a": j[..., :6].reshape(*j.shape[:-1], 2, 3), "b": j[..., 6:]}


def flat(tree):
    leaves = [np.asarray(leaf, np.float64) for leaf in (tree["a"], tree["b"])]
    lead = leaves[1].shape[:-1]
    return np.concatenate([leaf.reshape(*lead, -1) for leaf in leaves], axis=-1)


def run(tx, stacks=STACKS, actives=None, **kwargs):
    """The stacked updates of every step, and the last state."""
    update, state, found = jax.jit(tx.update), tx.init(PARAMS), []
    for t, j in enumerate(stacks):
        here = {} if actives is None else {"active": jnp.asarray(actives[t])}
        updates, state = update(as_tree(j), state, PARAMS, **here, **kwargs)
        found.append(flat(updates))
    return np.array(found), state


def clipped(j, size=1.0):
    norms = np.linalg.norm(j, axis=-1, keepdims=True)
    return j * np.minimum(1, size / norms)


def test_each_gradient_is_clipped_by_its_own_norm():
    found, _ = run(jaxmtl.per_task(optax.clip_by_global_norm(1.0), T))
    np.testing.assert_allclose(found, [clipped(j) for j in STACKS], rtol=1e-5)


def test_each_task_has_moments_of_its_own():
    adam = Adam(T, 10)
    found, state = run(jaxmtl.per_task(optax.scale_by_adam(), T))
    np.testing.assert_allclose(found, [adam(j) for j in STACKS], rtol=1e-4)
    np.testing.assert_array_equal(state.count, [STEPS] * T)
    assert state.mu["a"].shape == (T, 2, 3)
    found, _ = run(jaxmtl.per_task(optax.trace(0.9), T))
    trace, expected = np.zeros((T, 10)), []
    for j in STACKS:
        trace = j + 0.9 * trace
        expected.append(trace)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_absent_task_moves_nothing_of_its_own(broken):
    actives = [[True] * 3, [True, False, True], [False, True, True], [False] * 3, [True] * 3]
    stacks = [
        np.where(np.array(a)[:, None], j, broken) for a, j in zip(actives, STACKS, strict=True)
    ]
    adam, tx = Adam(T, 10), jaxmtl.per_task(optax.scale_by_adam(), T)
    expected = [adam(j, np.array(a)) for a, j in zip(actives, stacks, strict=True)]
    found, state = run(tx, stacks, actives)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_array_equal(state.count, adam.t[:, 0])
    np.testing.assert_allclose(flat(state.mu), adam.m, rtol=1e-4, atol=1e-7)
    all_here, _ = run(tx, actives=[[True] * 3] * STEPS)
    np.testing.assert_array_equal(all_here, run(tx)[0])


def test_only_the_task_that_is_nan_is_dropped():
    stacks = [j.copy() for j in STACKS]
    stacks[1][2, 4] = np.nan
    stacks[3][0, 0] = np.inf
    fine = [np.isfinite(j).all(axis=1) for j in stacks]
    adam = Adam(T, 10)
    expected = [adam(j, rows) for j, rows in zip(stacks, fine, strict=True)]
    tx = jaxmtl.per_task(optax.apply_if_finite(optax.scale_by_adam(), 10), T)
    found, state = run(tx, stacks)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_array_equal(state.total_notfinite, [1, 0, 1])
    np.testing.assert_array_equal(state.inner_state.count, [4, 5, 4])


@pytest.mark.parametrize(
    ("tx", "prepared"),
    [
        (optax.clip_by_global_norm(1.0), lambda: clipped),
        (optax.scale_by_adam(), lambda: Adam(T, 10)),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam()), None),
    ],
    ids=["clip", "adam", "both"],
)
def test_before_a_balancer_in_a_scan(tx, prepared):
    """The chain per_task, normalize, decay: weights and parameters against NumPy, traced once."""
    optimizer = optax.chain(
        jaxmtl.per_task(tx, T), jaxmtl.normalize(num_tasks=T), optax.add_decayed_weights(0.1)
    )
    traced = []

    def step(carry, stack):
        traced.append(1)
        params, state = carry
        losses = {"x": jnp.float32(1.0), "y": jnp.float32(2.0), "z": jnp.float32(3.0)}
        updates, state = optimizer.update(stack, state, params, losses=losses)
        params = jax.tree.map(lambda p, u: p - 0.01 * u, params, updates)
        return (params, state), optax.tree.get(state, "task_weights")

    stacks, start = as_tree(np.stack(STACKS)), (PARAMS, optimizer.init(PARAMS))
    (params, _), weights = jax.jit(lambda c: jax.lax.scan(step, c, stacks))(start)
    adam = Adam(T, 10)
    prepare = prepared() if prepared else lambda j: adam(clipped(j))
    expected = np.zeros(10)
    for t, j in enumerate(STACKS):
        rows = prepare(j)
        w = 1 / np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(weights[t], w, rtol=1e-4)
        expected -= 0.01 * (w @ rows + 0.1 * expected)
    np.testing.assert_allclose(flat(params), expected, rtol=1e-3, atol=1e-6)

    traced.clear()
    jitted, carry = jax.jit(step), start
    for t in range(STEPS):
        carry, _ = jitted(carry, jax.tree.map(lambda leaf, t=t: leaf[t], stacks))
    assert len(traced) == 1
    np.testing.assert_allclose(flat(carry[0]), flat(params), rtol=1e-5, atol=1e-7)


def test_everything_reaches_what_follows():
    """Losses, the mask and a method's own arguments, through a scalar transformation's too."""
    optimizer = optax.chain(
        jaxmtl.per_task(optax.clip_by_global_norm(1.0), 2),
        jaxmtl.initial_loss(2),
        optax.adam(0.1),
        optax.contrib.reduce_on_plateau(),
    )
    params, grads = jnp.zeros(2), 5 * jnp.eye(2)
    losses, active = {"a": 2.0, "b": jnp.nan}, {"a": True, "b": False}
    updates, state = jax.jit(optimizer.update)(
        grads, optimizer.init(params), params, losses=losses, active=active, value=2.0
    )
    np.testing.assert_allclose(optax.tree.get(state, "task_weights"), [0.5, 0])
    np.testing.assert_allclose(updates, [-0.1, 0], rtol=1e-5)


def test_the_tasks_see_the_parameters_and_draw_noise_of_their_own():
    decay = jaxmtl.per_task(optax.add_decayed_weights(0.5), 2)
    params = jnp.array([2.0, 4.0, 6.0])
    updates, _ = decay.update(jnp.zeros((2, 3)), decay.init(params), params)
    np.testing.assert_allclose(updates, [[1, 2, 3]] * 2)
    here = jnp.array([False, True])
    updates, _ = decay.update(jnp.zeros((2, 3)), decay.init(params), params, active=here)
    np.testing.assert_allclose(updates, [[0, 0, 0], [1, 2, 3]])
    polyak = jaxmtl.per_task(optax.polyak_sgd(), 2)
    for options in ({}, {"active": here}):
        updates, _ = polyak.update(jnp.eye(2), polyak.init(params[:2]), value=0.5, **options)
        np.testing.assert_allclose(updates[1], [0, -0.5])
    noise = jaxmtl.per_task(optax.add_noise(1.0, 0.5, key=0), 2)
    updates, _ = noise.update(jnp.zeros((2, 3)), noise.init(params))
    assert np.all(updates[0] != updates[1])
    averages = optax.chain(jaxmtl.per_task(optax.ema(0.9), 2), jaxmtl.equal())
    frozen = {"w": jnp.zeros(3), "frozen": None}
    grads = {"w": jnp.ones((2, 3)), "frozen": None}
    updates, _ = averages.update(grads, averages.init(frozen), frozen)
    np.testing.assert_allclose(updates["w"], [1, 1, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jaxmtl.per_task(optax.adam, 2), "must be an optax transformation.* Call it"),
        (lambda: jaxmtl.per_task(jaxmtl.mgda(), 2), "That is a balancer, which comes after"),
        (lambda: jaxmtl.per_task(optax.adam(0.1), 2.0), "num_tasks must be a whole number"),
    ],
)
def test_misuse_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("grads", "options", "message"),
    [
        (np.ones(3), {}, "The gradients were never stacked: every leaf has its parameter's own"),
        (np.ones((2, 3)), {}, "built for 4 tasks, but the gradients are of 2: build it with num"),
        (np.ones((2, 5)), {}, "has shape .2, 5., but its parameter has shape .3,."),
        (np.ones((4, 3)), {"active": np.ones(3, bool)}, "active holds 3 values, but there are 4 t"),
        (np.ones((4, 3)), {"active": np.ones(4)}, "active must be a mask of bools"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(grads, options, message):
    tx, params = jaxmtl.per_task(optax.scale_by_adam(), 4), jnp.zeros(3)
    with pytest.raises(ValueError, match=message):
        jax.jit(tx.update)(jnp.asarray(grads), tx.init(params), params, **options)
