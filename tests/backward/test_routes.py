"""The routes of value_and_balanced_grad: less memory, chunks, features; the same gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from jaxmtl.methods import METHODS
from tests.references import as_vector, gradients, min_norm_weights, relative_error
from tests.stages import later

pytestmark = pytest.mark.usefixtures("quick_compiler")

# Methods that read the losses alone take the same way with and without a stack.
LEAN = [
    name
    for name, method in METHODS.items()
    if not method.needs
    and (balancer := method.make(3, jax.random.key(0))).preparation is None
    and "gramian" in balancer.weighting.reads
]
PARAMS = {
    "trunk": jnp.asarray(gradients(0, 6, 5), jnp.float32),
    "heads": jnp.asarray(gradients(1, 3, 6), jnp.float32),
}
X = jnp.asarray(gradients(2, 7, 5), jnp.float32)


def losses_fn(params, x):
    h = jnp.tanh(3 * x @ params["trunk"].T)
    out = h @ params["heads"].T
    return {
        "a": jnp.mean((out[:, 0] - 1) ** 2),
        "b": 5 * jnp.mean(jnp.abs(out[:, 1] + 2)),
        "c": 0.1 + jnp.mean(jnp.exp(-out[:, 2])),
    }


# All read the Gramian that the route makes: by a formula, in a drawn order, by a solver, and again.
@pytest.mark.parametrize("name", later(LEAN, soon=["gradnorm", "pcgrad", "mgda", "upgrad"]))
def test_lean_gives_the_same_gradient(name):
    balancer = METHODS[name].make(3, jax.random.key(3))
    shared = jaxmtl.on_shared(balancer, {"trunk": True, "heads": False})

    @jax.jit
    def both(state, params):
        lean = jaxmtl.value_and_balanced_grad(losses_fn, shared, memory="lean")
        losses, grads = jaxmtl.value_and_task_grads(losses_fn)(params, X)
        return lean(state, params, X), shared.update(grads, state, params, losses=losses)

    (_, grad, state), (expected, expected_state) = both(shared.init(PARAMS), PARAMS)
    assert relative_error(as_vector(grad), as_vector(expected)) < 1e-5
    np.testing.assert_allclose(state.task_weights, expected_state.task_weights, rtol=1e-4)


def test_lean_with_absent_tasks_and_held_weights():
    balancer = jaxmtl.every(jaxmtl.mgda(num_tasks=3), 2)
    lean = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer, memory="lean"))
    stacked = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
    state = other = balancer.init(PARAMS)
    for active in ([True, False, True], [True, True, False], [True, True, True]):
        _, grad, state = lean(state, PARAMS, X, active=jnp.array(active))
        _, expected, other = stacked(other, PARAMS, X, active=jnp.array(active))
        assert relative_error(as_vector(grad), as_vector(expected)) < 1e-5


def test_lean_shows_a_nan_even_of_an_absent_task():
    """Its last pass goes through all losses at once, and zero times NaN is NaN."""

    def broken(params, x):
        losses = losses_fn(params, x)
        return losses | {"b": jnp.sqrt(losses["b"] - 1e6)}

    balancer = jaxmtl.mgda(num_tasks=3)
    state = balancer.init(PARAMS)
    active = jnp.array([True, False, True])
    lean = jaxmtl.value_and_balanced_grad(broken, balancer, memory="lean")
    _, grad, new_state = lean(state, PARAMS, X, active=active)
    assert np.isnan(as_vector(grad)).any()
    np.testing.assert_array_equal(new_state.task_weights, [0, 0, 0])


def mlp(num_tasks, width=256, depth=6):
    keys = jax.random.split(jax.random.key(0), depth + 1)
    params = {f"w{i}": jax.random.normal(k, (width, width)) / 16 for i, k in enumerate(keys[:-1])}
    params["heads"] = jax.random.normal(keys[-1], (width, num_tasks))

    def losses(params, x):
        for i in range(depth):
            x = jnp.tanh(x @ params[f"w{i}"])
        return jnp.mean((x @ params["heads"]) ** 2, axis=0)

    return params, losses, jnp.ones((8, width))


@pytest.mark.parametrize("num_tasks", later([2, 16, 64], soon=[2, 64]))
def test_lean_memory_does_not_grow_with_the_tasks(num_tasks):
    """Temporary memory within 2.5 times a plain gradient's, and the parameters."""
    params, losses, x = mlp(num_tasks)
    balancer = jaxmtl.normalize(num_tasks=num_tasks)
    plain = jax.jit(jax.grad(lambda p: jnp.sum(losses(p, x))))
    lean = jax.jit(jaxmtl.value_and_balanced_grad(losses, balancer, memory="lean"))
    stacked = jax.jit(jaxmtl.value_and_balanced_grad(losses, balancer))

    def temporary(function, *args):
        return function.lower(*args).compile().memory_analysis().temp_size_in_bytes

    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    state = balancer.init(params)
    allowed = 2.5 * temporary(plain, params) + size
    assert temporary(lean, state, params, x) <= allowed
    if num_tasks == 64:
        assert temporary(stacked, state, params, x) > 5 * allowed


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5])
def test_chunks_change_nothing(chunk_size):
    losses, expected = jax.jit(jaxmtl.value_and_task_grads(losses_fn))(PARAMS, X)
    chunked = jax.jit(jaxmtl.value_and_task_grads(losses_fn, chunk_size=chunk_size))
    value, grads = chunked(PARAMS, X)
    np.testing.assert_allclose(value["b"], losses["b"], rtol=1e-6)
    assert relative_error(as_vector(grads), as_vector(expected)) < 1e-6


