"""The toy: its values and slopes in float64, its Pareto set by another way, what was published."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

import jaxmtl
from jaxmtl.problems.toy import SCALES, STARTS, pareto_set, toy, toy_losses

pytestmark = pytest.mark.usefixtures("quick_compiler")

POINTS = np.random.default_rng(0).uniform(-10, 10, (200, 2))


def reference(x, y):
    """Both losses in float64, written from the papers; (2, ...)."""
    a, b = (-x - 7) / 2 - np.tanh(-y), (-x + 3) / 2 + np.tanh(-y) + 2
    above, below = np.maximum(np.tanh(y / 2), 0), np.maximum(np.tanh(-y / 2), 0)
    losses = []
    for scale, centre, valley in zip((0.1, 1.0), (7, -7), (a, b), strict=True):
        f = np.log(np.maximum(np.abs(valley), 5e-6)) + 6
        q = ((x - centre) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
        losses.append(scale * (f * above + q * below))
    return np.stack(losses)


def slopes(x, y, step=1e-6):
    """Central differences; (2 losses, 2 coordinates, ...)."""
    across = reference(x + step, y) - reference(x - step, y)
    up = reference(x, y + step) - reference(x, y - step)
    return np.stack([across, up], axis=1) / (2 * step)


def stacked(losses):
    return np.stack([losses["first"], losses["second"]])


def test_losses():
    ours = stacked(toy_losses(jnp.asarray(POINTS.T)))
    np.testing.assert_allclose(ours, reference(*POINTS.T), rtol=1e-4, atol=1e-4)


def test_gradients_away_from_ties():
    # Next to the bottom of a valley neither float32 nor a difference can tell the slope.
    x, y = POINTS.T
    bottom = np.minimum(abs(-x - 7 + 2 * np.tanh(y)), abs(-x + 7 - 2 * np.tanh(y)))
    x, y = POINTS[(bottom > 0.1) & (abs(y) > 0.01)].T
    assert len(x) > 150
    ours = jax.vmap(jax.jacrev(toy_losses))(jnp.stack([x, y], axis=1))
    np.testing.assert_allclose(
        np.stack([ours["first"], ours["second"]]), slopes(x, y).transpose(0, 2, 1), rtol=2e-3
    )


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_at_a_tie_both_sides_pass_their_whole_slope(zero):
    # d/dy of tanh(y/2) f + tanh(-y/2) q at y = 0 is (f - q)/2; across, both are nothing.
    gradient = stacked(jax.jacrev(toy_losses)(jnp.array([0.0, zero])))
    f, q = np.log(3.5) + 6, (49 + 6.4) / 10 - 20
    np.testing.assert_allclose(gradient[:, 1], np.array(SCALES) * (f - q) / 2, rtol=1e-6)
    np.testing.assert_array_equal(gradient[:, 0], 0)


def test_the_bottom_of_a_valley_is_finite():
    x = 7 - 2 * jnp.tanh(3.0)
    value, gradient = jax.value_and_grad(lambda p: toy_losses(p)["second"])(jnp.array([x, 3.0]))
    assert value < -4
    assert jnp.all(jnp.isfinite(gradient))


def test_a_grid_and_a_wrong_shape():
    assert toy_losses(jnp.ones((2, 3, 4)))["first"].shape == (3, 4)
    with pytest.raises(ValueError, match=r"point must have shape \(2, ...\).*has \(5, 2\)"):
        toy_losses(jnp.array(STARTS))


def test_pareto_set_as_published():
    left, middle, right = pareto_set(3)
    np.testing.assert_allclose(middle, [0, -8.355], atol=1e-3)
    np.testing.assert_allclose([left, right], [[-7, -8.434], [7, -8.434]], atol=1e-3)
    with pytest.raises(ValueError, match="num must be a whole number of at least 2"):
        pareto_set(1)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.95, 1.0])
def test_weighted_sums_are_smallest_on_the_pareto_set(share):
    weights = np.array([share / SCALES[0], (1 - share) / SCALES[1]])
    found = minimize(
        lambda p: weights @ reference(*p), (0.5, -6.0), method="Nelder-Mead", tol=1e-10
    )
    x, y = pareto_set(2001).T
    np.testing.assert_allclose(np.interp(found.x[0], x, y), found.x[1], atol=1e-4)


def test_gradients_are_opposite_on_the_pareto_set():
    first, second = slopes(*pareto_set(51)[1:-1].T)
    lengths = np.linalg.norm(first, axis=0) * np.linalg.norm(second, axis=0)
    np.testing.assert_allclose(np.sum(first * second, axis=0) / lengths, -1, atol=1e-6)


def test_no_point_is_better_than_the_pareto_set():
    arc = reference(*pareto_set(101).T)
    losses = reference(*np.random.default_rng(1).uniform(-12, 12, (2, 20_000)))
    better = np.all(losses[:, :, None] < arc[:, None, :] - 1e-9, axis=0)
    assert not better.any()


def test_problem():
    problem = toy()
    assert problem.tasks == ("first", "second")
    keys = jax.random.split(jax.random.key(0), 64)
    params = jax.vmap(problem.init)(keys)
    assert set(params) == {"trunk", "heads"}
    points = np.asarray(params["trunk"]["point"])
    assert len(np.unique(points, axis=0)) == 64
    distances = np.linalg.norm(points[:, None] - np.array(STARTS), axis=-1)
    assert distances.min(axis=1).max() < 0.5
    assert set(distances.argmin(axis=1)) == set(range(5))  # every start is drawn
    one = jax.tree.map(lambda leaf: leaf[0], params)
    batch = {name: array[: problem.batch] for name, array in problem.train.items()}
    losses = jax.jit(problem.losses)(one, batch)
    np.testing.assert_allclose(stacked(losses), reference(*points[0]), rtol=1e-4)
    for per_task in (losses, problem.metrics(one, problem.test), problem.maximize):
        assert tuple(sorted(per_task)) == problem.tasks


@pytest.mark.parametrize(
    ("balancer", "published"),
    [
        # None: stuck in a valley at (4.99, 3.97).
        (jaxmtl.equal(), [-5.73, -5.73, None, -5.73, -5.73]),
        (jaxmtl.mgda(), [-1.98, 6.10, 6.98, -4.26, 7.00]),
    ],
    ids=["equal", "mgda"],
)
def test_published_outcomes(balancer, published):
    problem = toy()
    optimizer = optax.chain(balancer, optax.adam(problem.learning_rate))

    def step(carry, _):
        point, state = carry
        losses, grads = jaxmtl.value_and_task_grads(toy_losses)(point)
        updates, state = optimizer.update(grads, state, point, losses=losses)
        return (optax.apply_updates(point, updates), state), None

    def descend(start):
        return jax.lax.scan(step, (start, optimizer.init(start)), length=problem.steps)[0][0]

    ends = np.asarray(jax.jit(jax.vmap(descend))(jnp.array(STARTS)))
    arc = pareto_set()
    for (x, y), expected in zip(ends, published, strict=True):
        if expected is None:
            np.testing.assert_allclose((x, y), (4.99, 3.97), atol=0.5)
        else:
            assert abs(x - expected) < 0.5
            assert abs(y - np.interp(x, *arc.T)) < 0.5
