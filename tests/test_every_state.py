"""The states of every method: saved by every tool, mapped by optax, refused where they do not fit.

Nothing is compiled here but the parts of a state: what a method computes is tested elsewhere.
"""

import functools
import io
import itertools

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from jaxmtl.backward._programs import operations
from jaxmtl.gradients._solved import SolvedState
from jaxmtl.methods import METHODS
from tests.test_every_method import (
    LOSSES,
    NAMES,
    PARAMS,
    as_tree,
    each,
    every_method,
    make,
    needed,
)

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEYED = [name for name in NAMES if "key_data" in str(make(name).init(PARAMS))]


def paths(tree):
    return [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(tree)]


@every_method
def test_flax_and_numpy_store_it_to_the_last_bit(name):
    optimizer = optax.chain(make(name), optax.adam(0.1))
    state = jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), optimizer.init(PARAMS))
    empty = optimizer.init(PARAMS)
    restored = flax.serialization.from_bytes(empty, flax.serialization.to_bytes(state))
    file = io.BytesIO()
    np.savez(file, *jax.tree.leaves(state))
    file.seek(0)
    leaves = np.load(file, allow_pickle=False)
    again = jax.tree.unflatten(jax.tree.structure(empty), [leaves[key] for key in leaves.files])
    for other in (restored, again):
        assert jax.tree.structure(other) == jax.tree.structure(state)
        for new, old in zip(jax.tree.leaves(other), jax.tree.leaves(state), strict=True):
            np.testing.assert_array_equal(new, old, strict=True)


def test_the_methods_that_draw_keep_keys():
    assert KEYED == ["rlw", "relobralo", "pcgrad", "gradvac", "graddrop"]


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("name", KEYED)
def test_random_keys_of_every_implementation(name, implementation):
    typed = jax.random.key(7, impl=implementation)
    with jax.default_prng_impl(implementation):
        raw = jax.random.PRNGKey(7)
        states = [METHODS[name].make(3, key).init(PARAMS) for key in (typed, raw, 7, np.int64(7))]
        balancer = METHODS[name].make(3, raw)
        [place] = [n for n, path in enumerate(paths(states[0])) if path.endswith("key_data")]
        for state in states:
            np.testing.assert_array_equal(jax.tree.leaves(state)[place], raw, strict=True)
        if name in ("relobralo", "gradvac"):
            return  # They draw as the others do, and take longer to compile.
        grads, losses = as_tree(np.eye(3, 10)), jnp.asarray(LOSSES[:3])
        _, state = balancer.update(grads, states[0], losses=losses)
    expected = jax.random.key_data(jax.random.split(typed)[0])
    np.testing.assert_array_equal(jax.tree.leaves(state)[place], expected)


def test_raw_keys_of_another_implementation_are_refused():
    with pytest.raises(ValueError, match=r"wrapped, as in jax\.random\.wrap_key_data"):
        jaxmtl.rlw(np.zeros(4, np.uint32))


@every_method
def test_optax_maps_what_is_like_the_parameters(name):
    optimizer = optax.chain(make(name), optax.adam(0.1))
    state = optimizer.init(PARAMS)
    mapped = optax.tree.map_params(optimizer, lambda leaf: leaf + 1, state)
    changed = [
        path
        for path, new, old in zip(paths(state), *map(jax.tree.leaves, (mapped, state)), strict=True)
        if np.any(new != old)
    ]
    expected = [p for p in paths(state) if ".mu[" in p or ".nu[" in p or ".preparation" in p]
    assert changed == [p for p in expected if not p.endswith((".seen", ".key_data"))]


@every_method
def test_the_usual_queries_find_the_optimizer_s(name):
    optimizer = optax.chain(make(name), optax.inject_hyperparams(optax.adam)(0.1))
    state = optimizer.init(PARAMS)
    queries = ("mu", "nu", "learning_rate", "value", "step", "rng_key", "opt_state", "hyperparams")
    for query in (*queries, "task_weights"):
        assert len(optax.tree.get_all_with_path(state, query)) <= 1
    counts = [path for path, _ in optax.tree.get_all_with_path(state, "count")]
    assert all("BalancerState" not in str(path) for path in counts)
    plain = optax.chain(make(name), optax.adam(0.1)).init(PARAMS)
    assert optax.tree.get(plain, "count") == 0


@every_method
def test_the_state_of_another_number_of_tasks_is_refused(name):
    balancer, grads = make(name), as_tree(np.ones((3, 10)))
    update = functools.partial(balancer.update, losses=np.ones(3), **needed(name, grads))
    for other in (1, 2, 4):
        if other <= 2 and name == "trimmed_mean":
            continue
        with pytest.raises(ValueError, match="made for another number of tasks"):
            update(grads, make(name, other).init(PARAMS))