def encode(shared, x):
    return {"h": jnp.tanh(3 * x @ shared.T)}


def decode(heads, features, x):
    out = features["h"] @ heads.T
    return {"a": jnp.mean((out[:, 0] - 1) ** 2), "b": jnp.mean(jnp.abs(out[:, 1] + 2 * x[:, 0]))}


HEADS = PARAMS["heads"][:2]


def test_features_weigh_at_the_representation():
    balancer = jaxmtl.mgda(num_tasks=2)
    step = jax.jit(jaxmtl.value_and_features_grad(encode, decode, balancer))
    shared = PARAMS["trunk"]
    losses, (shared_grad, heads_grad), state = step(balancer.init(shared), shared, HEADS, X)
    features = encode(shared, X)
    rows = [
        jax.grad(lambda f, name=name: decode(HEADS, f, X)[name])(features)["h"] for name in "ab"
    ]
    weights = min_norm_weights(np.array([np.asarray(row, np.float64).ravel() for row in rows]))
    np.testing.assert_allclose(state.task_weights, weights, atol=1e-5)

    def weighted(shared, heads):
        value = decode(heads, encode(shared, X), X)
        return weights[0] * value["a"] + weights[1] * value["b"]

    expected = jax.grad(weighted)(shared, HEADS)
    assert relative_error(as_vector(shared_grad), as_vector(expected)) < 1e-4
    own = jax.grad(lambda h: sum(decode(h, features, X).values()))(HEADS)
    assert relative_error(as_vector(heads_grad), as_vector(own)) < 1e-6
    np.testing.assert_allclose(losses["a"], decode(HEADS, features, X)["a"], rtol=1e-6)


def test_features_with_an_absent_task():
    balancer = jaxmtl.upgrad(num_tasks=2)
    step = jaxmtl.value_and_features_grad(encode, decode, balancer)
    active = {"a": jnp.array(False), "b": jnp.array(True)}
    state, shared = balancer.init(PARAMS["trunk"]), PARAMS["trunk"]
    _, (shared_grad, heads_grad), _ = step(state, shared, HEADS, X, active=active)
    expected = jax.grad(lambda s: decode(HEADS, encode(s, X), X)["b"])(shared)
    assert relative_error(as_vector(shared_grad), as_vector(expected)) < 1e-5
    assert np.all(np.asarray(heads_grad[0]) == 0)
    assert np.any(np.asarray(heads_grad[1]) != 0)


