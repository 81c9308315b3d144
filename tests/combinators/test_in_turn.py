"""One gradient a step: against M-ConFIG in NumPy float64, and the two ways to the same bits."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from tests.references import as_vector, relative_error
from tests.stages import later

pytestmark = pytest.mark.usefixtures("quick_compiler")

RNG = np.random.default_rng(0)
T, P = 3, 5
ROOTS = RNG.normal(size=(T, P, P)) * np.array([0.3, 1.0, 3.0])[:, None, None]
CENTRES = RNG.normal(size=(T, P))
START = RNG.normal(size=P)


def losses_fn(x, shift=0.0):
    """Three quadratic functions, of names whose sorted order is another."""
    x = jnp.concatenate([x["b"].ravel(), x["a"]])
    roots, centres = (jnp.asarray(array, x.dtype) for array in (ROOTS, CENTRES))
    one, two, three = (jnp.sum((roots[i] @ (x - centres[i] - shift)) ** 2) / 2 for i in range(T))
    return {"z": three, "c": one, "m": two}


ORDER = [0, 1, 2]  # c, m, z


def params(x=START, dtype=jnp.float32):
    return {"a": jnp.asarray(x[4:], dtype), "b": jnp.asarray(x[:4].reshape(2, 2), dtype)}


def flat(tree):
    return np.concatenate([np.ravel(tree["b"]), np.ravel(tree["a"])]).astype(np.float64)


def gradient(task, x):
    return ROOTS[task].T @ (ROOTS[task] @ (x - CENTRES[task]))


def config(rows):
    """ConFIG's direction and length."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    direction = np.linalg.pinv(units) @ np.ones(len(rows))
    direction /= np.linalg.norm(direction)
    return np.sum(rows @ direction) * direction


def m_config(steps, rate, beta1=0.9, beta2=0.999):
    """The paper's algorithm 1, with Adam's epsilon; tasks that had no turn yet are left out."""
    x, m, counts = START.copy(), np.zeros((T, P)), np.zeros(T)
    last, second, path = np.zeros(P), np.zeros(P), []
    for t in range(1, steps + 1):
        i = (t - 1) % T
        counts[i] += 1
        m[i] = beta1 * m[i] + (1 - beta1) * gradient(i, x)
        seen = counts > 0
        corrected = m[seen] / (1 - beta1 ** counts[seen])[:, None]
        direction = config(corrected)
        fake_m = direction * (1 - beta1**t)
        fake_gradient = (fake_m - beta1 * last) / (1 - beta1)
        last = fake_m
        second = beta2 * second + (1 - beta2) * fake_gradient**2
        x = x - rate * direction / (np.sqrt(second / (1 - beta2**t)) + 1e-8)
        path.append(x)
    return np.array(path)


def run(balancer, optimizer, steps, dtype=jnp.float32):
    """The parameters and the states of each step."""
    route = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
    update = jax.jit(optimizer.update)
    x = params(dtype=dtype)
    state, opt_state = balancer.init(x), optimizer.init(x)
    path, states = [], []
    for _ in range(steps):
        _, grad, state = route(state, x)
        updates, opt_state = update(grad, opt_state, x)
        x = optax.apply_updates(x, updates)
        path.append(flat(x))
        states.append(state)
    return np.array(path), states


@pytest.mark.parametrize("decay", later([0.9, 0.6, 0.0], soon=[0.6]))
def test_with_adam_behind_it_conflict_free_is_m_config(decay):
    expected = m_config(20, 0.1, decay)
    assert np.linalg.norm(expected[-1] - START) > 0.5
    with jax.enable_x64(True):
        balancer = jaxmtl.in_turn(jaxmtl.conflict_free(num_tasks=T), decay=decay)
        path, _ = run(balancer, optax.adam(0.1, b1=decay), 20, jnp.float64)
        np.testing.assert_allclose(path, expected, rtol=1e-9, atol=1e-9)
    balancer = jaxmtl.in_turn(jaxmtl.conflict_free(num_tasks=T), decay=decay)
    path, _ = run(balancer, optax.adam(0.1, b1=decay), 20)
    np.testing.assert_allclose(path, expected, atol=2e-3)


