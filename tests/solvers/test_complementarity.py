"""Complementarity problems: their conditions, and non-negative least squares, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxmtl.solvers import complementarity, equilibrate
from tests.references import wide_spectrum

solve = jax.jit(complementarity)


def problem(a, seed):
    """M = a a', of lengths near one, and q = -a b: M z + q >= 0 is non-negative least squares."""
    matrix, scale = equilibrate(jnp.asarray(a @ a.T, jnp.float32))
    target = np.random.default_rng(seed).normal(size=a.shape[1])
    a = a * np.asarray(scale, np.float64)[:, None]
    return matrix, jnp.asarray(-a @ target, jnp.float32), a, target


def test_random_problems():
    for seed in range(50):
        a = np.random.default_rng(seed).normal(size=(6, 8))
        matrix, _ = equilibrate(jnp.asarray(a @ a.T, jnp.float32))
        offset = jnp.asarray(np.random.default_rng(seed + 50).normal(size=6), jnp.float32)
        found = solve(matrix, offset)
        slack = np.asarray(matrix, np.float64) @ np.asarray(found.z, np.float64) + offset
        assert found.residual < 1e-4
        assert np.all(found.z >= 0)
        assert slack.min() > -1e-3
        assert np.abs(found.z * slack).max() < 1e-3 * max(1, float(found.z.max()))
        assert found.iterations < 20


@pytest.mark.parametrize(
    ("num", "ranks"), [(8, (1, 2, 3, 4, 6, 8, 12)), (16, (8, 16)), (32, (8, 16, 24))]
)
def test_of_any_rank(num, ranks):
    """A singular M, or one that nearly is, leads a search in circles; what z a is stays unique."""
    for rank in ranks:
        for seed in range(80 if num == 8 else 40):
            a = np.random.default_rng(seed).normal(size=(num, rank))
            matrix, offset, a, target = problem(a, seed + 100)
            found = solve(matrix, offset)
            z, _ = scipy.optimize.nnls(a.T, target)
            error = np.linalg.norm(np.asarray(found.z, np.float64) @ a - z @ a)
            # A large z is one of almost dependent rows, which float32 hardly tells from dependent.
            assert error < 2e-5 * (1 + z.max()) * np.linalg.norm(target) or z.max() > 100
            assert found.residual < (2e-4 if num == 8 else 1e-5)
            assert found.iterations < 40


@pytest.mark.parametrize("num", [8, 32])
def test_of_a_wide_spectrum(num):
    """Eigenvalues from 1 to 1e-5: the support changes often before it is the right one."""
    for seed in range(20):
        matrix, offset, a, target = problem(wide_spectrum(seed, num), seed + 100)
        found = solve(matrix, offset)
        z, _ = scipy.optimize.nnls(a.T, target)
        error = np.linalg.norm(np.asarray(found.z, np.float64) @ a - z @ a)
        assert error < 1e-4 * np.linalg.norm(target)
        assert found.residual < 1e-6 * (1 + z.max())  # the rounding of M z


def test_a_first_guess_and_absent_indices():
    matrix, offset, a, target = problem(np.random.default_rng(0).normal(size=(6, 8)), 1)
    active = jnp.array([True, False, True, True, False, True])
    cold, warm = solve(matrix, offset, None, active), solve(matrix, offset, ~active, active)
    z, _ = scipy.optimize.nnls(a[active].T, target)
    for found in (cold, warm):
        np.testing.assert_array_equal(found.z[~active], 0)
        np.testing.assert_allclose(found.z[active], z, atol=1e-6)
    known = solve(matrix, offset, cold.z > 0, active)
    np.testing.assert_allclose(known.z, cold.z, atol=1e-6)
    assert known.iterations <= 2  # the support is right at once, and solved for once more, if that


def test_what_cannot_be_solved_is_told():
    singular = jnp.ones((3, 3))
    found = solve(singular, jnp.array([-1.0, -2.0, 0.5]))
    np.testing.assert_allclose(found.z.sum(), 2, rtol=1e-6)
    without = solve(jnp.zeros((3, 3)), -jnp.ones(3))
    assert without.residual >= 0.99
    assert np.isnan(solve(singular.at[0, 0].set(jnp.nan), -jnp.ones(3)).residual)
    nothing = jnp.zeros(3, bool)
    early = jax.jit(lambda m, q: complementarity(m, q, nothing, max_iterations=1))(
        jnp.eye(3), jnp.array([-1.0, 1.0, -1.0])
    )
    assert early.residual > 0.5


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(3, 3\) and \(2,\)"):
        complementarity(jnp.eye(3), jnp.ones(2))