def test_features_need_one_pass_through_the_encoder():
    params = jnp.ones((6, 5))

    def marked(shared, x):
        return jnp.sin(x @ shared.T)

    def heads_of(heads, features, x):
        return jnp.mean(features @ heads, axis=0)

    balancer = jaxmtl.mgda(num_tasks=8)
    step = jaxmtl.value_and_features_grad(marked, heads_of, balancer)
    text = str(jax.make_jaxpr(step)(balancer.init(params), params, jnp.ones((6, 8)), X))
    assert "f32[8,6,5]" not in text
    assert "f32[8,7,6]" in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: jaxmtl.value_and_balanced_grad(losses_fn, jaxmtl.moco(3), memory="lean"),
            "read only the Gramian of the gradients",
        ),
        (
            lambda: jaxmtl.value_and_balanced_grad(losses_fn, jaxmtl.mgda(), memory="little"),
            "memory must be one of stacked, lean",
        ),
        (
            lambda: jaxmtl.value_and_task_grads(losses_fn, chunk_size=0),
            "chunk_size must be a whole number of at least 1",
        ),
        (
            lambda: jaxmtl.value_and_features_grad(
                encode, decode, jaxmtl.on_shared(jaxmtl.mgda(), True)
            ),
            "pass the balancer without on_shared",
        ),
        (
            lambda: jaxmtl.value_and_features_grad(encode, decode, jaxmtl.moco(2))(
                jaxmtl.moco(2).init(PARAMS["trunk"]), PARAMS["trunk"], HEADS, X
            ),
            "gradients of features belong to a batch",
        ),
        (
            lambda: jaxmtl.value_and_balanced_grad(losses_fn, jaxmtl.mgda())(
                jaxmtl.mgda().init(PARAMS), PARAMS, X, extra=[1]
            ),
            "extra must be a dict",
        ),
    ],
)
def test_misuse_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_microbatches_accumulate_stacked_gradients():
    """One balance of the whole batch's gradients, made from pieces of it."""
    full = jaxmtl.value_and_task_grads(losses_fn)
    _, expected = jax.jit(full)(PARAMS, X[:6])
    pieces = optax.microbatch(
        lambda params, x: full(params, x)[1],
        argnums=1,
        microbatch_size=2,
        accumulator=optax.microbatching.AccumulationType.MEAN,
    )
    grads = jax.jit(pieces)(PARAMS, X[:6])
    assert relative_error(as_vector(grads), as_vector(expected)) < 1e-5


COMPLEX = {"r": jnp.ones(2), "z": jnp.ones(2, jnp.complex64)}


def of_complex(params):
    return {"a": jnp.sum(jnp.abs(params["z"]) ** 2), "b": jnp.sum(params["r"])}


@pytest.mark.parametrize(
    "call",
    [
        lambda: jaxmtl.value_and_task_grads(of_complex)(COMPLEX),
        lambda: jaxmtl.mgda().init(COMPLEX),
        lambda: jaxmtl.equal().init(COMPLEX),
        lambda: jaxmtl.mgda().update(
            {name: jnp.stack([leaf, leaf]) for name, leaf in COMPLEX.items()},
            jaxmtl.mgda().init(jnp.ones(2)),
        ),
        *(
            lambda balancer=balancer, options=options: jaxmtl.value_and_balanced_grad(
                of_complex, balancer, **options
            )(balancer.init(jnp.ones(2)), COMPLEX)
            for balancer in (jaxmtl.normalize(), jaxmtl.mgda(), jaxmtl.equal())
            for options in ({}, {"memory": "lean"})
        ),
        lambda: jaxmtl.value_and_features_grad(
            lambda p: p["z"], lambda h, z: of_complex({"z": z, "r": h}), jaxmtl.mgda()
        )(jaxmtl.mgda().init(jnp.ones(2)), COMPLEX, jnp.ones(2)),
    ],
)
def test_complex_numbers_are_refused_on_every_route_in_the_same_words(call):
    with pytest.raises(ValueError, match="'z' has type complex64, but only real floating-point"):
        call()


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e3])
def test_lean_inner_products_do_not_pass_through_the_type_of_the_losses(size):
    """In float16 the squares of these gradients would be zero, or infinite."""
    weights = size * np.array([[1.0, 0.5, 0.25], [0.5, -1.0, 2.0]])

    def losses_of(x):
        return {
            n: (jnp.asarray(w, jnp.float32) @ x).astype(jnp.float16)
            for n, w in zip("ab", weights, strict=True)
        }

    balancer = jaxmtl.report_only(jaxmtl.normalize(num_tasks=2))
    lean = jaxmtl.value_and_balanced_grad(losses_of, balancer, memory="lean")
    x = jnp.array([1e-2, 2e-2, 3e-2])
    _, _, state = jax.jit(lean)(balancer.init(x), x)
    lengths = np.linalg.norm(weights, axis=1)
    np.testing.assert_allclose(state.report.norms, lengths, rtol=2e-3)
    cosine = weights[0] @ weights[1] / lengths.prod()
    np.testing.assert_allclose(state.report.cosines[0, 1], cosine, rtol=2e-3)