METHODS = {
    "equal": lambda: jaxmtl.equal(num_tasks=T),
    "mgda": lambda: jaxmtl.mgda(num_tasks=T),
    "upgrad": lambda: jaxmtl.upgrad(num_tasks=T),
    "nash_mtl": lambda: jaxmtl.nash_mtl(num_tasks=T),
    "pcgrad": lambda: jaxmtl.pcgrad(0, num_tasks=T),
    "gls": lambda: jaxmtl.gls(num_tasks=T),
    "gradnorm": lambda: jaxmtl.gradnorm(T),
    "trimmed_mean": lambda: jaxmtl.trimmed_mean(1, num_tasks=T),
    "every": lambda: jaxmtl.every(jaxmtl.normalize(num_tasks=T), 2),
    "shared": lambda: jaxmtl.on_shared(jaxmtl.mgda(num_tasks=T), {"a": True, "b": False}),
}


@pytest.mark.parametrize("name", later(METHODS, soon=["gradnorm", "shared"]))
def test_the_averaged_update_is_the_method_on_the_moments(name):
    """Of any method, which sees each loss as it was at the task's last turn."""
    inner, decay, moving = METHODS[name](), 0.8, np.zeros((T, P))
    balancer = jaxmtl.in_turn(inner, decay=decay)
    back = optax.ema(decay, debias=True)
    route, ask = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer)), jax.jit(inner.update)
    x = params()
    state, alone, averages = balancer.init(x), inner.init(x), back.init(x)
    known, counts = np.ones(T), np.zeros(T)
    for step in range(2 * T + 1):
        point, i = flat(x), step % T
        losses, grad, state = route(state, x)
        counts[i] += 1
        known[i] = np.sum((ROOTS[i] @ (point - CENTRES[i])) ** 2) / 2
        moving[i] = decay * moving[i] + (1 - decay) * gradient(i, point)
        moments = moving / np.maximum(1 - decay**counts, 1e-9)[:, None]
        stack = jax.vmap(params)(jnp.asarray(moments, jnp.float32))
        direction, alone = ask(
            stack, alone, losses=jnp.asarray(known, jnp.float32), active=counts > 0
        )
        averaged, averages = back.update(grad, averages)
        length = np.linalg.norm(flat(direction))
        np.testing.assert_allclose(flat(averaged), flat(direction), rtol=0, atol=1e-4 * length)
        np.testing.assert_allclose(state.task_weights, alone.task_weights, rtol=1e-4, atol=1e-6)
        named = [losses[key] for key in ("c", "m", "z")]
        np.testing.assert_allclose(named, np.where(counts > 0, known, np.inf), rtol=1e-5)
        x = jax.tree.map(lambda p, g: p - 0.01 * g / (1 + jnp.abs(g)), x, grad)


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize("name", later(["conflict_free", "gradnorm"], soon=["gradnorm"]))
def test_stacked_gradients_give_the_same_bits_and_other_rows_are_not_read(name):
    inner = {"gradnorm": lambda: jaxmtl.gradnorm(T)}.get(
        name, lambda: jaxmtl.conflict_free(num_tasks=T)
    )
    balancer, x = jaxmtl.in_turn(inner()), params()
    route = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
    update = jax.jit(balancer.update)
    one = [jax.jit(jax.grad(lambda x, k=k: losses_fn(x)[k])) for k in ("c", "m", "z")]
    state = other = balancer.init(x)
    for step in range(2 * T):
        losses, expected, state = route(state, x)
        turn = step % T
        grads = jax.tree.map(
            lambda leaf, turn=turn: jnp.full((T, *leaf.shape), jnp.nan).at[turn].set(leaf),
            one[turn](x),
        )
        now = {key: loss if n == turn else jnp.array(jnp.nan) for n, (key, loss) in
               enumerate(sorted(losses.items()))}  # fmt: skip
        updates, other = update(grads, other, x, losses=now)
        assert_same(updates, expected)
        assert_same(other, state)
        x = optax.apply_updates(x, jax.tree.map(lambda g: -0.01 * g, expected))


def counted(fun, counts, number):
    """The same loss, its forward passes counted where they are run."""

    @jax.custom_vjp
    def mark(x):
        def count(x):
            counts[number] += 1
            return x

        return jax.pure_callback(count, jax.ShapeDtypeStruct((), x.dtype), x)

    mark.defvjp(lambda x: (mark(x), ()), lambda _, cotangent: (cotangent,))
    return mark(fun)


