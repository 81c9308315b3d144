"""What belongs to one loss alone is gone back once; the gradients are those of each loss."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.backward.test_cpu_layouts import named
from tests.references import as_vector, relative_error
from tests.stages import later

pytestmark = pytest.mark.usefixtures("quick_compiler")

X = np.random.default_rng(0).normal(size=(6, 5))
PARAMS = {
    "trunk": np.random.default_rng(1).normal(size=(5, 4)) / 2,
    "deep": np.random.default_rng(2).normal(size=(4, 4)) / 2,
    "heads": {n: np.random.default_rng(ord(n)).normal(size=4) for n in "abc"},
    "unused": np.ones(3),
    "scale": np.asarray(1.5),
}


def features(params, x):
    return jnp.tanh(jnp.tanh(x @ params["trunk"]) @ params["deep"]) * params["scale"]


def separate_heads(params, x):
    z = features(params, x)
    return {name: jnp.mean((z @ head - 1) ** 2) for name, head in params["heads"].items()}


def separate_batches(params, x):
    heads = params["heads"]
    parts = zip("abc", (x[:1], x[1:3], x[3:]), strict=True)
    return {n: jnp.mean(jnp.abs(features(params, part) @ heads[n])) for n, part in parts}


def entangled(params, x):
    losses = separate_heads(params, x)
    total = losses["a"] + 2 * losses["b"]
    weights = jax.nn.softmax(jnp.stack([losses["a"], losses["c"]]))
    return {
        "same": losses["a"],
        "again": losses["a"],
        "total": total,
        "mixed": jnp.sum(weights * jnp.stack([losses["b"], total])),
        "penalty": jnp.sum(params["deep"] ** 2),
        "constant": 3.0,
    }


def in_a_loop(params, x):
    def step(z, _):
        return jnp.tanh(z @ params["deep"]), jnp.mean(z)

    z, means = jax.lax.scan(step, x @ params["trunk"], None, length=3)
    return {"last": jnp.mean(z**2), "means": jnp.sum(means), "first": means[0] * params["scale"]}


def joined(params, x):
    """Contributions that meet in something else than a sum."""
    a, b = jnp.split(features(params, x), 2, axis=1)
    return {"a": jnp.mean(a**2), "b": jnp.mean(b), "both": jnp.mean(a * b)}


@jax.custom_vjp
def of_length_one(x):
    """The same array, whose gradient is brought to length one, and a term added."""
    return x


of_length_one.defvjp(lambda x: (x, None), lambda _, g: (g / jnp.sqrt(jnp.sum(g**2)) + 1,))


def not_linear(params, x):
    """Two losses share what the third and fourth never touch."""
    z = of_length_one(params["trunk"])
    return {
        "a": jnp.mean((x @ z) ** 2),
        "b": jnp.sum(jnp.sin(z)),
        "c": jnp.sum(params["trunk"] ** 3),
        "d": jnp.mean(features(params, x)),
    }


def _with_total(losses):
    return jnp.append(losses, losses.sum())


LOSSES = {
    "separate heads": separate_heads,
    "separate batches": separate_batches,
    "entangled": entangled,
    "in a loop": in_a_loop,
    "joined": joined,
    "jitted": jax.jit(separate_heads),
    "jitted parts": lambda p, x: {n: jax.jit(separate_heads)(p, x)[n] for n in "ab"},
    "checkpointed": jax.checkpoint(separate_heads),
    "one": lambda p, x: {"only": separate_heads(p, x)["a"]},
    "stacked": lambda p, x: jnp.stack(list(separate_heads(p, x).values())),
    "concatenated": lambda p, x: jnp.concatenate(
        [jnp.stack(list(separate_heads(p, x).values())), features(p, x).mean(0)[:2]]
    ),
    "array": lambda p, x: features(p, x).mean(0),
    "a group of none": lambda p, x: jnp.concatenate(
        [jax.vmap(jnp.sum)(features(p, x[:n])) for n in (2, 0)]
    ),
    "with their total": lambda p, x: _with_total(jnp.stack([*separate_heads(p, x).values()])),
    "an array with its total": lambda p, x: _with_total(features(p, x).mean(0)),
    "a way back that is not linear": not_linear,
}


@functools.cache
def exact_rows(kind):
    """The gradients of the single losses in float64, without jit."""
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), PARAMS)

        def flat(params):
            """The losses one by one: from an array, zeros of the others would come along."""
            leaves = jax.tree.leaves(LOSSES[kind](params, jnp.asarray(X)))
            return leaves[0] if jnp.ndim(leaves[0]) else leaves

        count = len(jax.eval_shape(lambda params: list(flat(params)), double))
        return [as_vector(jax.grad(lambda p, i=i: flat(p)[i])(double)) for i in range(count)]


def check_rows(kind, options):
    """Compare the stacked gradients in float32 with those of the single losses in float64."""
    fun = LOSSES[kind]
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), PARAMS)
    x = jnp.asarray(X, jnp.float32)
    _, grads = jax.jit(jaxmtl.value_and_task_grads(fun, **options))(single, x)
    for i, reference in enumerate(exact_rows(kind)):
        row = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i], np.float64), grads)
        assert np.linalg.norm(as_vector(row) - reference) <= 3e-6 * np.linalg.norm(reference)


@pytest.mark.parametrize("kind", LOSSES)
def test_rows_are_the_gradients_of_the_single_losses(kind):
    check_rows(kind, {})


@pytest.mark.parametrize(
    "kind", later(LOSSES, soon=["separate batches", "entangled", "in a loop", "array"])
)
def test_rows_in_chunks_are_the_gradients_of_the_single_losses(kind):
    check_rows(kind, {"chunk_size": 2})


@pytest.mark.parametrize("jit", [jax.jit, lambda function: function], ids=["jit", "eager"])
def test_a_branch_that_is_not_finite_harms_only_the_losses_that_share_it(jit):
    def losses(x):
        length = jnp.linalg.norm(0 * x)  # of nothing: its derivative is NaN
        return {"a": length * jnp.sum(x), "b": length + x[0], "c": jnp.sum(jnp.cos(x))}

    x = jnp.array([1.0, 2.0])
    _, grads = jit(jaxmtl.value_and_task_grads(losses))(x)
    assert np.all(np.isnan(grads[:2]))
    np.testing.assert_allclose(grads[2], -np.sin([1.0, 2.0]), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_numbers_that_no_loss_depends_on_have_gradient_zero(dtype):
    """Scalars, whose zeros are literals of the program."""

    def losses(p):
        return {"a": p["x"] ** 2, "b": p["x"] * 3}

    params = {"x": jnp.asarray(2, dtype), "unused": jnp.asarray(1, dtype)}
    for fun in (losses, lambda p: jnp.stack([*losses(p).values()])):
        _, grads = jax.jit(jaxmtl.value_and_task_grads(fun))(params)
        assert {leaf.dtype for leaf in grads.values()} == {jnp.dtype(dtype)}
        np.testing.assert_array_equal(np.asarray(grads["x"], np.float32), [4, 3])
        np.testing.assert_array_equal(np.asarray(grads["unused"], np.float32), [0, 0])


def products(function, *args):
    """Multiplications in all matrix products of a function's program."""
    total = 0
    for eqn in named("dot_general", function, *args):
        summed = eqn.params["dimension_numbers"][0][0]
        total += eqn.outvars[0].aval.size * math.prod(
            eqn.invars[0].aval.shape[axis] for axis in summed
        )
    return total