def test_the_state_of_another_method_is_refused():
    balancers = {name: make(name) for name in NAMES}
    states = {name: balancer.init(PARAMS) for name, balancer in balancers.items()}
    grads = as_tree(np.ones((3, 10)))
    same = [{"imtl", "imtl_l"}]  # the same learned numbers
    for left, right in itertools.permutations(NAMES, 2):
        kept = [states[name].method for name in (left, right)]
        if not all(jax.tree.leaves(method) for method in kept) or {left, right} in same:
            continue
        if all(isinstance(method, SolvedState) for method in kept):
            continue  # the report of a solver, which the next step does not read
        with pytest.raises(ValueError, match="made by another method: it holds task_weights"):
            balancers[left].update(grads, states[right], losses=np.ones(3), **needed(left, grads))


@pytest.mark.parametrize("name", ["db_mtl", "graddrop", "excess_mtl"])
def test_what_a_method_keeps_of_the_gradients_is_another_method_s(name):
    balancer, state = make("equal"), make(name).init(PARAMS)._replace(method=())
    with pytest.raises(ValueError, match="made by another method: it holds task_weights, prep"):
        balancer.update(as_tree(np.ones((3, 10))), state)


def test_a_random_key_of_another_kind_is_said_to_be_one():
    balancer = jaxmtl.rlw(0, num_tasks=3)
    state = jaxmtl.rlw(jax.random.key(0, impl="rbg"), num_tasks=3).init(PARAMS)
    with pytest.raises(ValueError, match="made for another kind of random key"):
        balancer.update(as_tree(np.ones((3, 10))), state)


def test_what_is_no_state_at_all_is_refused_on_every_route():
    balancer, params = jaxmtl.equal(num_tasks=2), jnp.ones(2)

    def losses_fn(x):
        return {"a": x[0], "b": x[1]}

    calls = [
        lambda state: balancer.update(jnp.eye(2), state),
        lambda state: jaxmtl.value_and_balanced_grad(losses_fn, balancer)(state, params),
        lambda state: jaxmtl.value_and_features_grad(
            lambda x: 2 * x, lambda heads, z: losses_fn(z), balancer
        )(state, params, {}),
    ]
    for call in calls:
        call(balancer.init(params))
        for state in (optax.EmptyState(), (balancer.init(params),), params, None):
            with pytest.raises(
                ValueError, match=r"must be what balancer\.init\(params\) or update"
            ):
                call(state)
        with pytest.raises(ValueError, match="made for another number of tasks"):
            call(jaxmtl.equal(num_tasks=3).init(params))