def test_a_step_evaluates_one_loss_and_makes_no_stack():
    counts = [0] * T

    def losses(x):
        return [counted(loss, counts, n) for n, loss in enumerate(losses_fn(x).values())]

    balancer, x = jaxmtl.in_turn(jaxmtl.mgda(num_tasks=T)), params()
    route = jax.jit(jaxmtl.value_and_balanced_grad(losses, balancer))
    state = balancer.init(x)
    for step in range(2 * T):
        _, _, state = jax.block_until_ready(route(state, x))
        assert sum(counts) == step + 1
    assert counts == [2] * T
    assert route._cache_size() == 1


def test_a_broken_step_leaves_the_turn_and_says_whose_it_is():
    balancer = jaxmtl.report_only(jaxmtl.in_turn(jaxmtl.mgda(num_tasks=T)))
    route = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
    x = params()
    _, _, state = route(balancer.init(x), x)
    losses, grad, broken = route(state, x, jnp.nan)
    assert np.all(np.isnan(as_vector(grad)))
    assert np.isnan(losses["m"])
    assert np.isfinite(losses["c"])
    assert_same(broken._replace(report=()), state._replace(report=()))
    np.testing.assert_array_equal(broken.report.broken_steps, [0, 1, 0])
    _, grad, state = route(broken, x)
    assert np.all(np.isfinite(as_vector(grad)))
    np.testing.assert_array_equal(state.preparation.seen, [1, 1, 0])


def test_an_absent_task_misses_its_turn_and_its_moment_stays():
    balancer = jaxmtl.in_turn(jaxmtl.equal(num_tasks=T), decay=0.5)
    route = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
    x = params()
    state = balancer.init(x)
    everyone = jnp.ones(T, bool)
    for _ in range(T):
        _, _, state = route(state, x, active=everyone)
    losses, _, absent = route(state, params(START + 1), active=everyone.at[0].set(False))
    assert_same(absent.preparation.moments, state.preparation.moments)
    assert losses["c"] == state.preparation.losses[0]
    np.testing.assert_allclose(absent.task_weights, 1 / T)
    assert absent.preparation.finite_steps == T + 1
    # One that never came is absent from the balance too.
    none, grads = balancer.init(x), jax.vmap(params)(jnp.ones((T, P)))
    active = {"c": False, "m": True, "z": True}
    updates, none = balancer.update(grads, none, active=active)
    assert np.all(as_vector(updates) == 0)
    _, none = balancer.update(grads, none, active=active)
    np.testing.assert_array_equal(none.task_weights, [0, 1, 0])


def test_a_saved_state_goes_on_with_the_same_bits_donated_too():
    balancer = jaxmtl.in_turn(jaxmtl.pcgrad(3, num_tasks=T))
    route = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer), donate_argnums=0)
    x = params()
    state = balancer.init(x)
    for _ in range(T + 1):
        _, _, state = route(state, x)
    file = io.BytesIO()
    np.savez(file, *jax.tree.leaves(state))
    file.seek(0)
    loaded = np.load(file)
    leaves = [jnp.asarray(loaded[name]) for name in loaded.files]
    again = jax.tree.unflatten(jax.tree.structure(balancer.init(x)), leaves)
    for _ in range(T):
        _, expected, state = route(state, x)
        _, grad, again = route(again, x)
        assert_same(grad, expected)
    assert_same(again, state)


def test_combinators_around_it_act_on_the_balancer_within():
    inner = jaxmtl.mgda(num_tasks=T)
    around = jaxmtl.smooth(jaxmtl.every(jaxmtl.in_turn(inner, decay=0.7), 2), 0.5)
    within = jaxmtl.in_turn(jaxmtl.smooth(jaxmtl.every(inner, 2), 0.5), decay=0.7)
    paths = [run(balancer, optax.sgd(1e-3), 5)[0] for balancer in (around, within)]
    np.testing.assert_array_equal(*paths)


