"""One battery over every method: a new one gets all laws by standing in the table."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import jaxmtl
from jaxmtl.methods import METHODS
from tests import references
from tests.references import as_vector

pytestmark = pytest.mark.usefixtures("quick_compiler")

NAMES = list(METHODS)


def each(names, soon=None):
    """All tests of a method in one worker, which compiles its update once.

    Of what is compiled for each method once more, those not in ``soon`` run in the second stage.
    """
    later = [] if soon is None else [name for name in names if name not in soon]
    marks = {name: [pytest.mark.slow] if name in later else [] for name in names}
    params = [
        pytest.param(name, marks=[pytest.mark.xdist_group(name), *marks[name]]) for name in names
    ]
    return pytest.mark.parametrize("name", params)


every_method = each(NAMES)
# One of each kind of state and route, where the code is the same for all methods: every update that
# is compiled once more takes a second or two.
SOME = ["static", "uncertainty", "rlw", "gradnorm", "pcgrad", "mgda", "upgrad", "moco", "graddrop"]
some_methods = each(SOME)
some_methods_soon = each(NAMES, soon=SOME)
PARAMS = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(4)}
LOSSES = (1.5, 0.5, 2.5, 1.0, 3.0, 0.7, 1.2, 0.9)
# What optax.inject_hyperparams must leave alone, besides the numbers of this and that.
WHOLE = ("max_iterations", "iterations", "window", "key", "start", "adversary", "main")

MAIN = ("metabalance", "auxiliary_cosine", "auto_lambda", "pcd")


def make(name, num_tasks=3):
    return METHODS[name].make(num_tasks, jax.random.key(7))


def as_tree(j, dtype=jnp.float32):
    """Split (..., T, 10) gradients into the leaves of PARAMS, without compiling anything."""
    j = np.asarray(j, dtype)
    return {
        "a": jnp.asarray(j[..., :6].reshape(*j.shape[:-1], 2, 3)),
        "b": jnp.asarray(j[..., 6:]),
    }


def needed(name, grads):
    """The further arguments of a method: batches without noise, kernels of equal traces."""
    num_tasks = len(jax.tree.leaves(grads)[0])
    values = {"independent_grads": (grads, grads), "ntk_traces": jnp.ones(num_tasks)}
    return {argument: values[argument] for argument in METHODS[name].needs}


@functools.cache
def jitted(name, num_tasks):
    balancer = make(name, num_tasks)

    @jax.jit
    def update(grads, state, losses, active):
        extra = needed(name, grads)
        return balancer.update(grads, state, losses=losses, active=active, unexpected=1, **extra)

    return balancer, update


def first_update(name, j, losses=None, active=None):
    j = np.asarray(j)
    balancer, update = jitted(name, len(j))
    losses = np.asarray(LOSSES[: len(j)] if losses is None else losses, np.float32)
    active = np.ones(len(j), bool) if active is None else np.asarray(active)
    return update(as_tree(j), balancer.init(PARAMS), losses, active)


def run(name, stacks, losses=None):
    """The updates and the weights of one step after the other."""
    stacks = np.asarray(stacks)
    balancer, update = jitted(name, stacks.shape[1])
    if losses is None:
        losses = np.random.default_rng(0).exponential(size=stacks.shape[:2]) + 0.2
    state, updates, weights = balancer.init(PARAMS), [], []
    for j, now in zip(stacks, np.asarray(losses, np.float32), strict=True):
        d, state = update(as_tree(j), state, now, np.ones(len(j), bool))
        updates.append(as_vector(d))
        weights.append(np.asarray(state.task_weights, np.float64))
    return np.array(updates), np.array(weights)


def draws(first, num_tasks, spread=0.0, kind="conflicting", steps=2):
    """Other gradients at each step."""
    return np.stack(
        [references.gradients(first + s, num_tasks, 10, spread, kind) for s in range(steps)]
    )


def assert_same_state(left, right):
    chex.assert_trees_all_equal(*(jax.tree.map(_plain, state) for state in (left, right)))


def _plain(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


STACKS = {
    "zero": np.zeros((3, 10)),
    "one zero": references.gradients(0, 3, 10) * np.array([[1.0], [0.0], [2.0]]),
    "identical": np.ones((3, 10)),
    "opposite": np.array([[1.0], [-1.0], [1.0]]) * np.ones(10),
    "deficient": references.gradients(2, 5, 10, kind="deficient"),
    "tiny": 1e-12 * references.gradients(3, 3, 10, spread=3),
    "huge": 1e12 * references.gradients(3, 3, 10, spread=3),
}


@every_method
@pytest.mark.parametrize("stack", STACKS)
def test_degenerate_stacks_give_finite_updates(name, stack):
    updates, state = first_update(name, STACKS[stack])
    chex.assert_tree_all_finite((updates, state.task_weights))
    if stack == "zero":
        assert np.all(as_vector(updates) == 0)


@some_methods_soon
def test_a_single_task_gives_a_finite_update(name):
    updates, state = first_update(name, references.gradients(1, 1, 10))
    chex.assert_tree_all_finite((updates, state.task_weights))


@every_method
def test_zero_and_negative_losses_never_ascend_a_task(name):
    j = np.eye(3, 10)
    updates, _ = first_update(name, j, losses=[0.0, -2.0, 1.0])
    chex.assert_tree_all_finite(updates)
    if METHODS[name].non_negative:
        assert np.all(j @ as_vector(updates) >= 0)


# Claims, and that a method that claims less does so for a reason: over several steps, since what a
# method keeps from the first one may break at the second what the first seemed to show.


@every_method
def test_weights_are_negative_only_where_the_table_says_so(name):
    weights = [
        run(name, draws(100 * seed, 3, 2.0, kind))[1]
        for seed in range(5)
        for kind in ("conflicting", "aligned")
    ]
    assert (np.min(weights) >= 0) == METHODS[name].non_negative


@every_method
def test_weights_combine_the_gradients_of_the_step(name):
    stacks = draws(4, 3)
    updates, weights = run(name, stacks)
    errors = [
        references.relative_error(d, w @ j)
        for d, w, j in zip(updates, weights, stacks, strict=True)
    ]
    assert max(errors) < 1e-6 if METHODS[name].combines else max(errors) > 1e-2


@every_method
@pytest.mark.parametrize("exponent", [-12, -6, -2, 3, 12])
def test_degree(name, exponent):
    j = references.gradients(5, 3, 10, spread=1)
    base, _ = first_update(name, j)
    scaled, _ = first_update(name, j * 10.0**exponent)
    factor = 10.0 ** (exponent * METHODS[name].degree)
    assert references.relative_error(as_vector(scaled), factor * as_vector(base)) < 1e-5


@some_methods_soon
def test_length_of_a_single_gradient(name):
    assert_length_on_identical_gradients(name, 1)


@every_method
@pytest.mark.parametrize("num_tasks", [3, 5])
def test_length_on_identical_gradients(name, num_tasks):
    assert_length_on_identical_gradients(name, num_tasks)


def assert_length_on_identical_gradients(name, num_tasks):
    g = references.gradients(6, 1, 10)
    updates, _ = first_update(name, np.repeat(g, num_tasks, axis=0), losses=[1.0] * num_tasks)
    expected = METHODS[name].identical(num_tasks) * g[0]
    assert references.relative_error(as_vector(updates), expected) < 1e-5


# What the table's instances do though their methods do not promise it: of a single largest loss; of
# a single reconstruction loss, until its ratio is clipped; of gradients in conflict.
NOT_PROMISED = {
    ("auxiliary_cosine", "direction"),
    ("tchebycheff", "direction"),
    ("vqgan_adaptive", "direction"),
    ("vqgan_adaptive", "linear"),
}


@every_method
def test_scaling_single_gradients(name):
    errors = {"linear": 0.0, "same": 0.0, "direction": 0.0}
    for seed in range(2):
        stacks = draws(100 * seed, 3)
        scale = 10.0 ** np.random.default_rng(seed).uniform(-2, 2, size=3)

        def scaled(factors, stacks=stacks):
            return run(name, np.asarray(factors)[:, None] * stacks)[0][-1]

        plain, together = scaled(np.ones(3)), scaled(scale)
        # Of a function linear in positive factors, the value at their sum is the sum of values.
        tasks = np.diag(scale) + 1e-3
        turned = plain / np.linalg.norm(plain) * np.linalg.norm(together)
        for claim, found, expected in [
            ("linear", scaled(tasks.sum(axis=0)), sum(scaled(row) for row in tasks)),
            ("same", together, plain),
            ("direction", together, turned),
        ]:
            errors[claim] = max(errors[claim], references.relative_error(found, expected))
    claims = METHODS[name].rows
    for claim, error in errors.items():
        if claim in claims or (claim == "direction" and claims == "same"):
            assert error < 1e-4, claim
        elif (name, claim) not in NOT_PROMISED:
            assert error > 1e-3, f"{claim} holds, and might be claimed"


@every_method
def test_methods_conflict_with_a_task_only_where_they_may(name):
    promised, worst = METHODS[name].descends_all, np.inf
    for seed in range(10 if promised else 3):
        for spread in (0.0, 3.0):
            stacks = draws(100 * seed, 5, spread)
            for j, d in zip(stacks, run(name, stacks)[0], strict=True):
                cosines = j @ d / np.linalg.norm(j, axis=1) / np.linalg.norm(d)
                worst = min(worst, cosines.min())
    assert worst >= -1e-5 if promised else worst < -1e-2


@every_method
def test_permuting_the_tasks_changes_nothing_where_no_order_is_drawn_or_given(name):
    stacks, order = draws(7, 5, 1.0), np.array([3, 0, 4, 1, 2])
    losses = np.stack([LOSSES[:5], LOSSES[2:7]])
    straight, _ = run(name, stacks, losses)
    permuted, _ = run(name, stacks[:, order], losses[:, order])
    errors = [references.relative_error(p, s) for p, s in zip(permuted, straight, strict=True)]
    assert max(errors) < 1e-5 if METHODS[name].any_order else max(errors) > 1e-2


@some_methods_soon
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_updates_keep_their_type_and_the_solve_does_not_lose_it(name, dtype):
    balancer = make(name)
    if dtype == jnp.float16 and balancer.preparation is None and name not in SOME:
        pytest.skip("nothing but the Gramian and the combination, the same for all, sees the type")
    j = references.gradients(8, 3, 10, kind="conflicting")
    grads = as_tree(j, dtype)
    exact = np.asarray(jnp.concatenate([grads["a"].reshape(3, -1), grads["b"]], 1), np.float64)
    state = balancer.init(jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS))
    losses = jnp.asarray(LOSSES[:3], dtype)
    updates, new_state = jax.jit(balancer.update)(
        grads, state, losses=losses, **needed(name, grads)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    assert new_state.task_weights.dtype == jnp.float32
    # The weights are those of the gradients as rounded, to float32 accuracy.
    reference, _ = first_update(name, exact, losses=np.asarray(losses, np.float32))
    eps = float(jnp.finfo(dtype).eps)
    assert references.relative_error(as_vector(updates), as_vector(reference)) < max(2 * eps, 1e-6)


@some_methods_soon
def test_float64_gradients_are_solved_in_float64(name):
    j = references.gradients(9, 3, 10, kind="conflicting")
    single, _ = first_update(name, j)
    with jax.enable_x64(True):
        balancer = METHODS[name].make(3, jax.random.key(7))
        params = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(4)}
        state = balancer.init(params)
        assert state.task_weights.dtype == jnp.float64
        grads = as_tree(j, jnp.float64)
        update = functools.partial(balancer.update, losses=np.array(LOSSES[:3]))
        updates, new_state = jax.jit(update)(grads, state, **needed(name, grads))
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float64")}
        chex.assert_trees_all_equal_dtypes(state, new_state)
        double = as_vector(updates)
        weights = np.asarray(new_state.task_weights)
    if METHODS[name].combines:
        assert references.relative_error(double, weights @ j) < 1e-14
    assert references.relative_error(as_vector(single), double) < 1e-5


@every_method
def test_the_second_call_does_not_compile(name):
    balancer, update = jitted(name, 3)
    grads, losses = as_tree(references.gradients(12, 3, 10)), np.array(LOSSES[:3], np.float32)
    start = balancer.init(PARAMS)
    _, state = update(grads, start, losses, np.ones(3, bool))
    compiled = update._cache_size()
    update(grads, state, losses, np.ones(3, bool))
    assert update._cache_size() == compiled
    # What was compiled before, for another test, does not count: weak types are types as well.
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, start)


@some_methods_soon
def test_scan_equals_a_loop(name):
    balancer, update = jitted(name, 3)
    stacks = np.stack([references.gradients(s, 3, 10, kind="conflicting") for s in range(5)])
    losses = np.abs(references.gradients(10, 5, 3)).astype(np.float32) + 0.5
    active = np.ones(3, bool)
    start = balancer.init(PARAMS)
    tree = as_tree(stacks)

    def step(state, inputs):
        updates, state = update(*inputs[:1], state, inputs[1], active)
        return state, (updates, state.task_weights)

    final, (updates, weights) = jax.jit(lambda s: jax.lax.scan(step, s, (tree, losses)))(start)
    assert weights.shape == (5, 3)
    chex.assert_trees_all_equal_shapes_and_dtypes(final, start)
    state = start
    for t in range(5):
        now = jax.tree.map(lambda leaf, t=t: leaf[t], tree)
        expected, state = update(now, state, losses[t], active)
        mine = jax.tree.map(lambda leaf, t=t: leaf[t], updates)
        assert references.relative_error(as_vector(mine), as_vector(expected)) < 1e-5


@every_method
def test_without_num_tasks_the_state_is_just_as_stable(name):
    makers = {
        "equal": jaxmtl.equal,
        "real_time_loss": jaxmtl.real_time_loss,
        "normalize": jaxmtl.normalize,
        "pcgrad": lambda: jaxmtl.pcgrad(0),
        "mgda": jaxmtl.mgda,
    }
    if name not in makers:
        assert jaxmtl.Balancer is type(make(name))
        assert make(name).weighting.num_tasks == 3
        return
    balancer = makers[name]()
    state = balancer.init(PARAMS)
    grads = as_tree(references.gradients(11, 3, 10))
    _, new_state = balancer.update(grads, state, losses=np.array(LOSSES[:3], np.float32))
    assert new_state.task_weights is None
    chex.assert_trees_all_equal_shapes_and_dtypes(state, new_state)


@some_methods_soon
def test_vmap_over_seeds(name):
    _, update = jitted(name, 3)
    stacks = np.stack([references.gradients(s, 3, 10, kind="conflicting") for s in range(4)])
    losses, active = np.array(LOSSES[:3], np.float32), np.ones(3, bool)
    keys = jax.random.split(jax.random.key(0), 4)

    def one(key, grads):
        fresh = METHODS[name].make(3, key)
        return fresh.update(grads, fresh.init(PARAMS), losses=losses, **needed(name, grads))[0]

    together = jax.jit(jax.vmap(one))(keys, as_tree(stacks))
    for seed in range(4):
        state = METHODS[name].make(3, keys[seed]).init(PARAMS)
        alone, _ = update(as_tree(stacks[seed]), state, losses, active)
        mine = jax.tree.map(lambda leaf, s=seed: leaf[s], together)
        assert references.relative_error(as_vector(mine), as_vector(alone)) < 1e-5


@every_method
def test_state_is_stable_through_cond_and_scan(name):
    balancer, update = jitted(name, 3)
    state = balancer.init(PARAMS)
    grads, losses = as_tree(references.gradients(12, 3, 10)), np.array(LOSSES[:3], np.float32)

    def maybe(go, state):
        def taken(state):
            return update(grads, state, losses, np.ones(3, bool))[1]

        return jax.lax.cond(go, taken, lambda state: state, state)

    def twice(state):
        return jax.lax.scan(lambda state, go: (maybe(go, state), None), state, np.ones(2, bool))[0]

    # What goes in and out has to agree when it is traced; what is computed is tested elsewhere.
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(maybe, True, state), state)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(twice, state), state)


@every_method
@pytest.mark.parametrize("broken", ["gradient nan", "gradient inf", "loss nan", "loss inf"])
def test_a_non_finite_step_is_visible_and_leaves_the_state(name, broken):
    j, losses = references.gradients(13, 3, 10), np.array(LOSSES[:3], np.float32)
    balancer, update = jitted(name, 3)
    _, state = update(as_tree(j), balancer.init(PARAMS), losses, np.ones(3, bool))
    value = np.nan if broken.endswith("nan") else np.inf
    if broken.startswith("gradient"):
        j[1, 4] = value
    else:
        losses = np.array([1.0, value, 2.0], np.float32)
    updates, new_state = update(as_tree(j), state, losses, np.ones(3, bool))
    assert not np.all(np.isfinite(as_vector(updates)))
    assert_same_state(new_state, state)


@every_method
def test_a_donated_state_takes_nothing_of_the_balancer_with_it(name):
    balancer, update = jitted(name, 3)
    grads, losses = as_tree(references.gradients(13, 3, 10)), jnp.array(LOSSES[:3])
    donate = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf, state), donate_argnums=0)
    first, _ = update(grads, donate(balancer.init(PARAMS)), losses, np.ones(3, bool))
    second, _ = update(grads, donate(balancer.init(PARAMS)), losses, np.ones(3, bool))
    chex.assert_trees_all_equal(first, second)


@some_methods_soon
def test_debug_nans_finds_nothing_in_eager_mode(name):
    balancer, losses = make(name), jnp.array(LOSSES[:3])
    with jax.debug_nans(True):
        for stack in (references.gradients(13, 3, 10), np.zeros((3, 10))):
            grads = as_tree(stack)
            balancer.update(grads, balancer.init(PARAMS), losses=losses, **needed(name, grads))


@some_methods
def test_apply_if_finite_skips_the_broken_step_whole(name):
    optimizer = optax.chain(make(name), optax.apply_if_finite(optax.adam(0.1), 5))
    j, losses = references.gradients(14, 3, 10), np.array(LOSSES[:3], np.float32)
    state = optimizer.init(PARAMS)
    extra = needed(name, as_tree(j))
    update = jax.jit(functools.partial(optimizer.update, losses=losses, **extra))
    _, state = update(as_tree(j), state, PARAMS)
    j[0, 0] = np.nan
    updates, new_state = update(as_tree(j), state, PARAMS)
    assert np.all(as_vector(updates) == 0)
    assert_same_state(new_state[0], state[0])


@every_method
def test_absent_tasks_are_as_if_they_were_not_there(name):
    if not METHODS[name].any_order:
        pytest.skip("what is drawn for three and for two tasks differs")
    j, losses = references.gradients(15, 5, 10, kind="conflicting"), np.array(LOSSES[:5])
    present = np.array([True, False, True, False, True])
    reduced, _ = first_update(name, j[present], losses[present])
    j[~present], losses[~present] = np.nan, np.nan
    masked, state = first_update(name, j, losses, present)
    assert references.relative_error(as_vector(masked), as_vector(reduced)) < 1e-5
    assert np.all(state.task_weights[~present] == 0)


def test_pcgrad_with_one_of_three_absent_is_pcgrad_of_two():
    j = references.gradients(15, 3, 10, kind="conflicting")
    j[2] -= 2 * j[0]
    reduced, _ = first_update("pcgrad", j[[0, 2]])
    j[1] = np.nan
    masked, _ = first_update("pcgrad", j, active=[True, False, True])
    assert references.relative_error(as_vector(masked), as_vector(reduced)) < 1e-6


@every_method
def test_an_absent_task_moves_nothing_of_its_own(name):
    balancer, update = jitted(name, 3)
    j, losses = references.gradients(16, 3, 10), np.array(LOSSES[:3], np.float32)
    _, state = update(as_tree(j), balancer.init(PARAMS), losses, np.ones(3, bool))
    _, absent = update(as_tree(j), state, 7 * losses, np.array([True, False, True]))
    for new, old in zip(_kept(absent), _kept(state), strict=True):
        np.testing.assert_array_equal(new[1], old[1])
        if old.shape == (3, 3):
            np.testing.assert_array_equal(new[:, 1], old[:, 1])


def _kept(state):
    """What a balancer keeps of each task."""
    leaves = jax.tree.leaves((state.method, state.preparation))
    return [leaf for leaf in leaves if leaf.shape[:1] == (3,)]


@every_method
def test_no_task_present_gives_zero_and_keeps_the_averages(name):
    balancer, update = jitted(name, 3)
    j, losses = references.gradients(17, 3, 10), np.array(LOSSES[:3], np.float32)
    _, state = update(as_tree(j), balancer.init(PARAMS), losses, np.ones(3, bool))
    updates, none = update(as_tree(j * np.nan), state, losses * np.nan, np.zeros(3, bool))
    assert np.all(as_vector(updates) == 0)
    for new, old in zip(_kept(none), _kept(state), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.fixture(scope="module")
def checkpointer():
    with ocp.StandardCheckpointer() as checkpointer:
        yield checkpointer


@every_method
def test_a_saved_state_continues_bit_for_bit(name, tmp_path, checkpointer):
    # What Orbax restores is bound to its device, for which the update would be compiled once more.
    assert_continues(
        name, tmp_path, checkpointer, lambda restored: jax.tree.map(np.asarray, restored)
    )


@some_methods_soon
def test_a_saved_state_bound_to_its_device_continues_bit_for_bit(name, tmp_path, checkpointer):
    assert_continues(name, tmp_path, checkpointer, lambda restored: restored)


def assert_continues(name, tmp_path, checkpointer, placed):
    balancer, update = jitted(name, 3)
    stacks = [as_tree(references.gradients(seed, 3, 10, kind="conflicting")) for seed in range(4)]
    losses, active = np.array(LOSSES[:3], np.float32), np.ones(3, bool)
    _, state = update(stacks[0], balancer.init(PARAMS), losses, active)
    _, state = update(stacks[1], state, 0.7 * losses, active)
    checkpointer.save(tmp_path / "state", state)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(tmp_path / "state", balancer.init(PARAMS))
    assert_same_state(restored, state)
    restored = placed(restored)
    for stack in stacks[2:]:
        updates, state = update(stack, state, 0.5 * losses, active)
        again, restored = update(stack, restored, 0.5 * losses, active)
        chex.assert_trees_all_equal(again, updates)
    assert_same_state(restored, state)


def injected(name):
    """The transformation with its hyperparameters in the state, plainly, and arguments for both."""
    grads, losses = as_tree(references.gradients(18, 3, 10)), np.array(LOSSES[:3], np.float32)
    arguments = {
        "static": {"weights": [1.0, 2.0, 3.0]},
        "prior_loss": {"values": [1.0, 2.0, 3.0]},
        "residual_attention": {"num_points": 3},
        "lagrangian": {"bounds": [None, 1.0, 2.0], "form": "pi"},
        "pcgrad": {"key": 3},
        "rlw": {"key": 3},
        "dwa": {"num_tasks": 3, "window": 2},
        "fairgrad": {"alpha": 2.0},
        "graddrop": {"key": 3},
        "gradvac": {"num_tasks": 3, "key": 3},
        "relobralo": {"num_tasks": 3, "key": 3},
        "krum": {"num_byzantine": 0},
        "trimmed_mean": {"num_trimmed": 1},
        "vqgan_adaptive": {"adversary": (False, True, True)},
        **{method: {"num_tasks": 3, "main": 0} for method in MAIN},
    }.get(name, {"num_tasks": 3})
    factory, extra = getattr(jaxmtl, name), needed(name, grads)
    static = tuple(
        argument
        for argument in _parameters(factory)
        if argument.startswith("num_") or argument in WHOLE
    )
    injected = optax.inject_hyperparams(factory, static_args=static)(**arguments)
    return injected, factory(**arguments), grads, {"losses": losses, **extra}


@every_method
def test_inject_hyperparams(name):
    optimizer, _, grads, extra = injected(name)
    state = optimizer.init(PARAMS)
    # Traced hyperparameters are refused when they are traced, or not at all.
    update = functools.partial(optimizer.update, **extra)
    updates, new_state = jax.eval_shape(update, grads, state, PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(new_state, state)


@each(("fairgrad", "gradnorm", "cagrad", "stch", "moco", "vqgan_adaptive"), soon=SOME)
def test_injected_hyperparameters_give_the_same_update(name):
    *both, grads, extra = injected(name)
    updates, expected = (
        as_vector(jax.jit(functools.partial(o.update, **extra))(grads, o.init(PARAMS), PARAMS)[0])
        for o in both
    )
    assert references.relative_error(updates, expected) < 1e-6


def _parameters(factory):
    return inspect.signature(factory).parameters


@each(n for n in NAMES if not make(n).weighting.reads & {"gramian"} or n in SOME)
def test_the_cheap_route_is_the_same(name):
    balancer = make(name)
    x = jnp.asarray(references.gradients(19, 4, 10)[:, :5], jnp.float32)

    def losses_fn(params, shift):
        h = jnp.tanh(params["w"] @ x.T) + params["b"][:, None]
        return {
            "a": jnp.mean((h - shift) ** 2),
            "b": 3.0 + jnp.sum(jnp.sin(h[0])),
            "c": 0.1 + jnp.mean(jnp.exp(-h)),
        }

    params = {"w": jnp.ones((2, 5)), "b": jnp.array([0.1, -0.3])}
    state = balancer.init(params)
    cheap = jaxmtl.value_and_balanced_grad(losses_fn, balancer)

    @jax.jit
    def both(state, params, shift):
        losses, grads = jaxmtl.value_and_task_grads(losses_fn)(params, shift)
        extra = needed(name, grads)
        stacked = losses, *balancer.update(grads, state, params, losses=losses, **extra)
        return stacked, cheap(state, params, shift, extra=extra)

    for shift in (0.5, -0.2):
        (losses, expected, expected_state), (value, grad, new_state) = both(state, params, shift)
        chex.assert_trees_all_close(value, losses, rtol=1e-6)
        assert references.relative_error(as_vector(grad), as_vector(expected)) < 1e-5
        chex.assert_trees_all_close(new_state.task_weights, expected_state.task_weights, rtol=1e-4)
        state = new_state
    params = {"w": jnp.full((2, 5), jnp.nan), "b": jnp.array([0.1, -0.3])}
    _, (_, grad, new_state) = both(state, params, 0.1)
    assert not np.all(np.isfinite(as_vector(grad)))
    assert_same_state(new_state, state)


@every_method
def test_wrong_number_of_tasks_is_refused(name):
    balancer = make(name)
    grads = as_tree(np.ones((2, 10)))
    extra = needed(name, grads)
    with pytest.raises(ValueError, match="built for 3 tasks, but received 2"):
        balancer.update(grads, balancer.init(PARAMS), losses=np.ones(2), **extra)


@every_method
def test_missing_or_misfit_losses_are_refused(name):
    balancer = make(name)
    grads, state = as_tree(np.ones((3, 10))), balancer.init(PARAMS)
    extra = needed(name, grads)
    with pytest.raises(ValueError, match="losses holds 2 values, but there are 3 tasks"):
        balancer.update(grads, state, losses=np.ones(2), **extra)
    if "losses" in balancer.weighting.reads:
        with pytest.raises(ValueError, match="reads the losses, but the argument losses is"):
            balancer.update(grads, state, **extra)
    for argument in METHODS[name].needs:
        with pytest.raises(ValueError, match=argument):
            balancer.update(grads, state, losses=np.ones(3))


def test_the_table_holds_every_exported_method():
    makers = {
        name
        for name in jaxmtl.__all__
        if getattr(getattr(jaxmtl, name), "__annotations__", {}).get("return") is jaxmtl.Balancer
        and not {"balancer", "weighting"} & set(_parameters(getattr(jaxmtl, name)))
    }
    assert makers == set(METHODS)
