"""The best worst case near a mean, beside a root of the distance in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmtl.solvers import worst_case
from tests.crosschecks import exact
from tests.crosschecks.draws import DEPENDENT, dependent
from tests.references import gradients, relative_error

solve = jax.jit(lambda gramian, c: worst_case(gramian, jnp.ones(len(gramian)) / len(gramian), c))


def update_of(j, c):
    found = solve(jnp.asarray(j @ j.T, jnp.float32), c)
    return (np.asarray(found.z, np.float64) + 1 / len(j)) @ j, found


@pytest.mark.parametrize(
    ("j", "c", "expected"),
    [
        ([[-1, 1], [2, -3], [0, 3]], 1.0, [0, 0]),  # 2 g1 + g2 + g3/3 = 0
        ([[0, -3], [0, 2], [3, -2], [0, 1]], 0.9, [0.75, 0]),  # the nearest of those of level zero
        ([[0, -3], [0, 2], [3, -2], [0, 1]], 0.2, None),
        ([[1, 0], [-1, 0], [0, 1]], 1.0, [0, 1 / 3]),  # the mean, although the radius is far
        ([[1, 0], [-1, 0], [0, 0]], 1.0, [0, 0]),
        ([[1, 0], [-3, 0], [0, 0]], 0.5, [-1 / 3, 0]),
        ([[0, 0], [0, 0], [0, 0]], 1.0, [0, 0]),
    ],
)
def test_where_vectors_cancel(j, c, expected):
    j = np.array(j, np.float64)
    d, found = update_of(j, c)
    expected = exact.cagrad(j, c) @ j if expected is None else expected
    np.testing.assert_allclose(d, expected, atol=2e-6)
    assert found.residual < 1e-5


@pytest.mark.parametrize("length", [3e-20, 1e-18, 3e-18, 1e-17])
def test_a_vector_whose_squares_are_lost_counts_as_zero(length):
    """Beside others of length 100: float32 keeps its products with them, and not its length."""
    for seed in range(5):
        j = 100 * gradients(seed, 8, 300, 2.0, "conflicting").astype(np.float32)
        rest = j.astype(np.float64)
        j[0] *= np.float32(length / np.linalg.norm(rest[0]))
        rest[0] = 0
        shares, radius = np.full(8, 1 / 8, np.float32), 0.5
        found = worst_case(jnp.asarray(j) @ jnp.asarray(j).T, shares, radius)
        d = (np.asarray(found.z, np.float64) + shares) @ rest
        assert relative_error(d, update_of(rest, radius)[0]) < 1e-4
        mean = shares.astype(np.float64) @ rest
        np.testing.assert_allclose(np.linalg.norm(d - mean), 0.5 * np.linalg.norm(mean), rtol=1e-4)


@pytest.mark.slow
def test_absent_vectors_of_another_length_change_nothing():
    j = np.array([[0.0, -3], [0, 2], [3, -2], [0, 1], [1e6, 0], [0, 0]])
    gramian, shares = jnp.asarray(j @ j.T, jnp.float32), jnp.array([0.25] * 4 + [0, 0])
    found = worst_case(gramian, shares, 0.9, jnp.arange(6) < 4)
    d = (np.asarray(found.z, np.float64) + shares) @ j
    np.testing.assert_allclose(d, [0.75, 0], atol=2e-6)


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("num", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_dependent_vectors(num):
    """Of every rank and of every kind of stationary point."""
    drawn = [dependent(seed, num, kind) for kind in DEPENDENT for seed in range(12)]
    gramians = jnp.asarray(np.stack([j @ j.T for j in drawn]), jnp.float32)
    for c in (0.5, 1.0, 2.0):
        found = jax.jit(jax.vmap(solve, in_axes=(0, None)))(gramians, c)
        assert found.residual.max() < 1e-4
        assert found.iterations.max() < 60
        for j, z in zip(drawn, np.asarray(found.z, np.float64), strict=True):
            d, length = (z + 1 / num) @ j, np.linalg.norm(j.mean(axis=0))
            assert np.linalg.norm(d - exact.cagrad(j, c) @ j) < 1e-3 * length
            if c >= 1:
                assert np.min(exact.units(j) @ d) >= -1e-4 * length


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(3, 3\) and \(2,\)"):
        worst_case(jnp.eye(3), jnp.ones(2), 1.0)