def test_auxiliary_data_types_and_eager_mode():
    def with_aux(x, scale):
        losses = {name: loss.astype(jnp.bfloat16) for name, loss in losses_fn(x).items()}
        return losses, {"scale": scale, "name": "text"}

    balancer = jaxmtl.in_turn(jaxmtl.normalize(num_tasks=T))
    route = jaxmtl.value_and_balanced_grad(with_aux, balancer, has_aux=True)
    x = params(dtype=jnp.bfloat16)
    state = balancer.init(x)
    for _ in range(2):
        (losses, aux), grad, new = route(state, x, jnp.ones(2))
        assert list(losses) == ["z", "c", "m"]
        assert {loss.dtype for loss in losses.values()} == {jnp.dtype(jnp.bfloat16)}
        assert aux["name"] == "text"
        assert {leaf.dtype for leaf in jax.tree.leaves(grad)} == {jnp.dtype(jnp.bfloat16)}
        jitted = jax.jit(lambda *args: route(*args)[1:])
        expected, _ = jitted(state, x, jnp.ones(2))
        assert relative_error(as_vector(grad), as_vector(expected)) < 0.02
        state = new
    assert {leaf.dtype for leaf in jax.tree.leaves(state.preparation.moments)} == {
        jnp.dtype(jnp.float32)
    }


def test_one_array_of_losses_in_a_scan_of_tuples():
    balancer = jaxmtl.in_turn(jaxmtl.equal(num_tasks=2), decay=0.0)
    route = jaxmtl.value_and_balanced_grad(
        lambda x, y: jnp.stack([jnp.sum(x**2), jnp.sum(y)]), balancer, argnums=(0, 1)
    )
    args = jnp.ones(2), jnp.ones(3)
    state = balancer.init(args)

    def step(state, _):
        losses, grad, state = route(state, *args)
        return state, (losses, grad)

    _, (losses, grads) = jax.jit(lambda s: jax.lax.scan(step, s, None, length=3))(state)
    np.testing.assert_array_equal(losses, [[2, np.inf], [2, 3], [2, 3]])
    np.testing.assert_allclose(grads[0][:, 0], [2, 1, 1])
    np.testing.assert_allclose(grads[1][:, 0], [0, 0.5, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxmtl.in_turn(jaxmtl.mgda()), "in_turn keeps a moment for each task"),
        (
            lambda: jaxmtl.in_turn(jaxmtl.mgda(num_tasks=2), decay=1.0),
            "decay must be a number from",
        ),
        (lambda: jaxmtl.in_turn(jaxmtl.modo(2)), "gradients of all tasks on two further batches"),
        (
            lambda: jaxmtl.skip_broken(jaxmtl.in_turn(jaxmtl.mgda(num_tasks=2))),
            "remove skip_broken",
        ),
        (
            lambda: jaxmtl.in_turn(jaxmtl.in_turn(jaxmtl.mgda(num_tasks=2))),
            "already takes its tasks in turn",
        ),
        (
            lambda: jaxmtl.value_and_balanced_grad(
                losses_fn, jaxmtl.in_turn(jaxmtl.mgda(num_tasks=T)), memory="lean"
            ),
            "works on the stacked gradients themselves",
        ),
        (
            lambda: jaxmtl.value_and_features_grad(
                max, max, jaxmtl.in_turn(jaxmtl.mgda(num_tasks=T))
            ),
            "gradients of features belong to a batch",
        ),
        (
            lambda: jaxmtl.in_turn(jaxmtl.gls(num_tasks=2)).update(
                jnp.eye(2), jaxmtl.in_turn(jaxmtl.gls(num_tasks=2)).init(jnp.zeros(2))
            ),
            "reads the losses, but the argument losses is missing",
        ),
        (
            lambda: jaxmtl.in_turn(jaxmtl.gls(num_tasks=2)).update(
                jnp.eye(2), jaxmtl.gls(num_tasks=2).init(jnp.zeros(2)), losses=jnp.ones(2)
            ),
            "made by another method: it holds no moments",
        ),
        (
            lambda: jaxmtl.value_and_balanced_grad(
                losses_fn, jaxmtl.in_turn(jaxmtl.equal(num_tasks=2))
            )(jaxmtl.in_turn(jaxmtl.equal(num_tasks=2)).init(params()), params()),
            "built for 2 tasks, but received 3",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
