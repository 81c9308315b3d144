"""FAMO against the authors' algorithm, written anew in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from jaxmtl.losses.famo import FAMOState, famo, famo_after_step

pytestmark = pytest.mark.usefixtures("quick_compiler")

RNG = np.random.default_rng(0)
MATRICES = RNG.normal(size=(3, 4, 4)) * np.array([0.3, 1.0, 3.0]).reshape(3, 1, 1)
TARGETS = RNG.normal(size=(3, 4))
NOISE = 0.3 * RNG.normal(size=(150, 3, 4))
FLOOR = np.array([0.5, 0.1, 2.0])
START = RNG.normal(size=4)


def losses_fn(x, noise):
    """Three least squares of very different scales, with targets that change at every step."""
    away = x[None] - TARGETS.astype(x.dtype) - noise
    errors = jnp.einsum("tij,tj->ti", MATRICES.astype(x.dtype), away)
    return jnp.sum(errors**2, axis=1) + FLOOR.astype(x.dtype)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


class Reference:
    """z = softmax(xi), Adam as PyTorch has it: the decay is added to the gradient."""

    def __init__(self, bounds):
        self.xi, self.m, self.v, self.t = np.zeros(3), np.zeros(3), np.zeros(3), 0
        self.bounds = bounds

    def weights(self, losses):
        shares = softmax(self.xi) / (losses - self.bounds)
        return shares / shares.sum()

    def learn(self, before, after):
        fell = np.log(before - self.bounds) - np.log(after - self.bounds)
        z = softmax(self.xi)
        grad = (np.diag(z) - np.outer(z, z)) @ fell + 1e-3 * self.xi
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * grad
        self.v = 0.999 * self.v + 0.001 * grad**2
        step = self.m / (1 - 0.9**self.t) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)
        self.xi = self.xi - 0.025 * step


def evaluate(x, noise):
    errors = np.stack([m @ (x - t - n) for m, t, n in zip(MATRICES, TARGETS, noise, strict=True)])
    grads = np.stack([2 * m.T @ e for m, e in zip(MATRICES, errors, strict=True)])
    return np.sum(errors**2, axis=1) + FLOOR, grads


def simulate(exact, bounds):
    famo, x, history, last = Reference(bounds), START, [], None
    for noise in NOISE:
        losses, grads = evaluate(x, noise)
        if last is not None and not exact:
            famo.learn(last, losses)
        weights, last = famo.weights(losses), losses
        history.append((x, weights, famo.xi))
        x = x - 0.05 * weights @ grads
        if exact:
            famo.learn(losses, evaluate(x, noise)[0])
    return [np.array(column) for column in zip(*history, strict=True)]


def train(exact, bounds, dtype):
    optimizer = optax.chain(famo(3, lower_bounds=bounds), optax.sgd(0.05))

    def step(carry, noise):
        x, state = carry
        losses, grads = jaxmtl.value_and_task_grads(losses_fn)(x, noise)
        updates, state = optimizer.update(grads, state, x, losses=losses)
        new = optax.apply_updates(x, updates)
        seen = x, state[0].task_weights, state[0].method.logits
        if exact:
            state = famo_after_step(state, losses_fn(new, noise))
        return (new, state), seen

    start = jnp.asarray(START, dtype)
    _, seen = jax.lax.scan(step, (start, optimizer.init(start)), jnp.asarray(NOISE, dtype))
    return [np.asarray(column) for column in seen]


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "next batch"])
@pytest.mark.parametrize("bounds", [np.zeros(3), 0.9 * FLOOR], ids=["zero", "bounds"])
def test_it_is_the_published_algorithm(exact, bounds):
    expected = simulate(exact, bounds)
    assert np.max(np.ptp(expected[2], axis=1)) > 0.1  # the logits have moved apart
    with jax.enable_x64(True):
        for found, wanted in zip(train(exact, bounds, jnp.float64), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-9)


def test_float32_follows_float64():
    expected, found = simulate(True, np.zeros(3)), train(True, None, jnp.float32)
    np.testing.assert_allclose(found[1][:40], expected[1][:40], atol=1e-3)


def test_the_two_forms_differ():
    assert np.max(np.abs(simulate(True, np.zeros(3))[1] - simulate(False, np.zeros(3))[1])) > 0.01


def slope(xi, fell):
    """The derivative of <softmax(xi), fell> by central differences."""
    steps = 1e-5 * np.eye(len(xi))
    return np.array([(softmax(xi + h) - softmax(xi - h)) @ fell / 2e-5 for h in steps])


def run(steps, **options):
    """Logits and weights under gradient descent on xi; a step is losses, mask, recorded or None."""
    balancer = famo(3, **{"optimizer": optax.sgd(1.0), **options})
    state, seen = balancer.init(jnp.zeros(3)), []
    for losses, active, after in steps:
        updates, state = balancer.update(
            jnp.eye(3), state, losses=jnp.array(losses), active=jnp.array(active, bool)
        )
        seen.append((np.asarray(state.method.logits), np.asarray(updates)))
        if after is not None:
            state = famo_after_step(state, jnp.array(after))
    return seen, state


ALL = [1, 1, 1]


def test_a_recorded_task_learns_once_though_it_is_absent_next():
    first = ([1.0, 2.0, 4.0], ALL, [0.5, 1.5, 4.0])
    seen, _ = run([first, ([9.0, np.nan, 9.0], [1, 0, 1], None), ([3.0, 5.0, 9.0], ALL, None)])
    xi = -slope(np.zeros(3), np.log([2, 2 / 1.5, 1]))
    np.testing.assert_allclose(seen[1][0], xi, atol=1e-6)
    weights = softmax(xi[[0, 2]])
    np.testing.assert_allclose(seen[1][1], [weights[0], 0, weights[1]], atol=1e-6)
    xi[[0, 2]] -= slope(xi[[0, 2]], np.log([3, 1]))
    np.testing.assert_allclose(seen[2][0], xi, atol=1e-6)


def test_an_unrecorded_task_learns_when_it_is_back():
    seen, _ = run(
        [
            ([1.0, 2.0, 4.0], ALL, None),
            ([0.5, np.nan, 5.0], [1, 0, 1], None),
            ([0.2, 1.0, 5.0], ALL, None),
        ]
    )
    pair = -slope(np.zeros(2), np.log([2, 4 / 5]))
    np.testing.assert_allclose(seen[1][0], [pair[0], 0, pair[1]], atol=1e-6)
    xi = np.array([pair[0], 0, pair[1]])
    xi = xi - slope(xi, np.log([0.5 / 0.2, 2.0, 1.0]))
    np.testing.assert_allclose(seen[2][0], xi, atol=1e-6)


def test_what_is_not_finite_is_not_recorded():
    steps = [([1.0, 2.0, 4.0], ALL, [np.nan, 1.0, np.inf]), ([0.5, 3.0, 3.0], ALL, None)]
    xi = -slope(np.zeros(3), np.log([2, 2, 4 / 3]))
    seen, state = run(steps)
    np.testing.assert_allclose(seen[1][0], xi, atol=1e-6)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


def test_a_record_is_used_once_and_is_not_overwritten():
    """After a step that was skipped, what is recorded belongs to no step that the state knows."""
    balancer = famo(3, optimizer=optax.sgd(1.0))
    _, state = balancer.update(jnp.eye(3), balancer.init(jnp.zeros(3)), losses=jnp.ones(3))
    state = famo_after_step(state, jnp.array([0.5, 1.0, 1.0]))
    broken = jnp.array([1.0, jnp.nan, 1.0])
    _, skipped = balancer.update(jnp.eye(3), state, losses=broken)
    skipped = famo_after_step(skipped, jnp.array([7.0, 8.0, 9.0]))
    assert jax.tree.all(jax.tree.map(np.array_equal, skipped, state))
    _, state = balancer.update(jnp.eye(3), state, losses=jnp.ones(3))
    assert not np.any(state.method.recorded)
    xi = np.asarray(state.method.logits)
    np.testing.assert_allclose(xi, -slope(np.zeros(3), np.log([2, 1, 1])), atol=1e-6)
    _, state = balancer.update(jnp.eye(3), state, losses=jnp.ones(3))
    np.testing.assert_array_equal(state.method.logits, xi)


def test_before_the_first_step_nothing_is_recorded():
    state = famo(3).init(jnp.zeros(3))
    recorded = famo_after_step(state, jnp.ones(3))
    assert jax.tree.all(jax.tree.map(np.array_equal, recorded, state))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_unit_of_the_losses_does_not_matter(scale):
    steps = [([1.0, 2.0, 4.0], ALL, [0.5, 1.5, 4.0]), ([0.4, 1.2, 3.0], ALL, None)]
    scaled = [(np.multiply(l, scale), a, None if r is None else np.multiply(r, scale))
              for l, a, r in steps]  # fmt: skip
    for found, expected in zip(run(scaled)[0], run(steps)[0], strict=True):
        np.testing.assert_allclose(np.array(found), np.array(expected), atol=2e-5)


def test_zero_and_negative_losses_count_by_size():
    seen, _ = run([([0.0, -2.0, 4.0], ALL, [1.0, 1.0, 0.0]), ([0.0, 0.0, 0.0], ALL, None)])
    np.testing.assert_allclose(seen[0][1], [0, 2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_array_equal(seen[1][1], 0)
    assert np.all(np.isfinite(seen[1][0]))
    seen, _ = run([([3.0, 1.0, 4.0], ALL, None)], lower_bounds=[2.0, 2.0, 4.0])
    np.testing.assert_allclose(seen[0][1], [0.5, 0.5, 0], rtol=1e-6)


def test_many_hostile_steps_stay_finite_in_eager_mode():
    hostile = RNG.choice([0.0, -1.0, 1e-30, 2e-38, 1.0, 1e30, 3e38], size=(30, 3))
    balancer = famo(3)
    state = balancer.init(jnp.zeros(3))
    with jax.debug_nans(True):
        for t, losses in enumerate(hostile.astype(np.float32)):
            active = np.array([t % 3 > 0, t % 5 > 0, t % 7 > 0]) & (t % 11 > 0)
            updates, state = balancer.update(jnp.eye(3), state, losses=losses, active=active)
            state = famo_after_step(state, hostile[-t].astype(np.float32))
            assert np.all(np.isfinite(updates))
            assert np.all(np.asarray(updates) >= 0)
            assert np.sum(updates) == pytest.approx(float(np.any(active & (losses != 0))), abs=1e-5)
    assert np.all(np.isfinite(state.method.logits))


def containers(balancer):
    labels = {"a": "one", "b": "two"}
    return {
        "alone": balancer,
        "chain": optax.chain(optax.identity(), balancer, optax.adam(0.1)),
        "named_chain": optax.named_chain(("balance", balancer), ("adam", optax.adam(0.1))),
        "inject": optax.inject_hyperparams(famo, static_args=("num_tasks",))(num_tasks=2),
        "partition": optax.partition({"one": balancer, "two": balancer}, labels),
    }


@pytest.mark.parametrize("name", containers(famo(2)))
def test_the_state_is_found_wherever_it_is(name):
    optimizer = containers(famo(2))[name]
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    grads = {"a": jnp.eye(2), "b": jnp.eye(2)}
    state = optimizer.init(params)
    _, state = optimizer.update(grads, state, params, losses=jnp.array([1.0, 2.0]))
    new = jax.jit(famo_after_step)(state, {"x": jnp.float32(0.5), "y": 1.5})
    found = [
        leaf
        for leaf in jax.tree.leaves(new, is_leaf=lambda node: isinstance(node, FAMOState))
        if isinstance(leaf, FAMOState)
    ]
    assert len(found) == (2 if name == "partition" else 1)
    for famo_state in found:
        np.testing.assert_array_equal(famo_state.after, [0.5, 1.5])
        assert np.all(famo_state.recorded)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    changed = jax.tree.leaves(jax.tree.map(lambda a, b: not np.array_equal(a, b), new, state))
    assert sum(changed) == 2 * len(found)


def test_messages():
    with pytest.raises(ValueError, match="No state of famo was found in opt_state"):
        famo_after_step(optax.adam(0.1).init(jnp.zeros(2)), jnp.ones(2))
    with pytest.raises(ValueError, match="losses holds 3 values, but there are 2 tasks"):
        famo_after_step(famo(2).init(jnp.zeros(2)), jnp.ones(3))
    with pytest.raises(ValueError, match="lower_bounds holds 3 values, but there are 2 tasks"):
        famo(2, lower_bounds=[0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="optimizer must be an optax transformation"):
        famo(2, optimizer=0.1).init(jnp.zeros(2))
    named = famo(2, lower_bounds={"a": 0.0, "b": 0.0})
    with pytest.raises(ValueError, match="same names"):
        named.update(jnp.eye(2), named.init(jnp.zeros(2)), losses={"a": 1.0, "c": 1.0})
