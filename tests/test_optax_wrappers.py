"""Where optax's wrappers stand: behind a balancer, around it, ahead of it, and where they cannot.

Every task is 0.5 a_i |p - c_i|^2, so that NumPy knows all gradients, and normalised gradients.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import jaxmtl
from tests.references import Adam, as_vector, min_norm_weights, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")

T, STEPS = 3, 6
RNG = np.random.default_rng(0)
SCALES = np.array([1.0, 10.0, 0.1])
CENTRES = RNG.normal(size=(T, 9))
PARAMS = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}
LOSSES = jnp.array([1.0, 2.0, 3.0])


def as_tree(j):
    """Split (..., 9) into the leaves of PARAMS."""
    j = jnp.asarray(j, jnp.float32)
    return {"w": j[..., :6].reshape(*j.shape[:-1], 2, 3), "b": j[..., 6:]}


def flat(tree):
    leaves = [np.asarray(leaf, np.float64) for leaf in (tree["w"], tree["b"])]
    return np.concatenate([leaf.reshape(*leaves[1].shape[:-1], -1) for leaf in leaves], axis=-1)


def gradients(p):
    return SCALES[:, None] * (p - CENTRES)


def normalised(j):
    return (1 / np.linalg.norm(j, axis=1)) @ j


def losses_fn(params, x):
    """The mean over a batch of noisy centres."""
    p = jnp.concatenate([params["w"].reshape(-1), params["b"]])
    errors = p[None, None] - jnp.asarray(CENTRES, p.dtype)[None] - x
    return 0.5 * jnp.asarray(SCALES, p.dtype) * jnp.mean(jnp.sum(errors**2, axis=-1), axis=0)


def train(optimizer, gradients_of, steps=STEPS):
    """Parameters after every step, each one traced once."""
    update, params, found = jax.jit(optimizer.update), PARAMS, []
    state = optimizer.init(params)
    for _ in range(steps):
        grads = as_tree(gradients_of(flat(params)))
        updates, state = update(grads, state, params, losses=LOSSES)
        params = optax.apply_updates(params, updates)
        found.append(flat(params))
    assert update._cache_size() == 1
    return np.array(found), params, state


BEHIND = {
    "MultiSteps": lambda: optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(0.1), 5),
    "clip": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1)),
    "partition": lambda: optax.partition(
        {"fast": optax.adam(0.1), "slow": optax.sgd(0.01)}, {"w": "fast", "b": "slow"}
    ),
    "masked": lambda: optax.chain(
        optax.masked(optax.add_decayed_weights(0.1), {"w": True, "b": False}), optax.sgd(0.1)
    ),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.sgd)(
        learning_rate=optax.linear_schedule(0.1, 0.0, STEPS)
    ),
    "flatten": lambda: optax.flatten(optax.adam(0.1)),
    "schedule_free": lambda: optax.contrib.schedule_free_adamw(0.1),
    "mechanize": lambda: optax.contrib.mechanize(optax.sgd(0.1), s_init=1e-2),
}


@pytest.mark.parametrize("name", BEHIND)
def test_behind_the_balancer_everything_works(name):
    """The chain does what the wrapper alone does on gradients that NumPy has balanced."""
    chain = optax.chain(jaxmtl.normalize(num_tasks=T), BEHIND[name]())
    found, params, state = train(chain, gradients)
    alone = optax.with_extra_args_support(BEHIND[name]())
    expected, _, state_alone = train(alone, lambda p: normalised(gradients(p)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(found[-1] - found[0]) > 0.01
    if name == "schedule_free":
        evaluated = optax.contrib.schedule_free_eval_params(state[1], params)
        by_hand = optax.contrib.schedule_free_eval_params(state_alone, params)
        np.testing.assert_allclose(flat(evaluated), flat(by_hand), rtol=1e-4, atol=1e-5)
        assert np.linalg.norm(flat(evaluated) - flat(params)) > 0.01


def test_lookahead_behind_the_balancer():
    optimizer = optax.chain(jaxmtl.normalize(num_tasks=T), optax.lookahead(optax.sgd(0.1), 2, 0.5))
    params = optax.LookaheadParams.init_synced(PARAMS)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    fast = slow = np.zeros(9)
    for step in range(4):
        grads = as_tree(gradients(flat(params.fast)))
        updates, state = update(grads, state, params, losses=LOSSES)
        params = optax.apply_updates(params, updates)
        fast = fast - 0.1 * normalised(gradients(fast))
        if step % 2:
            fast = slow = slow + 0.5 * (fast - slow)
        np.testing.assert_allclose(flat(params.fast), fast, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(flat(params.slow), slow, rtol=1e-4, atol=1e-6)


def test_a_hyperparameter_of_the_balancer_follows_a_schedule():
    def curriculum(first):
        return jaxmtl.prioritise(jaxmtl.normalize(num_tasks=T), [first, 1.0, 1.0])

    priority = optax.linear_schedule(1.0, 4.0, 3)
    optimizer = optax.chain(optax.inject_hyperparams(curriculum)(first=priority), optax.sgd(0.1))
    found, _, state = train(optimizer, gradients, steps=4)
    p = np.zeros(9)
    for step in range(4):
        weights = np.array([1.0 + step, 1, 1]) / np.linalg.norm(gradients(p), axis=1)
        p = p - 0.1 * weights @ gradients(p)
        np.testing.assert_allclose(found[step], p, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(optax.tree.get(state, "task_weights"), weights, rtol=1e-4)


@pytest.mark.parametrize("labels", [{"w": "one", "b": "two"}, lambda p: {"w": "one", "b": "two"}])
def test_partition_around_balancers_balances_each_part_by_itself(labels):
    def part(rate):
        return optax.chain(jaxmtl.normalize(num_tasks=T), optax.sgd(rate))

    found, _, _ = train(optax.partition({"one": part(0.1), "two": part(0.2)}, labels), gradients, 3)
    p = np.zeros(9)
    for step in range(3):
        j = gradients(p)
        p = p - np.concatenate([0.1 * normalised(j[:, :6]), 0.2 * normalised(j[:, 6:])])
        np.testing.assert_allclose(found[step], p, rtol=1e-4, atol=1e-5)


def test_clipping_ahead_is_by_the_task_and_behind_by_the_whole():
    chain = optax.chain(
        jaxmtl.per_task(optax.clip_by_global_norm(1.0), T),
        jaxmtl.equal(num_tasks=T),
        optax.clip_by_global_norm(0.3),
        optax.sgd(0.1),
    )
    found, _, _ = train(chain, gradients)
    p = np.zeros(9)
    for step in range(STEPS):
        j = gradients(p)
        total = (j * np.minimum(1, 1 / np.linalg.norm(j, axis=1, keepdims=True))).mean(axis=0)
        p = p - 0.1 * total * min(1, 0.3 / np.linalg.norm(total))
        np.testing.assert_allclose(found[step], p, rtol=1e-4, atol=1e-6)


# Accumulation: once over the stacked gradients, or over what the balancer made of each micro-batch.


def test_stacked_gradients_accumulate_and_are_balanced_once():
    """optax.microbatch: the same as the full batch, weights and updates, to 1e-6."""
    x = RNG.normal(size=(8, T, 9)).astype(np.float32)
    full = jaxmtl.value_and_task_grads(losses_fn)
    micro = optax.microbatch(
        full, argnums=1, microbatch_size=2, accumulator=optax.microbatching.AccumulationType.MEAN
    )
    balancer = jaxmtl.mgda(num_tasks=T)

    @jax.jit
    def step(x):
        losses, grads = micro(PARAMS, x)
        return losses, grads, *balancer.update(grads, balancer.init(PARAMS), PARAMS, losses=losses)

    losses, grads, updates, state = step(x)
    all_losses, all_grads = jax.jit(full)(PARAMS, x)
    all_updates, all_state = jax.jit(balancer.update)(all_grads, balancer.init(PARAMS), PARAMS)
    j = SCALES[:, None] * (-CENTRES - x.mean(axis=0))
    np.testing.assert_allclose(flat(grads), j, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses, all_losses, rtol=1e-6)
    np.testing.assert_allclose(flat(grads), flat(all_grads), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(flat(updates), flat(all_updates), atol=1e-6)
    np.testing.assert_allclose(state.task_weights, all_state.task_weights, atol=1e-6)


def in_pieces(fun, **axes):
    mean = optax.microbatching.AccumulationType.MEAN
    return optax.microbatch(
        jaxmtl.value_and_task_grads(fun), argnums=1, microbatch_size=2, accumulator=mean, **axes
    )


def stacked_losses(params, x):
    """A batch of its own for each task, (T, B, 9), one program for all."""
    p = jnp.concatenate([params["w"].reshape(-1), params["b"]])
    return jnp.mean(jnp.sum(jnp.sin(x * p[None, None] + x), axis=-1), axis=1)


def named_losses(params, x):
    """The same, each loss written for itself."""
    return {f"task {i}": stacked_losses(params, x[i][None])[0] for i in range(4)}


X_TASKS = RNG.normal(size=(4, 6, 9)).astype(np.float32)
# The derivative of the mean of sin(x p + x) at p = 0.
J_TASKS = np.mean(X_TASKS * np.cos(X_TASKS, dtype=np.float64), axis=1)


@pytest.mark.parametrize("fun", [stacked_losses, named_losses])
def test_batches_with_a_task_axis_are_cut_along_the_next(fun):
    """Against the gradients of the whole batch in NumPy: axis 1 holds the examples."""
    losses, grads = jax.jit(in_pieces(fun, in_axes=1))(PARAMS, X_TASKS)
    np.testing.assert_allclose(flat(grads), J_TASKS, rtol=1e-4, atol=1e-6)
    expected = np.mean(np.sum(np.sin(X_TASKS, dtype=np.float64), axis=-1), axis=1)
    np.testing.assert_allclose(as_vector(losses), expected, rtol=1e-5, atol=1e-6)
    balancer = jaxmtl.mgda(num_tasks=4)
    updates, _ = jax.jit(balancer.update)(grads, balancer.init(PARAMS), losses=losses)
    assert relative_error(flat(updates), min_norm_weights(J_TASKS) @ J_TASKS) < 1e-3


def test_batches_cut_along_their_task_axis_are_refused_where_it_can_be_seen():
    """Pairs of tasks pass for micro-batches: two losses come where there are four."""
    losses, grads = jax.jit(in_pieces(stacked_losses))(PARAMS, X_TASKS)
    assert flat(grads).shape == (2, 9)
    balancer = jaxmtl.mgda(num_tasks=4)
    with pytest.raises(ValueError, match="built for 4 tasks, but received 2"):
        balancer.update(grads, balancer.init(PARAMS), losses=losses)
    by_name = jaxmtl.static({f"task {i}": 1.0 for i in range(4)})
    with pytest.raises(ValueError, match="built for 4 tasks, but received 2"):
        by_name.update(grads, by_name.init(PARAMS), losses=losses)


def test_where_the_losses_index_their_tasks_nothing_shows_that_they_were_cut():
    """Why the page on costs says in_axes=1: JAX takes the last task for an index beyond the end."""
    _, grads = jax.jit(in_pieces(named_losses))(PARAMS, X_TASKS)
    assert flat(grads).shape == (4, 9)
    assert relative_error(flat(grads), J_TASKS) > 0.1


def test_multi_steps_balances_each_micro_batch_and_averages():
    """Another thing than the full batch: the mean of the balanced gradients, then one Adam step."""
    x = RNG.normal(size=(2, 4, T, 9)).astype(np.float32)
    optimizer = optax.chain(
        jaxmtl.normalize(num_tasks=T),
        optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    )
    params, state = PARAMS, optimizer.init(PARAMS)
    step = jax.jit(jaxmtl.value_and_task_grads(losses_fn))
    means = []
    for micro in x:
        losses, grads = step(params, micro)
        updates, state = optimizer.update(grads, state, params, losses=losses)
        params = optax.apply_updates(params, updates)
        means.append(normalised(SCALES[:, None] * (-CENTRES - micro.mean(axis=0))))
    expected = -0.1 * Adam(1, 9)(np.mean(means, axis=0)[None])[0]
    np.testing.assert_allclose(flat(params), expected, rtol=1e-4)
    assert state[1].gradient_step == 1


# Half precision with loss scaling.


def half_losses(params, scale):
    """Forward and backward in float16, of float32 master weights; the losses are scaled."""
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params)
    p = jnp.concatenate([half["w"].reshape(-1), half["b"]])
    small = jnp.asarray(SCALES * 1e-7, jnp.float32)
    # The cotangents of p are float16, and 1e-8 of them is nothing there.
    errors = (p[None] - jnp.asarray(CENTRES, jnp.float16)).astype(jnp.float32)
    return scale * 0.5 * small * jnp.sum(errors**2, axis=-1)


def scaled_step(optimizer):
    @jax.jit
    def step(params, state, scale):
        losses, grads = jaxmtl.value_and_task_grads(half_losses)(params, scale)
        losses, grads = jax.tree.map(lambda leaf: leaf / scale, (losses, grads))
        updates, state = optimizer.update(grads, state, params, losses=losses)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("method", [jaxmtl.mgda, jaxmtl.normalize, jaxmtl.initial_loss])
def test_unscaled_before_the_balancer_loss_scaling_changes_nothing(method):
    """Whatever a method reads, and whatever its degree: the scale of the first line is gone."""
    optimizer = optax.chain(method(num_tasks=T), optax.sgd(1.0))
    centres = CENTRES.astype(np.float16).astype(np.float64)
    j = -1e-7 * SCALES[:, None] * centres
    state = optimizer.init(PARAMS)
    step = scaled_step(optimizer)
    params, state = step(PARAMS, state, 2.0**18)
    weights = np.asarray(state[0].task_weights, np.float64)
    assert relative_error(flat(params), -weights @ j) < 1e-3
    if method is jaxmtl.normalize:
        np.testing.assert_allclose(weights, 1 / np.linalg.norm(j, axis=1), rtol=2e-3)
    if method is jaxmtl.initial_loss:
        losses = 0.5e-7 * SCALES * np.sum(centres**2, axis=1)
        np.testing.assert_allclose(weights, 1 / losses, rtol=2e-3)
    unscaled, _ = step(PARAMS, optimizer.init(PARAMS), 1.0)
    assert relative_error(flat(unscaled), flat(params)) > 0.01


def test_what_the_scale_does_where_it_is_left_in():
    """Degree 1: the weights are the same, and the update has the scale; degree 0: it has not."""
    stack = as_tree(gradients(np.zeros(9)))
    scaled = jax.tree.map(lambda leaf: 1024 * leaf, stack)
    for method, degree in [(jaxmtl.mgda, 1), (jaxmtl.normalize, 0)]:
        balancer = method(num_tasks=T)
        update, state = jax.jit(balancer.update), balancer.init(PARAMS)
        (plain, one), (large, other) = update(stack, state), update(scaled, state)
        np.testing.assert_allclose(flat(large), 1024**degree * flat(plain), rtol=1e-4)
        expected = 1024.0 ** (degree - 1) * one.task_weights
        np.testing.assert_allclose(other.task_weights, expected, rtol=1e-4)


def test_an_overflow_skips_the_step_as_a_whole():
    adam = optax.apply_if_finite(optax.adam(0.1), 10)
    optimizer = optax.chain(jaxmtl.gradnorm(T), adam)
    step = scaled_step(optimizer)
    params, state = step(PARAMS, optimizer.init(PARAMS), 2.0**18)
    after, skipped = step(params, state, 2.0**60)
    for new, old in zip(
        jax.tree.leaves((after, skipped[0], skipped[1].inner_state)),
        jax.tree.leaves((params, state[0], state[1].inner_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(new, old)
    assert skipped[1].total_notfinite == 1
    moved, _ = step(after, skipped, 2.0**17)
    assert np.any(flat(moved) != flat(params))


# Save and continue.


def named(method, inner):
    balancer = jaxmtl.every(jaxmtl.smooth(method(), 0.5), 3)
    return optax.named_chain(("balance", balancer), ("optimizer", inner))


def continued(optimizer, params, state, steps):
    update, found = jax.jit(optimizer.update), []
    for step in steps:
        noise = 0.3 * np.random.default_rng(step).normal(size=(T, 9))
        grads = as_tree(gradients(flat(params)) + noise)
        updates, state = update(grads, state, params, losses=LOSSES / (1 + step))
        params = optax.apply_updates(params, updates)
        found.append(np.asarray(optax.tree.get(state, "task_weights")))
    return params, state, np.array(found)


RESUMED = {
    "gradnorm": lambda: jaxmtl.gradnorm(T),
    "pcgrad": lambda: jaxmtl.pcgrad(0, num_tasks=T),
}


def save_and_restore(tmp_path, state, like):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(tmp_path / "state", like)


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("stop", [3, 4])
def test_a_restored_run_continues_bit_for_bit(name, stop, tmp_path):
    """At a step that asks the method, and between two of them."""
    optimizer = named(RESUMED[name], optax.adam(0.05))
    params, state, _ = continued(optimizer, PARAMS, optimizer.init(PARAMS), range(stop))
    saved = save_and_restore(tmp_path, (params, state), (PARAMS, optimizer.init(PARAMS)))
    assert jax.tree.structure(saved[1]) == jax.tree.structure(state)
    expected, _, weights = continued(optimizer, params, state, range(stop, 8))
    found, _, again = continued(optimizer, *saved, range(stop, 8))
    np.testing.assert_array_equal(again, weights)
    np.testing.assert_array_equal(flat(found), flat(expected))
    assert np.any(weights[0] != weights[-1])


def test_the_balancer_goes_on_under_another_optimizer(tmp_path):
    """Its part of the state is carried over; the new optimizer begins afresh."""
    old = named(RESUMED["pcgrad"], optax.adam(0.05))
    params, state, _ = continued(old, PARAMS, old.init(PARAMS), range(4))
    saved = save_and_restore(tmp_path, (params, state), (PARAMS, old.init(PARAMS)))
    new = named(RESUMED["pcgrad"], optax.sgd(0.05, momentum=0.9))
    new_state = new.init(saved[0])
    new_state["balance"] = saved[1]["balance"]
    end, new_state, weights = continued(new, saved[0], new_state, range(4, 7))
    assert new_state["balance"].timing.finite_steps == 7
    assert jax.tree.structure(new_state) == jax.tree.structure(new.init(PARAMS))

    p, trace, balance = flat(params), np.zeros(9), state["balance"]
    update = jax.jit(jaxmtl.every(jaxmtl.smooth(RESUMED["pcgrad"](), 0.5), 3).update)
    for step in range(4, 7):
        j = gradients(p) + 0.3 * np.random.default_rng(step).normal(size=(T, 9))
        _, balance = update(as_tree(j), balance)
        np.testing.assert_allclose(weights[step - 4], balance.task_weights, rtol=1e-4)
        trace = np.asarray(balance.task_weights, np.float64) @ j + 0.9 * trace
        p = p - 0.05 * trace
    np.testing.assert_allclose(flat(end), p, rtol=1e-4, atol=1e-5)


# Where they cannot stand: what the user sees. Users have rank promotion allowed.

INSIDE = optax.chain(jaxmtl.normalize(num_tasks=T), optax.adam(0.1))
CURE = re.escape("around what follows the balancer, such as optax.chain(balancer, optax.MultiSteps")


@pytest.mark.parametrize(
    ("wrapper", "error", "message"),
    [
        # The balancer sees what the wrapper makes of the stack, and answers with the cure.
        (optax.MultiSteps(INSIDE, 2), ValueError, "never stacked: .*" + CURE),
        (optax.flatten(INSIDE), ValueError, "its parameter has shape .*" + CURE),
        (optax.chain(INSIDE, jaxmtl.equal()), ValueError, "never stacked: .*" + CURE),
        # The balancer is given what it should be, and the wrapper fails afterwards.
        (optax.apply_if_finite(INSIDE, 5), TypeError, "(?s)cond branches .*_conditionality.py"),
        (optax.lookahead(INSIDE, 2, 0.5), TypeError, "unexpected keyword argument 'losses'"),
        (optax.contrib.mechanize(INSIDE), TypeError, "dot_general requires contracting dimensions"),
    ],
    ids=["MultiSteps", "flatten", "second balancer", "apply_if_finite", "lookahead", "mechanize"],
)
@pytest.mark.parametrize("jitted", [True, False])
def test_around_the_balancer_these_fail(wrapper, error, message, jitted):
    update = jax.jit(wrapper.update) if jitted else wrapper.update
    with jax.numpy_rank_promotion("allow"), pytest.raises(error, match=message):
        update(as_tree(gradients(np.zeros(9))), wrapper.init(PARAMS), PARAMS, losses=LOSSES)


def test_a_mask_around_the_balancer_leaves_the_other_leaves_stacked():
    """Nobody notices: not optax, nor the balancer, which cannot see the leaves left out."""
    optimizer = optax.masked(INSIDE, {"w": True, "b": False})
    grads = as_tree(gradients(np.zeros(9)))
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(PARAMS), PARAMS)
    assert updates["w"].shape == (2, 3)
    np.testing.assert_array_equal(updates["b"], grads["b"])
    with pytest.raises(ValueError, match="broadcast"):
        optax.apply_updates(PARAMS, updates)
    with jax.numpy_rank_promotion("allow"):
        assert optax.apply_updates(PARAMS, updates)["b"].shape == (T, 3)


def test_leaves_frozen_behind_the_balancer_still_count_in_the_gramian():
    """The leaves that move may then go against a task; on_shared leaves the frozen ones out."""
    j = np.zeros((T, 9))
    j[:, :2] = [[1.0, 0.2], [-2.0, 1.0], [0.5, 1.0]]  # of "w", which is trained
    j[:, 6:] = np.diag([8.0, 0.5, 6.0])  # of "b", which is frozen
    freeze = optax.partition(
        {"train": optax.sgd(1.0), "freeze": optax.set_to_zero()}, {"w": "train", "b": "freeze"}
    )

    def slopes(balancer):
        optimizer = optax.chain(balancer, freeze)
        updates, _ = jax.jit(optimizer.update)(as_tree(j), optimizer.init(PARAMS), PARAMS)
        np.testing.assert_array_equal(updates["b"], np.zeros(3))
        return j @ -flat(updates)  # how fast each loss falls, to first order

    trained = j[:, :6]
    for balancer, weights in [
        (jaxmtl.mgda(), min_norm_weights(j)),
        (jaxmtl.on_shared(jaxmtl.mgda(), lambda path: path != "b"), min_norm_weights(trained)),
    ]:
        expected = trained @ (weights @ trained)
        np.testing.assert_allclose(slopes(balancer), expected, rtol=1e-4, atol=1e-5)
    # The figures of the page on known issues.
    np.testing.assert_allclose(slopes(jaxmtl.mgda()).min(), -1.29, atol=0.005)
    np.testing.assert_allclose(slopes(balancer).min(), 0.20, atol=0.005)


def test_ahead_of_the_balancer_optimizers_see_one_stack():
    """Clipping and moments of the whole stack, and a state that changes its shape."""
    stack = as_tree(gradients(np.zeros(9)))
    clip = optax.chain(optax.clip_by_global_norm(1.0), jaxmtl.equal(num_tasks=T))
    updates, _ = clip.update(stack, clip.init(PARAMS), PARAMS)
    j = gradients(np.zeros(9))
    np.testing.assert_allclose(flat(updates), j.mean(axis=0) / np.linalg.norm(j), rtol=1e-4)
    adam = optax.chain(optax.scale_by_adam(), jaxmtl.equal(num_tasks=T))

    def step(state, _):
        return adam.update(stack, state, PARAMS)[1], None

    with jax.numpy_rank_promotion("allow"), pytest.raises(TypeError, match="scan body function"):
        jax.lax.scan(step, adam.init(PARAMS), length=2)
