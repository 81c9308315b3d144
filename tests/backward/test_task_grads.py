"""Stacked gradients against closed forms, and against float64 where a compiler may garble them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from tests.references import relative_error

X = jnp.array([0.3, -1.2, 2.0])


def named_losses(x):
    return {"square": jnp.sum(x**2), "cube": jnp.sum(x**3), "line": x @ jnp.array([1.0, 2.0, 3.0])}


@pytest.mark.parametrize("jit", [False, True])
def test_rows_follow_the_sorted_names(jit):
    fun = jaxmtl.value_and_task_grads(named_losses)
    losses, grads = (jax.jit(fun) if jit else fun)(X)
    x = np.asarray(X, np.float64)
    assert list(losses) == ["square", "cube", "line"] or list(losses) == ["cube", "line", "square"]
    np.testing.assert_allclose(losses["cube"], (x**3).sum(), rtol=1e-6)
    np.testing.assert_allclose(grads, np.stack([3 * x**2, [1, 2, 3], 2 * x]), rtol=1e-6)


def test_an_array_of_losses():
    fun = jaxmtl.value_and_task_grads(lambda x: jnp.stack([x[0] * x[1], x[2]]))
    losses, grads = fun(X)
    assert losses.shape == (2,)
    np.testing.assert_allclose(grads, [[-1.2, 0.3, 0], [0, 0, 1]], rtol=1e-6)


def test_a_single_loss_is_one_task():
    losses, grads = jaxmtl.value_and_task_grads(lambda x: jnp.sum(x))(X)
    assert losses.shape == ()
    assert grads.shape == (1, 3)


def test_aux_comes_from_one_forward_pass():
    calls = []

    def fun(x, scale):
        calls.append(1)
        return (scale * jnp.sum(x), jnp.sum(x**2)), {"mean": jnp.mean(x)}

    (losses, aux), grads = jaxmtl.value_and_task_grads(fun, has_aux=True)(X, scale=2.0)
    assert len(calls) == 1
    assert grads.shape == (2, 3)
    np.testing.assert_allclose(losses[0], 2 * np.sum(np.asarray(X)), rtol=1e-6)
    np.testing.assert_allclose(aux["mean"], np.mean(np.asarray(X)), rtol=1e-6)


def test_several_arguments():
    def fun(a, data, b):
        return {"p": jnp.sum(a * data) + b["c"], "q": b["c"] ** 2}

    arguments = (jnp.ones(2), jnp.array([3.0, 4.0]), {"c": jnp.array(5.0)})
    _, (of_a, of_b) = jaxmtl.value_and_task_grads(fun, argnums=(0, 2))(*arguments)
    np.testing.assert_allclose(of_a, [[3, 4], [0, 0]])
    np.testing.assert_allclose(of_b["c"], [1, 10])
    balancer = jaxmtl.static([1.0, 2.0])
    state = balancer.init((arguments[0], arguments[2]))
    fun = jaxmtl.value_and_balanced_grad(fun, balancer, argnums=(0, 2))
    _, (of_a, of_b), _ = fun(state, *arguments)
    np.testing.assert_allclose(of_a, [3, 4])
    np.testing.assert_allclose(of_b["c"], 21)


@pytest.mark.parametrize(
    ("fun", "message"),
    [
        (lambda x: {"per_example": x**2}, None),
        (lambda x: {"a": jnp.sum(x), "b": x**2}, r"loss 'b' has shape \(3,\)"),
        (lambda x: x[None] ** 2, r"has shape \(1, 3\)"),
        (lambda x: {}, "returned no losses"),
        (lambda x: x[:0], "empty array"),
        (lambda x: (jnp.sum(x), {"aux": x}), "pass has_aux=True"),
        (lambda x: {"a": jnp.sum(x), "n": jnp.argmax(x)}, "loss 'n' has type int32"),
    ],
)
def test_anything_but_losses_is_refused(fun, message):
    if message is None:  # one array of shape (T,), whatever its name
        assert jaxmtl.value_and_task_grads(fun)(X)[1].shape == (3, 3)
        return
    with pytest.raises(ValueError, match=message):
        jaxmtl.value_and_task_grads(fun)(X)
    balancer = jaxmtl.real_time_loss()
    with pytest.raises(ValueError, match=message):
        jaxmtl.value_and_balanced_grad(fun, balancer)(balancer.init(X), X)


def test_a_loss_may_be_a_python_number():
    losses, grads = jaxmtl.value_and_task_grads(lambda x: {"a": jnp.sum(x), "b": 1.0})(X)
    assert losses["b"] == 1
    np.testing.assert_array_equal(grads, [[1, 1, 1], [0, 0, 0]])


def test_a_chain_or_a_missing_state_is_refused_in_words():
    chain = optax.chain(jaxmtl.mgda(), optax.adam(0.1))
    with pytest.raises(ValueError, match="pass the balancer alone"):
        jaxmtl.value_and_balanced_grad(named_losses, chain)
    for balancer in (jaxmtl.mgda(), jaxmtl.equal()):
        with pytest.raises(ValueError, match=r"state must be what balancer\.init"):
            jaxmtl.value_and_balanced_grad(named_losses, balancer)(X)


def test_losses_only_takes_one_backward_pass():
    """The compiled program multiplies matrices as often as that of a weighted sum, not T times."""
    params, x = {"w": jnp.ones((4, 32)), "v": jnp.ones((32, 8))}, jnp.ones((16, 4))

    def losses_fn(params, x):
        return jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"] - 2.0) ** 2, axis=0)

    def flops(fun, *args):
        return jax.jit(fun).lower(*args).compile().cost_analysis()["flops"]

    def balanced(balancer):
        fun = jaxmtl.value_and_balanced_grad(losses_fn, balancer)
        return flops(fun, balancer.init(params), params, x)

    plain = flops(jax.value_and_grad(lambda p, x: jnp.sum(losses_fn(p, x))), params, x)
    assert balanced(jaxmtl.real_time_loss()) < 1.2 * plain
    assert balanced(jaxmtl.mgda()) > 2 * plain


def test_cheap_route_gives_task_specific_leaves_their_own_gradient():
    def losses_fn(p):
        return {"a": p["trunk"] * p["head_a"], "b": 3 * p["trunk"] * p["head_b"]}

    params = {"trunk": jnp.array(2.0), "head_a": jnp.array(5.0), "head_b": jnp.array(7.0)}
    balancer = jaxmtl.on_shared(jaxmtl.static([0.1, 0.2]), lambda path: path == "trunk")
    route = jaxmtl.value_and_balanced_grad(losses_fn, balancer)
    _, grad, _ = route(balancer.init(params), params)
    np.testing.assert_allclose(grad["trunk"], 0.1 * 5 + 0.2 * 21, rtol=1e-6)
    np.testing.assert_allclose([grad["head_a"], grad["head_b"]], [2, 6], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_losses_do_not_overflow_the_weights(dtype):
    def losses_fn(p):
        return {"x": (jnp.sum(p**2) * 4e-6).astype(dtype), "y": jnp.sum(p).astype(dtype)}

    balancer, p = jaxmtl.real_time_loss(), jnp.ones(3)
    losses, grads = jaxmtl.value_and_task_grads(losses_fn)(p)
    expected, _ = balancer.update(grads, balancer.init(p), p, losses=losses)
    _, grad, _ = jaxmtl.value_and_balanced_grad(losses_fn, balancer)(balancer.init(p), p)
    np.testing.assert_allclose(grad, expected, rtol=float(2 * jnp.finfo(dtype).eps))


def test_the_functions_own_arguments_may_bear_any_name():
    def losses_fn(p, *, state, balancer):
        return {"x": state * jnp.sum(p), "y": balancer * jnp.sum(p**2)}

    balancer = jaxmtl.equal()
    route = jaxmtl.value_and_balanced_grad(losses_fn, balancer)
    _, grad, _ = route(balancer.init(X), X, state=2.0, balancer=0.0)
    np.testing.assert_allclose(grad, [1, 1, 1])


def test_arguments_that_are_not_there_are_refused_in_words():
    for call in (
        lambda: jaxmtl.value_and_task_grads(named_losses)(x=X),
        lambda: jaxmtl.value_and_task_grads(named_losses, argnums=3)(X),
    ):
        with pytest.raises(ValueError, match="positional arguments were passed"):
            call()


def test_active_on_the_cheap_route():
    balancer = jaxmtl.equal(num_tasks=2)
    fun = jaxmtl.value_and_balanced_grad(lambda x: jnp.stack([x[0], x[1] ** 2]), balancer)
    x = jnp.array([1.0, 3.0])
    _, grad, state = fun(balancer.init(x), x, active=[False, True])
    np.testing.assert_allclose(grad, [0, 6])
    np.testing.assert_allclose(state.task_weights, [0, 1])


@pytest.mark.parametrize("num_tasks", [2, 3, 8, 16])
def test_layer_norm_canary(num_tasks):
    """Stacked gradients of a LayerNorm network, jitted, against NumPy float64.

    XLA:CPU of some jaxlib versions gets them tens of per cent wrong; comparing jit with jit would
    not tell.
    """
    rng = np.random.default_rng(num_tasks)
    x, w = rng.normal(size=(512, 64)), rng.normal(size=(64, 128)) / 8
    v = rng.normal(size=(128, num_tasks)) / 8
    scale = np.linspace(0.5, 1.5, 128)

    def losses_fn(w):
        z = jnp.asarray(x, jnp.float32) @ w
        mean = jnp.mean(z, axis=-1, keepdims=True)
        variance = jnp.mean(z * z, axis=-1, keepdims=True) - mean * mean
        y = (z - mean) * jax.lax.rsqrt(variance + 1e-6) * jnp.asarray(scale[None], jnp.float32)
        return jnp.mean((jax.nn.relu(y) @ jnp.asarray(v, jnp.float32)) ** 2, axis=0)

    _, grads = jax.jit(jaxmtl.value_and_task_grads(losses_fn))(jnp.asarray(w, jnp.float32))

    z = x @ w
    deviation = np.sqrt(z.var(axis=-1, keepdims=True) + 1e-6)
    normal = (z - z.mean(axis=-1, keepdims=True)) / deviation
    y = normal * scale
    out = np.maximum(y, 0) @ v
    for task in range(num_tasks):
        to_normal = (2 * out[:, [task]] / len(x)) * v[:, task] * (y > 0) * scale
        centred = to_normal - to_normal.mean(axis=-1, keepdims=True)
        along = normal * np.mean(to_normal * normal, axis=-1, keepdims=True)
        expected = x.T @ ((centred - along) / deviation)
        assert relative_error(grads[task], expected) < 1e-5


@pytest.mark.parametrize("jitted", [False, True])
def test_an_operation_that_cannot_be_mapped_is_run_once_a_task(jitted):
    """A call back to the host has no batching rule; chunks of one need none."""

    def on_host(function, x, *rest):
        return jax.pure_callback(function, jax.ShapeDtypeStruct(x.shape, x.dtype), x, *rest)

    @jax.custom_vjp
    def sine(x):
        return on_host(np.sin, x)

    sine.defvjp(
        lambda x: (sine(x), x),
        lambda x, ct: (on_host(lambda x, ct: np.cos(x) * ct, x, ct),),
    )

    def losses(w):
        z = sine(jnp.arange(4.0) * w)
        return {"a": jnp.sum(z), "b": jnp.sum(z**2)}

    function = jaxmtl.value_and_task_grads(losses, chunk_size=1)
    _, grads = (jax.jit(function) if jitted else function)(jnp.full(4, 0.3))
    x = np.arange(4.0)
    to_a = x * np.cos(0.3 * x)
    np.testing.assert_allclose(grads, [to_a, 2 * np.sin(0.3 * x) * to_a], rtol=1e-5)
