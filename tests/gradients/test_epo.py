"""EPO against the paper's programme, solved by SciPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxmtl
from tests.references import J2, gradients, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")


def reference(j, losses, p, tolerance=1e-4):
    """The weights, and which of the two programmes they solve."""
    p = np.asarray(p, float) / np.sum(p)
    gram, rl, num = j @ j.T, p * losses, len(j)
    shares = rl / rl.sum()
    mu = np.sum(shares * np.log(num * shares))
    a = p * (np.log(num * shares) - mu)
    slopes = gram @ a
    bound, objective = np.zeros(num), gram.sum(axis=0)
    if mu > tolerance:
        objective = slopes
        if np.any(slopes > 0):
            bound = np.where(slopes > 0, -np.inf, slopes)
        bound[rl == rl.max()] = 0
    kept = np.isfinite(bound)
    size = np.abs(gram).max()
    found = scipy.optimize.linprog(
        -objective / size,
        A_ub=-gram[kept] / size,
        b_ub=-bound[kept] / size,
        A_eq=np.ones((1, num)),
        b_eq=[1],
        method="highs",
    )
    assert found.status == 0
    return found.x, mu > tolerance, np.any(gram @ found.x < -1e-9 * size)


@functools.cache
def drawn(num):
    """A preference, the first state, and the update, compiled once for all kinds of gradients."""
    p = np.random.default_rng(num).uniform(0.2, 1, size=num)
    balancer = jaxmtl.epo(p)
    return p, balancer.init(jnp.zeros(40)), jax.jit(balancer.update)


@pytest.mark.parametrize("kind", ["gaussian", "conflicting", "aligned"])
@pytest.mark.parametrize("num", [1, 2, 3, 8])
def test_weights_of_several_steps(num, kind):
    (p, state, update), on_ray, ascents = drawn(num), 0, 0
    for seed in range(20):
        # Of different lengths: two of the same make all weights as good, on the ray.
        j = gradients(seed, num, 40, 0.5, kind)
        spread = 1e-3 if seed % 4 == 0 else 1.0
        losses = np.exp(spread * np.random.default_rng(seed).normal(size=num)) / p
        losses = losses.astype(np.float32).astype(float)
        updates, state = update(jnp.float32(j), state, losses=jnp.float32(losses))
        weights, balanced, ascended = reference(j, losses, p.astype(np.float32))
        on_ray, ascents = on_ray + (not balanced), ascents + ascended
        np.testing.assert_allclose(state.task_weights, weights, atol=2e-5)
        assert relative_error(updates, weights @ j) < 2e-5
        assert state.method.residual < 1e-6
    assert on_ray >= 5
    # Controlled ascent is what the method is about: the draws contain it.
    assert ascents > 0 or num == 1 or kind != "conflicting"


def test_two_tasks_by_hand():
    update = jax.jit(jaxmtl.epo(num_tasks=2).update)
    state = jaxmtl.epo(num_tasks=2).init(jnp.zeros(3))
    # G = [[18, -22], [-22, 38]]. Task 1 is the worse one and gets all the weight but what keeps the
    # other loss from rising faster than the balance asks for: -22 w_1 + 38 w_2 = (G a)_2.
    _, found = update(jnp.float32(J2), state, losses=jnp.array([3.0, 1.0]))
    mu = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    rise = -22 * (np.log(1.5) - mu) / 2 + 38 * (np.log(0.5) - mu) / 2
    second = (22 + rise) / 60
    np.testing.assert_allclose(found.task_weights, [1 - second, second], atol=1e-6)
    # On the ray: both fall, the sum 4 w_1 and 16 w_2 as fast as G w >= 0 permits, 18 w_1 = 22 w_2.
    _, found = update(jnp.float32(J2), state, losses=jnp.array([2.0, 2.0]))
    np.testing.assert_allclose(found.task_weights, [22 / 40, 18 / 40], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-30, 1e-6, 1e6, 1e30])
def test_units_of_losses_and_preferences(unit):
    j, losses, p = gradients(0, 4, 10, kind="conflicting"), np.array([3, 1, 2, 0.1]), np.ones(4)

    def weights(losses, p):
        balancer = jaxmtl.epo(p)
        state = balancer.init(jnp.zeros(10))
        return balancer.update(jnp.float32(j), state, losses=jnp.float32(losses))[1].task_weights

    base = weights(losses, p)
    np.testing.assert_allclose(weights(unit * losses, p), base, atol=1e-5)
    np.testing.assert_allclose(weights(losses, unit * p), base, atol=1e-5)


def test_losses_of_zero_and_below_count_as_the_smallest():
    j = gradients(1, 3, 10, kind="conflicting")
    balancer = jaxmtl.epo(num_tasks=3)
    state = balancer.init(jnp.zeros(10))
    for losses in ([1.0, 0.0, 2.0], [1.0, -3.0, 2.0]):
        _, found = balancer.update(jnp.float32(j), state, losses=jnp.array(losses))
        expected, _, _ = reference(
            j, np.array([1.0, 3 * np.finfo(np.float32).eps, 2.0]), np.ones(3)
        )
        np.testing.assert_allclose(found.task_weights, expected, atol=1e-5)
    for losses in ([0.0, 0.0, 0.0], [-1.0, -2.0, -3.0]):
        _, found = balancer.update(jnp.float32(j), state, losses=jnp.array(losses))
        expected, _, _ = reference(j, np.ones(3), np.ones(3))
        np.testing.assert_allclose(found.task_weights, expected, atol=1e-5)


def least_maximum(corners, p):
    """Where the largest p_i |x - c_i|^2 is smallest: as near to the ray as the front comes."""
    found = scipy.optimize.minimize(
        lambda z: z[2],
        [*corners.mean(axis=0), 1.0],
        constraints={
            "type": "ineq",
            "fun": lambda z: z[2] - p * np.sum((z[:2] - corners) ** 2, axis=1),
        },
        method="SLSQP",
    )
    return found.x[:2]


def test_a_front_is_one_vmap_over_preferences():
    """Three quadratics around the corners of a triangle; the front misses the second ray."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.2, 1.0]])
    rays = np.array([[0.4, 0.3, 0.3], [0.2, 0.4, 0.4], [0.25, 0.25, 0.5], [0.3, 0.5, 0.2]])
    steps = 3000

    def descend(p):
        balancer = jaxmtl.epo(p, tolerance=1e-6)

        def step(t, carry):
            x, state = carry
            apart = x[None, :] - corners.astype(np.float32)
            losses = jnp.sum(apart**2, axis=1)
            update, state = balancer.update(2 * apart, state, losses=losses)
            return x - 0.03 * (1 - t / steps) * update, state

        x = jnp.array([2.0, -1.0])
        return jax.lax.fori_loop(0, steps, step, (x, balancer.init(x)))[0]

    found = np.asarray(jax.jit(jax.vmap(descend))(jnp.float32(rays)), float)
    np.testing.assert_allclose(found, [least_maximum(corners, p) for p in rays], atol=2e-3)
    values = rays * np.sum((found[:, None] - corners) ** 2, axis=2)
    ratios = values.max(axis=1) / values.min(axis=1)
    assert np.all((ratios < 1.005) == [True, False, True, True])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="preference must be above 0"):
        jaxmtl.epo([0.0, 1.0])
    with pytest.raises(ValueError, match="preference holds 2 values, but there are 3 tasks"):
        jaxmtl.epo([1.0, 2.0], num_tasks=3)
    with pytest.raises(ValueError, match="tolerance must be a number of at least 0"):
        jaxmtl.epo(tolerance=-1.0)
    balancer = jaxmtl.epo(num_tasks=2)
    with pytest.raises(ValueError, match="reads the losses, but the argument losses is missing"):
        balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)))