def test_losses_on_batches_of_their_own_cost_one_backward_pass():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), PARAMS)
    x = jnp.asarray(X, jnp.float32)
    plain = products(jax.grad(lambda p: sum(separate_batches(p, x).values())), params)
    assert products(lambda p: jaxmtl.value_and_task_grads(separate_batches)(p, x), params) == plain


def test_each_head_goes_back_once():
    width, out = 4, 50
    heads = {n: jnp.ones((width, out)) for n in "abc"}
    x = jnp.ones((6, width))

    def losses(params):
        z = x * params["trunk"][None]
        return {n: jnp.mean((z @ head) ** 2) for n, head in params["heads"].items()}

    params = {"trunk": jnp.ones(width), "heads": heads}
    plain = products(jax.grad(lambda p: sum(losses(p).values())), params)
    assert products(jaxmtl.value_and_task_grads(losses), params) == plain
    # Stacked afterwards, they are as separate as before.
    assert (
        products(jaxmtl.value_and_task_grads(lambda p: jnp.stack([*losses(p).values()])), params)
        == plain
    )


def test_what_all_losses_share_is_gone_back_through_for_each():
    def losses(params):
        return jnp.mean((jnp.ones((6, 4)) * params["trunk"][None]) @ params["heads"], axis=0)

    params = {"trunk": jnp.ones(4), "heads": jnp.ones((4, 3))}
    plain = products(jax.grad(lambda p: sum(losses(p))), params)
    assert products(jaxmtl.value_and_task_grads(losses), params) == plain * (1 + 2 * 3) / 3


