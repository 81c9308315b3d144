"""Linear programmes over the simplex, against SciPy's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxmtl.solvers import linear_program
from tests.references import gradients, relative_error

solve = jax.jit(linear_program)


def reference(c, a, b, required=None, active=None):
    required = np.ones(len(b), bool) if required is None else required
    active = np.ones(len(c), bool) if active is None else active
    size = np.abs(a).max() or 1.0  # SciPy has absolute tolerances
    return scipy.optimize.linprog(
        -c / (np.abs(c).max() or 1.0),
        A_ub=-a[required] / size,
        b_ub=-b[required] / size,
        A_eq=np.ones((1, len(c))),
        b_eq=[1],
        bounds=[(0, None if present else 0) for present in active],
        method="highs",
    )


def check(c, a, b, required=None, active=None):
    """Feasible, as good as the best, and the residual says so."""
    c, a, b = (np.asarray(part, np.float32).astype(float) for part in (c, a, b))
    found = solve(jnp.float32(c), jnp.float32(a), jnp.float32(b), required, active)
    expected = reference(c, a, b, required, active)
    w = np.asarray(found.weights, float)
    assert expected.status == 0
    short = (b - a @ w) / np.maximum(np.abs(a) @ w + np.abs(b), 1e-300)
    kept = np.ones(len(b), bool) if required is None else required
    assert np.max(short, where=kept, initial=0) < 1e-6
    assert abs(c @ (w - expected.x)) <= 2e-6 * np.abs(c).max()
    assert np.all(w >= 0)
    assert abs(w.sum() - 1) < 1e-6
    assert found.residual < 1e-6
    assert active is None or np.all(w[~active] == 0)
    return w, expected.x, found


@pytest.mark.parametrize("kind", ["gaussian", "conflicting", "aligned", "deficient"])
@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize("num", [1, 2, 3, 8, 16])
def test_programmes_of_gramians(num, spread, kind):
    for seed in range(8):
        j = gradients(seed, num, 40, spread, kind)
        gram = (j @ j.T).astype(np.float32).astype(float)
        rng = np.random.default_rng(seed)
        slopes = gram @ rng.normal(size=num)
        required = slopes <= 0
        required[rng.integers(num)] = True
        bound = np.where(rng.random(num) < 0.8, np.minimum(slopes, 0), 0)
        w, x, _ = check(slopes, gram, bound, required)
        if kind != "deficient" and spread == 0:
            assert relative_error(w @ j, x @ j) < 1e-5


def test_random_programmes_with_more_and_fewer_rows_than_weights():
    tried = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        # Small integers: ties, parallel rows, corners where more than enough meets.
        a, c = rng.integers(-2, 4, size=(6, 7)), rng.integers(-2, 3, size=7)
        b = rng.integers(-1, 2, size=6)
        active, required = rng.random(7) < rng.random(), rng.random(6) < rng.random()
        active[rng.integers(7)] = True
        parts = (part.astype(float) for part in (c, a, b))
        expected = reference(*parts, required, active)
        if expected.status == 0:
            tried += 1
            check(c, a, b, required, active)
        else:
            assert expected.status == 2  # infeasible
            found = solve(jnp.float32(c), jnp.float32(a), jnp.float32(b), required, active)
            assert found.residual > 0.01
            assert np.all(np.isfinite(found.weights))
            assert found.iterations < 1000
    assert 50 < tried < 150


@pytest.mark.parametrize("num", [2, 5, 16])
def test_ties_and_degenerate_corners(num):
    ones = np.ones((num, num))
    check(np.ones(num), ones, np.zeros(num))
    check(np.zeros(num), np.eye(num), np.zeros(num))
    check(np.ones(num), np.eye(num), np.full(num, 1 / num))  # one feasible point
    signs = (-1.0) ** np.arange(num)
    check(signs, np.outer(signs, signs), np.zeros(num))  # opposite gradients
    check(np.arange(num), np.zeros((num, num)), np.zeros(num))


def test_sizes_do_no_harm():
    j = gradients(0, 5, 40, kind="conflicting")
    gram, slopes = j @ j.T, j @ j.T @ np.array([1.0, -0.4, 0.3, -1.0, 0.1])
    base, _, _ = check(slopes, gram, np.minimum(slopes, 0), slopes <= 0)
    for size in (1e-25, 1e-12, 1e12, 1e25):
        w, _, _ = check(slopes * size, gram * size, np.minimum(slopes, 0) * size, slopes <= 0)
        np.testing.assert_allclose(w, base, atol=1e-6)


@pytest.mark.slow
def test_pivots_are_counted_and_limited():
    j = gradients(1, 12, 20, kind="conflicting")
    gram = jnp.float32(j @ j.T)
    whole = solve(gram @ jnp.ones(12), gram, jnp.zeros(12))
    assert 1 < whole.iterations < 24
    cut = linear_program(gram @ jnp.ones(12), gram, jnp.zeros(12), max_iterations=1)
    assert cut.iterations == 1
    assert cut.residual > 1e-3 > whole.residual


@pytest.mark.slow
def test_vmap_and_eager_mode_under_debug_nans():
    grams = [np.cov(np.random.default_rng(seed).normal(size=(4, 3))) for seed in range(6)]
    grams = jnp.float32(np.stack([*grams, np.zeros((4, 4))]))
    together = jax.vmap(linear_program)(grams.sum(axis=1), grams, jnp.zeros((7, 4)))
    with jax.debug_nans(True):
        for gram, weights in zip(grams, together.weights, strict=True):
            alone = linear_program(gram.sum(axis=0), gram, jnp.zeros(4)).weights
            np.testing.assert_allclose(alone @ gram, weights @ gram, atol=1e-6)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"matrix must have shape \(M, T\)"):
        linear_program(jnp.ones(2), jnp.ones((2, 3)), jnp.ones(2))
