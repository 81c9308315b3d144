"""Methods that solve for their weights, against the reference numbers and float64 solutions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxmtl
from tests.crosschecks import exact
from tests.references import J2, J3, gradients, relative_error
from tests.stages import later

pytestmark = pytest.mark.usefixtures("quick_compiler")

A, B = 0.5914611522, 0.4070714829


@functools.cache
def jitted(balancer):
    return jax.jit(balancer.update)


IMTL_G, CONFLICT_FREE, UPGRAD = jaxmtl.imtl_g(), jaxmtl.conflict_free(), jaxmtl.upgrad()


def direction(balancer, j):
    grads, state = jnp.asarray(j, jnp.float32), balancer.init(jnp.zeros(j.shape[1]))
    updates, state = jitted(balancer)(grads, state)
    return np.asarray(updates, np.float64), state


@pytest.mark.parametrize(
    ("make", "j", "weights"),
    [
        (lambda t: jaxmtl.upgrad(num_tasks=t), J2, [10 / 9, 15 / 19]),
        (lambda t: jaxmtl.upgrad([0.5, 0.5]), J2, [10 / 9, 15 / 19]),
        (lambda t: jaxmtl.upgrad(num_tasks=t), J3, [0.7932910651, 0.5997480089, 0.8614711877]),
        (lambda t: jaxmtl.dualproj(num_tasks=t), J2, [11 / 18, 1 / 2]),
        (lambda t: jaxmtl.dualproj(num_tasks=t), J3, [1 / 3, 1 / 3, 0.3511111111]),
        (lambda t: jaxmtl.cagrad(num_tasks=t), J2, [0.7041241452, 0.5]),
        (lambda t: jaxmtl.cagrad(1.0, num_tasks=t), J2, [1.2, 0.8]),
        (lambda t: jaxmtl.cagrad(num_tasks=t), J3, [0.487026942, 0.333333333, 0.520990915]),
        (lambda t: jaxmtl.cagrad(1.0, num_tasks=t), J3, [0.738052752, 0.478926101, 0.783021149]),
        (lambda t: jaxmtl.cagrad(1.0, rescale="1+c", num_tasks=t), J2, [0.6, 0.4]),
        (lambda t: jaxmtl.cagrad(0.5, rescale="1+c^2", num_tasks=t), J2, [0.56329931616, 0.4]),
        (lambda t: jaxmtl.nash_mtl(num_tasks=t), J2, [A, B]),
        (lambda t: jaxmtl.fairgrad(1.0, num_tasks=t), J2, [A, B]),
        (lambda t: jaxmtl.imtl_g(num_tasks=t), J2, [0.5923303169, 0.4076696831]),
        (lambda t: jaxmtl.conflict_free(num_tasks=t), J2, [1.2264831573, 0.8441236008]),
    ],
)
def test_reference_numbers(make, j, weights):
    d, state = direction(make(len(j)), j)
    np.testing.assert_allclose(state.task_weights, weights, rtol=1e-5)
    assert relative_error(d, np.array(weights) @ j) < 1e-5


def test_imtl_g_does_not_ascend_where_the_weights_sum_to_less_than_zero():
    j = np.array([[-4.298, -14.707, 20.405], [1.943, -2.659, 2.505], [13.307, -3.959, -9.211]])
    d, _ = direction(jaxmtl.imtl_g(), j)
    np.testing.assert_allclose(j @ d, [10.6, 1.7, 7.0], atol=0.05 * 10)
    assert np.all(j @ d > 0)


@functools.partial(jax.jit, static_argnums=0)
def _update_with(name, number, grads):
    balancer = getattr(jaxmtl, name)(number, num_tasks=len(grads))
    return balancer.update(grads, balancer.init(grads[0]))


def with_number(name, number, j):
    """The update of a method whose number is an argument of the program: compiled once for all."""
    d, state = _update_with(name, jnp.float32(number), jnp.asarray(j, jnp.float32))
    return np.asarray(d, np.float64), state


def fair_reference(j, a):
    """Roots of G w = w^(-1/a), found in the logarithms of the weights."""
    norms = np.linalg.norm(j, axis=1)
    cos = (j / norms[:, None]) @ (j / norms[:, None]).T

    def mismatch(y):
        product = np.maximum(cos @ np.exp(y), 1e-12)
        return y + np.log(product) - (1 - 1 / a) * (y - np.log(norms))

    start = (1 - a) / (1 + a) * -np.log(norms)
    found = scipy.optimize.root(
        mismatch, start, method="lm", options={"ftol": 1e-15, "xtol": 1e-15}
    )
    return np.exp(found.x) / norms, np.abs(mismatch(found.x)).max()


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize("num", later([2, 3, 8, 16], soon=[3, 16]))
def test_fair_weights_are_stationary_and_right(num, spread, alpha):
    for seed in range(3):
        j = gradients(seed, num, 200, spread, kind="conflicting")
        d, state = with_number("fairgrad", alpha, j)
        w = np.asarray(state.task_weights, np.float64)
        balance = w ** (1 / alpha) * (j @ (w @ j))
        assert balance.max() / balance.min() <= 1 + 1e-4
        np.testing.assert_allclose(balance, 1, rtol=1e-4)
        assert state.method.residual < 1e-4
        assert state.method.iterations < 50
        expected, error = fair_reference(j, alpha)
        if error < 1e-10:  # the reference found its root
            assert relative_error(d, expected @ j) < 1e-5


@pytest.mark.parametrize("alpha", [0.1, 10.0])
def test_fair_weights_of_parallel_gradients(alpha):
    """g_i = l_i g with ||g|| = 1 has w_i = (l_i W)^(-a), W^(1+a) = sum_i l_i^(1-a)."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        lengths, g = 10 ** rng.uniform(-1, 0, size=20), exact.units(rng.normal(size=(1, 100)))[0]
        d, state = direction(jaxmtl.fairgrad(alpha, num_tasks=20), np.outer(lengths, g))
        total = np.sum(lengths ** (1 - alpha)) ** (1 / (1 + alpha))
        assert relative_error(d, total * g) < 1e-5
        np.testing.assert_allclose(state.task_weights, (lengths * total) ** -alpha, rtol=1e-4)
        assert state.method.residual < 1e-4


