"""Jacobi rotations and the simplex projection, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmtl.solvers import eigen, simplex
from tests.references import gradients, nearest_convex

solve = jax.jit(eigen)
on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="a GPU's library is better")


@pytest.mark.parametrize("num", [1, 2, 5, 16])
@pytest.mark.parametrize("spread", [0.0, 3.0, 5.0])
@pytest.mark.parametrize("kind", ["gaussian", "aligned"])
def test_small_eigenvalues_are_as_exact_as_large_ones(num, spread, kind):
    for seed in range(5):
        j = gradients(seed, num, 300, spread, kind)
        # The float32 Gramian is the input; its own rounding is not the solver's.
        gram = (j @ j.T).astype(np.float32)
        gram = np.tril(gram) + np.tril(gram, -1).T
        found = solve(jnp.asarray(gram))
        exact = np.linalg.eigvalsh(gram.astype(np.float64))
        # As far as the cosines determine them, whatever the lengths.
        condition = np.linalg.cond(j / np.linalg.norm(j, axis=1, keepdims=True)) ** 2
        np.testing.assert_allclose(np.sort(found.values), exact, rtol=3e-6 + 6e-8 * condition)
        assert found.residual < 2
        assert found.iterations <= 10
        v = np.asarray(found.vectors, np.float64)
        np.testing.assert_allclose(v.T @ v, np.eye(num), atol=3e-6)


@on_cpu
def test_the_usual_eigenvalues_are_not_that_exact():
    """The reason for a solver of our own; if this fails one day, it can go."""
    worst = 0.0
    for seed in range(20):
        j = gradients(seed, 8, 300, 3.0)
        gram = (j @ j.T).astype(np.float32)
        gram = np.tril(gram) + np.tril(gram, -1).T
        exact = np.linalg.eigvalsh(gram.astype(np.float64))
        usual = np.asarray(jnp.linalg.eigvalsh(jnp.asarray(gram)))
        worst = max(worst, np.abs(usual / exact - 1).max())
    assert worst > 1e-3


@pytest.mark.parametrize("scale", [1e-31, 1.0, 1e30])
def test_rank_is_found_whatever_the_lengths(scale):
    rng = np.random.default_rng(1)
    for rank in range(4):
        base = rng.normal(size=(6, rank)) @ rng.normal(size=(rank, 50))
        j = base * 10.0 ** rng.uniform(-3, 0, size=(6, 1))
        found = solve(jnp.asarray(scale * (j @ j.T), jnp.float32))
        assert np.sum(np.asarray(found.values) > 0) == rank
        assert np.all(np.isfinite(found.vectors))


def test_zero_rows_have_zero_eigenvalues():
    for seed in range(20):
        j = gradients(seed, 4, 20, kind="conflicting") * np.array([[1.0], [0.0], [1.0], [0.0]])
        found = solve(jnp.asarray(j @ j.T, jnp.float32))
        assert np.sum(np.asarray(found.values) == 0) == 2


def test_a_matrix_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"shape \(T, T\), but it has \(2, 3\)"):
        eigen(jnp.ones((2, 3)))


@pytest.mark.parametrize("size", [0.1, 1.0, 1e3])
def test_simplex_is_the_nearest_point(size):
    rng = np.random.default_rng(3)
    for _ in range(10):
        point = (size * rng.normal(size=5)).astype(np.float32)
        found = np.asarray(simplex(jnp.asarray(point)))
        assert abs(found.sum() - 1) < 1e-6 * max(1, size)
        # One rounding of the largest entry.
        allowed = 2e-7 * max(1, np.abs(point).max())
        np.testing.assert_allclose(found, nearest_convex(point.astype(np.float64)), atol=allowed)


def test_simplex_of_some_entries():
    active = np.array([True, False, True, True])
    point = np.array([0.3, 9.0, -0.2, 0.5], np.float32)
    found = np.asarray(simplex(jnp.asarray(point), jnp.asarray(active)))
    assert found[1] == 0
    np.testing.assert_allclose(found[active], nearest_convex(point[active]), atol=1e-6)
    assert np.all(np.asarray(simplex(jnp.asarray(point), jnp.zeros(4, bool))) == 0)
    with pytest.raises(ValueError, match=r"point must have shape \(T,\), but it has \(2, 2\)"):
        simplex(jnp.ones((2, 2)))


@pytest.mark.parametrize("active", [None, np.array([True, True, False])])
@pytest.mark.parametrize("size", [1e-30, 1e8, 1e30])
def test_simplex_of_any_size(size, active):
    point = size * np.array([-1.0, -1.0, 5.0], np.float32)
    expected = [0, 0, 1] if active is None else [0.5, 0.5, 0]
    if size < 1:
        expected = [1 / 3] * 3 if active is None else expected
    found = simplex(jnp.asarray(point), None if active is None else jnp.asarray(active))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_float32_stays_float32_in_x64_mode():
    with jax.enable_x64(True):
        assert simplex(jnp.ones(3, jnp.float32)).dtype == jnp.float32
        assert eigen(jnp.eye(3, dtype=jnp.float32)).values.dtype == jnp.float32