def test_a_loss_that_is_not_finite_spoils_its_own_gradient_alone():
    def losses(params):
        z = jnp.tanh(params["trunk"])
        return {"fine": jnp.sum(z * params["a"]), "bad": jnp.sqrt(jnp.sum(z * params["b"]) * 0)}

    params = {"trunk": jnp.ones(3), "a": jnp.ones(3), "b": jnp.ones(3)}
    _, grads = jaxmtl.value_and_task_grads(losses)(params)
    bad, fine = (as_vector(jax.tree.map(lambda g, i=i: g[i], grads)) for i in range(2))
    assert np.all(np.isfinite(fine))
    assert not np.all(np.isfinite(bad))


def test_cotangents_of_16_bits_keep_their_type():
    def losses(p):
        return {"a": jnp.sum(p["x"] ** 2), "b": jnp.sum(p["x"]).astype(jnp.float32) * 2}

    _, grads = jaxmtl.value_and_task_grads(losses)({"x": jnp.arange(3, dtype=jnp.bfloat16)})
    assert grads["x"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(grads["x"], np.float32), [[0, 2, 4], [2, 2, 2]])


def test_gradients_can_be_differentiated_and_batched():
    def norm(params, x):
        _, grads = jaxmtl.value_and_task_grads(lambda p: {"a": jnp.sum(p**3 * x), "b": jnp.sum(p)})(
            params
        )
        return jnp.sum(grads**2)

    p, x = jnp.array([1.0, -2.0]), jnp.array([[1.0, 2.0], [0.5, 3.0]])
    # The squared length is sum (3 x p^2)^2 + 2, and its derivative 36 x^2 p^3.
    found = jax.vmap(jax.grad(norm), (None, 0))(p, x)
    np.testing.assert_allclose(found, 36 * np.asarray(x) ** 2 * np.asarray(p) ** 3, rtol=1e-6)
    assert relative_error(np.asarray(found[0]), 36 * np.array([1.0, -32.0])) < 1e-6


def test_what_is_pinned_to_devices_is_pinned_for_each_task_before_it_is_stacked():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    by_batch = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x, heads = np.float32(X), {"a": 1.0, "b": -2.0}

    def losses(w):
        h = jax.lax.with_sharding_constraint(jnp.tanh(jnp.asarray(x) @ w), by_batch)
        return {name: jnp.mean((h * head - 1) ** 2) for name, head in heads.items()}

    w = jnp.asarray(np.random.default_rng(0).normal(size=(x.shape[1], 4)), jnp.float32)
    function = jaxmtl.value_and_task_grads(losses)
    rows = [eqn.outvars[0].aval.shape for eqn in named("sharding_constraint", function, w)]
    assert rows == [(len(x), 4)] * 3  # forward, and back for each task

    _, grads = jax.jit(function)(w)
    z = np.tanh(x.astype(np.float64) @ np.asarray(w, np.float64))
    for row, head in zip(grads, heads.values(), strict=True):
        exact = x.T @ (2 * head * (z * head - 1) * (1 - z**2)) / z.size
        assert relative_error(row, exact) < 1e-6