@every_method
def test_no_float64_comes_in_by_the_way(name):
    """Float32 parameters where 64 bits are allowed; a type that gives way would be a warning."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), PARAMS)
        balancer, grads = METHODS[name].make(3, jax.random.key(7)), as_tree(np.eye(3, 10))
        state, losses = balancer.init(params), jnp.asarray(LOSSES[:3], jnp.float32)
        assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= {
            jnp.dtype(kind) for kind in ("float32", "int32", "uint32", "bool")
        }
        extra = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), needed(name, grads))
        update = functools.partial(balancer.update, losses=losses, **extra)
        program, shapes = jax.make_jaxpr(update, return_shape=True)(grads, state)
        made = [var.aval for eqn in operations(program) for var in eqn.outvars]
        # A few numbers of each task may be: optax's Adam and projection make some.
        assert all(aval.size <= 9 for aval in made if aval.dtype == jnp.float64)
        chex.assert_trees_all_equal_shapes_and_dtypes(shapes, (params, state))


# Where types must not be promoted: optax's Adam raises a float to the power of its step count.
LEARN_WITH_ADAM = ("uncertainty", "imtl_l", "famo", "gradnorm", "imtl")
COMBINED = {
    "on_shared": lambda b: jaxmtl.on_shared(b, {"a": True, "b": False}),
    "weighted heads": lambda b: jaxmtl.on_shared(b, {"a": True, "b": False}, heads="weighted"),
    "prioritise": lambda b: jaxmtl.prioritise(b, [1.0, 2.0, 3.0]),
    "every": lambda b: jaxmtl.every(b, 2),
    "smooth": lambda b: jaxmtl.smooth(b, 0.5),
    "warm_up": lambda b: jaxmtl.warm_up(b, 2, ramp=2, weights=[1.0, 2.0, 3.0]),
    "in_turn": jaxmtl.in_turn,
    "skip_broken": jaxmtl.skip_broken,
    "skip_rounding": jaxmtl.skip_rounding,
    "with_ridge": jaxmtl.with_ridge,
    "report_only": lambda b: jaxmtl.report_only(jaxmtl.every(jaxmtl.skip_broken(b), 2)),
}
OPTIONS = {
    "cagrad": lambda: jaxmtl.cagrad(rescale="1+c^2"),
    "loss+": lambda: jaxmtl.mgda(normalizer="loss+"),
    "normalized": lambda: jaxmtl.softadapt(3, variant="normalized"),
    "loss_weighted": lambda: jaxmtl.softadapt(3, variant="loss_weighted"),
    "median": lambda: jaxmtl.aligned_mtl([1.0, 2.0, 3.0], scale="median"),
    "rmse": lambda: jaxmtl.aligned_mtl(scale="rmse"),
    "geometric": lambda: jaxmtl.conflict_free([1.0, 2.0, 3.0], length="geometric"),
    "arithmetic": lambda: jaxmtl.conflict_free(length="arithmetic"),
    "pcgrad": lambda: jaxmtl.pcgrad(0, reduction="mean"),
    "alpha": lambda: jaxmtl.normalize(alpha=1.0, num_tasks=3, initial_losses=[1.0, 2.0, 3.0]),
    "ideal": lambda: jaxmtl.stch(ideal=[1.0, 2.0, 3.0]),
    "krum": lambda: jaxmtl.krum(0, num_selected=2),
    "reference": lambda: jaxmtl.lr_annealing(3, reference=1),
    "leak": lambda: jaxmtl.graddrop(0, leak=[0.0, 0.5, 1.0]),
    "with_fixed": lambda: jaxmtl.with_fixed(
        jaxmtl.warm_up(jaxmtl.mgda(num_tasks=2), 2), ["balanced", "balanced", 0.1]
    ),
    **{
        f"{name} with SGD": lambda name=name: getattr(jaxmtl, name)(3, optimizer=optax.sgd(0.1))
        for name in LEARN_WITH_ADAM
    },
}


def trace_strictly(balancer, dtype="float32", needs=(), *, all_routes=False):
    """Trace a step, with no type promoted."""
    params, grads = PARAMS, as_tree(np.ones((3, 10)))
    params, grads = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, grads))
    values = {"independent_grads": (grads, grads), "ntk_traces": jnp.ones(3)}
    extra = {name: values[name] for name in needs}
    losses, active = jnp.ones(3, dtype), jnp.ones(3, bool)

    def losses_fn(params):
        return {name: jnp.sum(params["a"]) + n for n, name in enumerate("abc")}

    def steps():
        state = balancer.init(params)
        yield balancer.update(grads, state, params, losses=losses, active=active, **extra)
        if not all_routes:
            return
        losses_now, stacked = jaxmtl.value_and_task_grads(losses_fn)(params)
        yield balancer.update(stacked, state, params, losses=losses_now)
        yield jaxmtl.value_and_balanced_grad(losses_fn, balancer)(state, params)[1:]
        if balancer.turns is not None:
            return
        if balancer.preparation is None and not balancer.skips_broken:
            lean = jaxmtl.value_and_balanced_grad(losses_fn, balancer, memory="lean")
            yield lean(state, params, active=active)[1:]
        if balancer.preparation is None and not balancer.roles.measured:
            step = jaxmtl.value_and_features_grad(lambda z: z, lambda _, z: losses_fn(z), balancer)
            _, (grad, _), state = step(state, params, {}, active=active)
            yield grad, state

    with jax.numpy_dtype_promotion("strict"):
        for updates, _ in jax.eval_shape(lambda: list(steps())):
            assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


both_types = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


@both_types
@each(name for name in NAMES if name not in LEARN_WITH_ADAM)
def test_no_type_is_promoted(name, dtype):
    trace_strictly(make(name), dtype, METHODS[name].needs)


@pytest.mark.parametrize("option", OPTIONS)
def test_no_type_is_promoted_by_an_option(option):
    trace_strictly(OPTIONS[option]())


@both_types
@pytest.mark.parametrize("combinator", COMBINED)
def test_no_type_is_promoted_by_a_combinator_on_any_route(combinator, dtype):
    trace_strictly(COMBINED[combinator](jaxmtl.normalize(num_tasks=3)), dtype, all_routes=True)


@pytest.mark.parametrize("name", LEARN_WITH_ADAM)
def test_optax_s_adam_promotes_types_itself(name):
    """Should this fail, optax has changed: these methods belong to the others above."""
    with pytest.raises(Exception, match="no available implicit dtype promotion path") as raised:
        trace_strictly(make(name))
    assert "optax" in str([entry.path for entry in raised.traceback])