def test_a_report_out_of_range_breaks_no_step():
    """Traced, alpha is not checked: weights are numbers, and the residual says they are wrong."""

    @jax.jit
    def step(alpha, grads):
        balancer = jaxmtl.fairgrad(alpha, num_tasks=20)
        return balancer.update(grads, balancer.init(jnp.zeros(100)))

    j = np.geomspace(1e-3, 1, 20)[:, None] * np.random.default_rng(0).normal(size=(1, 100))
    both_ways = j * np.resize([1, -1], (20, 1))  # no direction serves all, whatever alpha
    for grads, alphas in [(j, (1e-3, 0.02, 50.0, 1e4)), (both_ways, (1e-3, 0.1, 1.0, 1e4))]:
        for alpha in alphas:
            d, state = step(alpha, jnp.asarray(grads, jnp.float32))
            assert np.all(np.isfinite(d))
            assert np.all(np.isfinite(state.task_weights))
            assert state.method.residual > 1e-3


def test_nash_has_its_length_at_any_size():
    balancer = jaxmtl.nash_mtl()
    for exponent in (-12, 0, 12):
        d, _ = direction(balancer, gradients(1, 5, 40, spread=2) * 10.0**exponent)
        np.testing.assert_allclose(np.linalg.norm(d), np.sqrt(5), rtol=1e-5)


def test_nash_without_a_solution_says_so():
    """Opposite gradients: no direction serves both, and the weights grow without bound."""
    d, state = direction(jaxmtl.nash_mtl(num_tasks=2), np.array([[1.0, 2.0], [-1.0, -2.0]]))
    assert np.all(np.isfinite(d))
    assert state.method.residual > 0.1


@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize("num", later([2, 3, 8, 16], soon=[3, 16]))
def test_equal_cosine_methods(num, spread):
    for seed in range(5):
        j = gradients(seed, num, 200, spread, kind="conflicting")
        norms = np.linalg.norm(j, axis=1)
        unit = j / norms[:, None]
        x = np.linalg.solve(unit @ unit.T, np.ones(num))
        d, _ = direction(IMTL_G, j)
        w = x / norms
        assert relative_error(d, w @ j / abs(w.sum())) < 1e-5
        u = x @ unit / np.linalg.norm(x @ unit)
        d, _ = direction(CONFLICT_FREE, j)
        assert relative_error(d, (j @ u).sum() * u) < 1e-5


@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize("num", later([2, 3, 8, 16], soon=[3, 16]))
def test_upgrad_against_non_negative_least_squares(num, spread):
    for seed in range(3):
        j = gradients(seed, num, 200, spread, kind="conflicting")
        norms = np.linalg.norm(j, axis=1)
        unit = j / norms[:, None]
        expected = np.zeros(200)
        for i in range(num):
            z, _ = scipy.optimize.nnls(unit.T, -j[i] / num, maxiter=10_000)
            expected += j[i] / num + z @ unit
        d, state = direction(UPGRAD, j)
        assert relative_error(d, expected) < 1e-5
        assert np.min(j @ d / norms) >= -1e-5 * np.linalg.norm(d)
        assert state.method.residual < 1e-5