def test_lean_needs_directional_derivatives():
    @jax.custom_vjp
    def same(x):
        return x

    same.defvjp(lambda x: (x, None), lambda _, g: (g,))
    balancer = jaxmtl.mgda(num_tasks=2)
    lean = jaxmtl.value_and_balanced_grad(
        lambda x: {"a": jnp.sum(same(x)), "b": jnp.sum(x**2)}, balancer, memory="lean"
    )
    with pytest.raises(ValueError, match=r"which functions with a jax\.custom_vjp do not have"):
        lean(balancer.init(jnp.ones(2)), jnp.ones(2))


@pytest.mark.parametrize("absent", [True, False])
def test_features_with_labels_that_are_nan(absent):
    """An absent task leaves nothing behind; of one that is present the step is broken whole."""
    balancer = jaxmtl.uncertainty(2)

    def losses_of(heads, z):
        return {
            "a": jnp.mean((z @ heads["a"] - jnp.nan) ** 2),
            "b": jnp.mean((z @ heads["b"]) ** 2),
        }

    step = jaxmtl.value_and_features_grad(lambda shared: X @ shared, losses_of, balancer)
    shared, heads = jnp.ones((5, 3)), {"a": jnp.ones(3), "b": jnp.ones(3)}
    start = balancer.init(shared)
    active = {"a": not absent, "b": True}
    _, (of_shared, of_heads), state = jax.jit(step)(start, shared, heads, active=active)
    own = jax.grad(lambda h: losses_of(h, X @ shared)["b"])(heads)["b"]
    if absent:
        assert np.all(np.isfinite(as_vector((of_shared, of_heads))))
        np.testing.assert_array_equal(of_heads["a"], np.zeros(3))
        np.testing.assert_allclose(of_heads["b"], own, rtol=1e-6)
        assert np.any(state.method.log_variances != 0)
    else:
        assert not np.all(np.isfinite(as_vector(of_heads)))
        for new, old in zip(jax.tree.leaves(state), jax.tree.leaves(start), strict=True):
            np.testing.assert_array_equal(new, old)


def test_features_whose_encoder_breaks_leave_the_state():
    balancer = jaxmtl.uncertainty(2)
    step = jaxmtl.value_and_features_grad(
        lambda x: jnp.sqrt(x), lambda heads, z: {"a": jnp.sum(z), "b": jnp.sum(z**2)}, balancer
    )
    start, x = balancer.init(jnp.zeros(2)), jnp.array([0.0, 1.0])
    _, (of_shared, _), state = jax.jit(step)(start, x, {})
    assert not np.all(np.isfinite(of_shared))
    np.testing.assert_array_equal(state.method.log_variances, start.method.log_variances)


@pytest.mark.parametrize("value", ["array", "dict", "three"])
def test_auxiliary_data_without_a_pair_is_refused(value):
    def fun(x):
        losses = {"a": x[0], "b": x[1]}
        pairs = {"array": jnp.stack([x[0], x[1]]), "dict": losses, "three": (losses, 1.0, 2.0)}
        return pairs[value]

    balancer = jaxmtl.equal(num_tasks=2)
    with pytest.raises(ValueError, match=r"must return a pair, \(losses, aux\)"):
        jaxmtl.value_and_task_grads(fun, has_aux=True)(jnp.ones(2))
    with pytest.raises(ValueError, match=r"must return a pair, \(losses, aux\)"):
        jaxmtl.value_and_balanced_grad(fun, balancer, has_aux=True)(
            balancer.init(jnp.ones(2)), jnp.ones(2)
        )


@pytest.mark.parametrize("stacked", [True, False])
def test_absent_tasks_of_one_vmap_need_their_labels_masked(stacked):
    """Losses that one operation made go back through it together, and zero times NaN is NaN."""
    labels, x = jnp.array([1.0, jnp.nan, 3.0]), jnp.array([0.5, 1.0])
    present = jnp.array([True, False, True])

    def losses_of(x, labels):
        each = [jnp.sum((label * x - 1) ** 2) for label in labels]
        together = jax.vmap(lambda label: jnp.sum((label * x - 1) ** 2))
        return jnp.stack(each) if stacked else together(labels)

    balancer = jaxmtl.equal(num_tasks=3)

    def update(labels):
        losses, grads = jaxmtl.value_and_task_grads(losses_of)(x, labels)
        return balancer.update(grads, balancer.init(x), losses=losses, active=present)[0]

    exact = sum(2 * n * (n * np.array([0.5, 1.0]) - 1) for n in (1.0, 3.0)) / 2
    np.testing.assert_allclose(update(jnp.where(present, labels, 0)), exact, rtol=1e-6)
    assert np.all(np.isfinite(update(labels))) == stacked
