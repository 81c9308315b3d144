"""Weights as the gradients of scalarisations, against complex steps in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit

import jaxmtl
from jaxmtl.losses.cosmos import cosmos
from jaxmtl.losses.pbi import pbi
from jaxmtl.losses.stch import stch
from jaxmtl.losses.tchebycheff import tchebycheff

pytestmark = pytest.mark.usefixtures("quick_compiler")


def weights_of(balancer, losses, active=None, dtype=jnp.float32):
    grads = jnp.eye(len(losses), dtype=dtype)
    updates, _ = balancer.update(grads, balancer.init(grads[0]), losses=losses, active=active)
    return np.asarray(updates, np.float64)


def weights_of_many(make, losses, *arguments):
    """One compiled call for many losses and arguments of ``make``, one a row, in their type."""
    grads = jnp.eye(losses.shape[1], dtype=losses.dtype)

    def weights(losses, *arguments):
        balancer = make(*arguments)
        return balancer.update(grads, balancer.init(grads[0]), losses=losses)[0]

    return np.asarray(jax.jit(jax.vmap(weights))(losses, *arguments), np.float64)


def gradient(function, losses):
    """The derivative by a complex step, exact to rounding."""
    steps = losses + 1e-30j * np.eye(len(losses))
    return np.array([function(row).imag / 1e-30 for row in steps])


def norm(x):
    return np.sqrt(np.sum(x**2))  # analytic, unlike np.linalg.norm


def value_stch(losses, p, z, mu):
    return mu * np.log(np.sum(np.exp(p * (losses - z) / mu)))


def value_tchebycheff(losses, p, z, unused):
    return max(p * (losses - z), key=lambda value: value.real)


def value_pbi(losses, p, z, theta):
    u = p / norm(p)
    d1 = np.sum((losses - z) * u)
    return d1 + theta * norm(losses - z - d1 * u)


def value_cosmos(losses, p, z, beta):
    return np.sum(p * losses) - beta * np.sum(p * losses) / norm(p) / norm(losses)


CASES = {
    "stch": (value_stch, lambda p, z, c: stch(p, mu=c, ideal=z)),
    "tchebycheff": (value_tchebycheff, lambda p, z, c: tchebycheff(p, ideal=z)),
    "pbi": (value_pbi, lambda p, z, c: pbi(p, theta=c, ideal=z)),
    "cosmos": (value_cosmos, lambda p, z, c: cosmos(p, beta=c)),
}
every_case = pytest.mark.parametrize("name", CASES)


@every_case
@pytest.mark.parametrize("num_tasks", [2, 5])
def test_weights_are_the_gradient(name, num_tasks):
    value, make = CASES[name]
    rng = np.random.default_rng(num_tasks)
    losses, z = rng.uniform(0.1, 4, size=(2, 20, num_tasks)) * np.array([1, 0.3]).reshape(2, 1, 1)
    p, c = np.exp(rng.normal(size=(20, num_tasks))), np.exp(rng.normal(1, 1, size=20))
    rows = losses, p, z, c
    expected = np.array(
        [gradient(lambda x, a=a: value(x, *a), l) for l, *a in zip(*rows, strict=True)]
    )
    size = np.linalg.norm(expected, axis=1, keepdims=True)
    single = weights_of_many(make, *(row.astype(np.float32) for row in rows))
    assert np.max(np.abs(single - expected) / size) < 1e-4  # close to the ray, pbi is worst
    with jax.enable_x64(True):
        double = weights_of_many(make, *rows)
    assert np.max(np.abs(double - expected) / size) < 1e-12
    assert name not in ("pbi", "cosmos") or np.any(expected < 0)


@every_case
def test_without_preference_the_present_tasks_count_equally(name):
    value, make = CASES[name]
    losses = np.array([1.0, 7.0, 2.5, 0.5])
    expected = gradient(lambda x: value(x, np.full(4, 0.25), 0, 1.5), losses)
    np.testing.assert_allclose(weights_of(make(None, None, 1.5), losses), expected, rtol=1e-5)
    present = np.array([True, True, False, True])
    reduced = weights_of(make(None, None, 1.5), losses[present])
    masked = weights_of(make(None, None, 1.5), np.where(present, losses, np.nan), present)
    np.testing.assert_allclose(masked[present], reduced, rtol=1e-6)
    assert masked[2] == 0


@every_case
def test_an_absent_task_takes_its_preference_and_ideal_with_it(name):
    _, make = CASES[name]
    losses, present = np.array([1.0, 7.0, 2.5]), np.array([True, False, True])
    p, z = np.array([0.2, 5.0, 0.7]), np.array([0.3, -9.0, 0.1])
    masked = weights_of(make(p, z, 1.5), losses, present)
    expected = weights_of(make(p[present], z[present], 1.5), losses[present])
    np.testing.assert_allclose(masked[present], expected, rtol=1e-6)
    assert masked[1] == 0


@every_case
def test_all_absent_and_all_zero_are_finite_in_eager_mode(name):
    _, make = CASES[name]
    balancer = make(np.array([1.0, 2.0]), np.zeros(2), 1.5)
    state = balancer.init(jnp.zeros(2))
    with jax.debug_nans(True):
        for losses, active in ([[0.0, 0.0], [1, 1]], [[1.0, 2.0], [0, 0]], [[0.0, 3.0], [1, 0]]):
            updates, _ = balancer.update(
                jnp.eye(2), state, losses=jnp.array(losses), active=np.array(active, bool)
            )
            assert np.all(np.isfinite(updates))
            assert np.all(np.asarray(updates)[np.array(active) == 0] == 0)


def test_stch_between_the_maximum_and_the_sum():
    losses, p = np.array([3.0, 1.0, 2.0]), np.array([0.3, 0.5, 0.4])
    maximum = weights_of(tchebycheff(p), losses)
    np.testing.assert_allclose(weights_of(stch(p, mu=1e-3), losses), maximum, atol=1e-7)
    np.testing.assert_allclose(weights_of(stch(p, mu=1e6), losses), p / 3, rtol=1e-5)


@pytest.mark.parametrize("losses", [[1e30, 2e30], [-1e30, -2e30]])
@pytest.mark.parametrize(("mu", "shares"), [(1e-30, (0, 1)), (1e30, (expit(-0.5), expit(0.5)))])
def test_stch_is_centred_before_it_is_divided(losses, mu, shares):
    weights = weights_of(stch([0.5, 0.5], mu=mu), np.array(losses))
    np.testing.assert_allclose(np.sort(weights), 0.5 * np.array(shares), rtol=1e-5)
    assert np.argmax(weights) == np.argmax(losses)


def test_tchebycheff_ties_share_equally_in_any_order():
    losses = np.array([2.0, 1.0, 2.0, 0.5])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]):
        weights = weights_of(tchebycheff(num_tasks=4), losses[order])
        np.testing.assert_allclose(weights, np.array([1 / 8, 0, 1 / 8, 0])[order])
    weights = weights_of(tchebycheff([0.5, 0.25, 0.25]), np.array([1.0, 2.0, 0.5]))
    np.testing.assert_allclose(weights, [0.25, 0.125, 0])


@pytest.mark.parametrize("num_tasks", [1, 3, 16, 200])
def test_on_the_ray_pbi_and_cosmos_see_no_direction_in_the_rounding(num_tasks):
    rng = np.random.default_rng(num_tasks)
    p = np.exp(rng.normal(size=(50, num_tasks))).astype(np.float32)
    losses = p * 10 ** rng.uniform(-20, 20, size=(50, 1)).astype(np.float32)
    expected = p / np.linalg.norm(p.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(weights_of_many(pbi, losses, p), expected, rtol=1e-5)
    np.testing.assert_array_equal(weights_of_many(cosmos, losses, p), p)


def test_pbi_pulls_back_from_next_to_the_ray():
    u, away = np.array([0.6, 0.8]), np.array([0.8, -0.6])
    for distance in (1.0, 1e-1, 1e-2, 1e-4):
        weights = weights_of(pbi([3.0, 4.0], theta=2.0), 7 * u + distance * away)
        np.testing.assert_allclose(weights, u + 2 * away, atol=3e-6 / distance)


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e20, 1e36])
def test_units_of_the_losses(scale):
    losses, p = np.array([3.0, 1.0, 2.0]), np.array([0.3, 0.5, 0.4])
    for make in (tchebycheff, pbi):
        np.testing.assert_allclose(
            weights_of(make(p), losses * scale), weights_of(make(p), losses), rtol=1e-5
        )
    # In float64, whose range the weights do not leave: of <p, L> - beta cos the first is a sum.
    with jax.enable_x64(True):
        base = weights_of(cosmos(p), losses, dtype=jnp.float64) - p
        scaled = weights_of(cosmos(p), losses * scale, dtype=jnp.float64)
    np.testing.assert_allclose(scaled, p + base / scale, rtol=1e-9)


def test_pbi_below_the_ideal_point_goes_on_falling():
    weights = weights_of(pbi([1.0, 1.0], theta=0.0, ideal=[5.0, 5.0]), np.array([1.0, 2.0]))
    np.testing.assert_allclose(weights, 0.5**0.5, rtol=1e-6)


def descend(balancer, rate, steps=3000):
    """Two quadratics in one number; every x between their minima is Pareto-optimal."""

    def step(t, carry):
        x, state = carry
        losses, grads = jnp.array([x**2, (x - 1) ** 2]), jnp.array([2 * x, 2 * (x - 1)])
        update, state = balancer.update(grads, state, losses=losses)
        return x - rate * (1 - t / steps) * update, state

    return jax.lax.fori_loop(0, steps, step, (jnp.float32(0.5), balancer.init(jnp.float32(0))))[0]


@pytest.mark.parametrize(
    ("make", "rate", "expected"),
    [
        (lambda p: stch(p, mu=1e-3), 0.05, lambda p: np.sqrt(p[1]) / np.sum(np.sqrt(p))),
        (tchebycheff, 0.01, lambda p: np.sqrt(p[1]) / np.sum(np.sqrt(p))),
        (pbi, 0.003, lambda p: np.sqrt(p[0]) / np.sum(np.sqrt(p))),
        (lambda p: cosmos(p, beta=100.0), 0.0003, lambda p: np.sqrt(p[0]) / np.sum(np.sqrt(p))),
    ],
    ids=["stch", "tchebycheff", "pbi", "cosmos"],
)
def test_a_front_is_one_vmap_over_preferences(make, rate, expected):
    share = np.linspace(0.15, 0.85, 7)
    front = np.stack([share, 1 - share], axis=1).astype(np.float32)
    found = jax.jit(jax.vmap(lambda p: descend(make(p), rate)))(front)
    np.testing.assert_allclose(found, [expected(p) for p in front], atol=0.01)
    alone = jax.jit(lambda: descend(make(front[2]), rate))()
    np.testing.assert_allclose(found[2], alone, atol=1e-4)


def test_a_preference_drawn_in_each_step_trains_a_conditioned_network():
    """x(p) = sigmoid(a log p_1/p_2 + b) contains the front of the two quadratics: a = -1/2."""
    compiled = []

    @jax.jit
    def step(params, state, key):
        compiled.append(1)
        p = jax.random.dirichlet(key, jnp.array([3.0, 3.0]))
        optimizer = optax.chain(stch(p, mu=1e-2), optax.adam(0.02))

        def losses_fn(params):
            x = jax.nn.sigmoid(params["a"] * jnp.log(p[0] / p[1]) + params["b"])
            return jnp.stack([x**2, (x - 1) ** 2])

        losses, grads = jaxmtl.value_and_task_grads(losses_fn)(params)
        updates, state = optimizer.update(grads, state, params, losses=losses)
        return optax.apply_updates(params, updates), state

    params = {"a": jnp.float32(1.0), "b": jnp.float32(1.0)}
    state = optax.chain(stch([1.0, 1.0]), optax.adam(0.02)).init(params)
    for key in jax.random.split(jax.random.key(0), 600):
        params, state = step(params, state, key)
    assert len(compiled) == 1
    np.testing.assert_allclose([params["a"], params["b"]], [-0.5, 0.0], atol=0.1)


@pytest.mark.parametrize("make", [stch, tchebycheff, pbi, cosmos])
def test_a_preference_can_be_an_injected_hyperparameter(make):
    grads, losses = jnp.eye(2), jnp.array([1.0, 4.0])
    injected = optax.inject_hyperparams(make)(preference=jnp.array([2.0, 3.0]))
    state = injected.init(grads[0])
    updates, state = jax.jit(injected.update)(grads, state, losses=losses)
    np.testing.assert_allclose(updates, weights_of(make([2.0, 3.0]), losses), rtol=1e-6)
    state.hyperparams["preference"] = jnp.array([9.0, 1.0])
    updates, _ = jax.jit(injected.update)(grads, state, losses=losses)
    np.testing.assert_allclose(updates, weights_of(make([9.0, 1.0]), losses), rtol=1e-6)


@pytest.mark.parametrize("make", [stch, tchebycheff, pbi, cosmos])
def test_wrong_preferences_are_refused(make):
    with pytest.raises(ValueError, match=r"preference must be (above|at least) 0"):
        make([-1.0, 1.0])
    if make in (stch, tchebycheff):  # a zero would still take part in the maximum
        with pytest.raises(ValueError, match="preference must be above 0"):
            make([0.0, 1.0])
    else:
        with pytest.raises(ValueError, match="preference must be above 0 for at least one task"):
            make([0.0, 0.0])
    with pytest.raises(ValueError, match="preference holds 2 values, but there are 3 tasks"):
        make([1.0, 2.0], num_tasks=3)
    balancer = make({"a": 1.0, "b": 2.0})
    with pytest.raises(ValueError, match="same names"):
        balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)), losses={"a": 1.0, "c": 1.0})


@pytest.mark.parametrize("make", [stch, tchebycheff, pbi])
def test_wrong_ideal_points_are_refused(make):
    with pytest.raises(ValueError, match="ideal holds 3 values, but there are 2 tasks"):
        make([1.0, 2.0], ideal=[0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="ideal must be finite"):
        make(ideal=[0.0, np.inf])
    with pytest.raises(ValueError, match="a, b in preference; a, c in ideal"):
        make({"a": 1.0, "b": 2.0}, ideal={"a": 0.0, "c": 0.0})
    assert make(ideal={"a": 0.0, "c": 0.0}).weighting.names.names == ("a", "c")
    assert make(ideal=[0.0, 1.0]).weighting.num_tasks == 2


def test_wrong_constants_are_refused():
    with pytest.raises(ValueError, match="mu must be a finite number above 0, but it is 0"):
        stch(mu=0)
    with pytest.raises(ValueError, match="theta must be a number of at least 0, but it is -1"):
        pbi(theta=-1)
    with pytest.raises(ValueError, match="beta must be a number of at least 0, but it is None"):
        cosmos(beta=None)


def test_preferences_of_zero():
    """A corner of the simplex: the ray of the first loss alone."""
    losses = np.array([3.0, 4.0])
    expected = {pbi: [1.0, 5.0], cosmos: [1 - 2 * 16 / 125, 2 * 12 / 125]}
    for make, weights in expected.items():
        np.testing.assert_allclose(
            weights_of(make([1.0, 0.0]), jnp.array(losses)), weights, rtol=1e-6
        )