@pytest.mark.parametrize("c", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize("num", later([2, 3, 8, 16], soon=[3, 16]))
def test_cagrad_closes_its_duality_gap(num, spread, c):
    """The least progress within the ball equals its convex dual, in float64 on the gradients."""
    for seed in range(5):
        j = gradients(seed, num, 200, spread, kind="conflicting")
        d, state = with_number("cagrad", c, j)
        mean = j.mean(axis=0)
        radius = c * np.linalg.norm(mean)
        np.testing.assert_allclose(
            np.linalg.norm(d - mean), radius, atol=1e-5 * np.linalg.norm(mean)
        )
        u = np.maximum(np.asarray(state.task_weights, np.float64) - 1 / num, 0)
        w = u / u.sum() if c > 0 else np.eye(num)[np.argmin(j @ mean)]
        dual = w @ (j @ mean) + radius * np.linalg.norm(w @ j)
        # What an error of 1e-5 in the update may do to its inner products.
        blur = 1e-5 * np.linalg.norm(d) * np.linalg.norm(j, axis=1).max()
        assert abs(dual - (j @ d).min()) <= blur
        if c >= 1:
            assert np.min(j @ d / np.linalg.norm(j, axis=1)) >= -1e-5 * np.linalg.norm(d)


def test_preferences():
    p = np.array([0.7, 0.2, 0.1])
    d, state = direction(jaxmtl.dualproj(p), np.eye(3))
    np.testing.assert_allclose(d, p, rtol=1e-6)
    d, state = direction(jaxmtl.upgrad({"a": 0.7, "b": 0.2, "c": 0.1}), np.eye(3))
    np.testing.assert_allclose(state.task_weights, p, rtol=1e-6)
    for make in (jaxmtl.upgrad, jaxmtl.dualproj):
        with pytest.raises(ValueError, match="preference holds 2 values, but there are 3 tasks"):
            make([1.0, 1.0], num_tasks=3)
    with pytest.raises(ValueError, match="c must be a number of at least 0"):
        jaxmtl.cagrad(-1.0)
    for alpha in (0.0, -1.0, 0.09, 20.0, float("nan"), "1"):
        with pytest.raises(ValueError, match=r"alpha must be a number from 0\.1 to 10"):
            jaxmtl.fairgrad(alpha)


ZEROS = {
    "dualproj": lambda j, p: p + scipy.optimize.nnls(j.T, -p @ j)[0],
    "upgrad": lambda j, p: sum(x + scipy.optimize.nnls(j.T, -x @ j)[0] for x in np.diag(p)),
    "aligned_mtl": lambda j, p: exact.aligned_mtl(j, preference=p),
    "conflict_free": exact.conflict_free,
}


@pytest.mark.parametrize("name", later(ZEROS, soon=["dualproj"]))
def test_preferences_of_zero(name):
    """GEM's own is one for the task at hand and zero for those remembered."""
    make = getattr(jaxmtl, name)
    for p in ([1.0, 0.0, 0.0], [0.0, 0.3, 0.7]):
        for seed in range(3):
            j = gradients(seed, 3, 40, kind="conflicting")
            d, _ = direction(make(p), j)
            assert relative_error(d, ZEROS[name](j, np.array(p)) @ j) < 1e-5
    with pytest.raises(ValueError, match="preference must be at least 0"):
        make([1.0, -0.1])
    with pytest.raises(ValueError, match="preference must be above 0 for at least one task"):
        make([0.0, 0.0])


@pytest.mark.parametrize("name", ["dualproj", "upgrad"])
@pytest.mark.parametrize("num", [2, 3])
def test_nearly_parallel_gradients_have_a_factor(name, num):
    """Their Gramian is singular up to its own rounding, which the ridge has to exceed."""
    rng = np.random.default_rng(0)
    along = rng.normal(size=(2000, 1, 2)) * rng.normal(size=(2000, num, 1))
    apart = 10 ** rng.uniform(-9, -3, size=(2000, 1, 1)) * rng.normal(size=(2000, num, 2))
    stacks = (along * (1 + apart)).astype(np.float32)
    known = ["-0x1.03b89ap-2 -0x1.519802p-11 0x1.0cb630p-2 0x1.571d20p-11"]
    known += ["-0x1.47381ap-5 0x1.7a6e2p-14 0x1.331c4p+1 -0x1.62c164p-8"]
    stacks[:2, :2] = [np.reshape([float.fromhex(x) for x in j.split()], (2, 2)) for j in known]
    balancer = getattr(jaxmtl, name)(num_tasks=num)
    state = balancer.init(jnp.zeros(2))
    found = jax.jit(jax.vmap(lambda j: balancer.update(j, state)[0]))(jnp.asarray(stacks))
    assert np.all(np.isfinite(found))
