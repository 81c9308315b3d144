"""Projections on the dual cone beside non-negative least squares in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxmtl.solvers import dual_cone
from tests.references import J2, J3, gradients, relative_error, wide_spectrum

project = jax.jit(dual_cone)


def reference(j, u):
    """v = u + z with z >= 0: ||J'(u + z)|| is a non-negative least-squares problem in z."""
    norms = np.linalg.norm(j, axis=1)
    z, _ = scipy.optimize.nnls((j / norms[:, None]).T, -(u @ j), maxiter=10_000)
    return (u + z / norms) @ j


@pytest.mark.parametrize("kind", ["gaussian", "conflicting", "aligned"])
@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize("num", [1, 2, 3, 8, 16])
def test_against_non_negative_least_squares(num, spread, kind):
    for seed in range(5):
        j = gradients(seed, num, 200, spread, kind)
        gram = jnp.asarray(j @ j.T, jnp.float32)
        u = np.full(num, 1 / num)
        found = project(gram, jnp.asarray(u, jnp.float32))
        d = np.asarray(found.z, np.float64) @ j
        assert relative_error(d, reference(j, u)) < 1e-4
        assert np.all(found.z >= u * (1 - 1e-6))
        assert np.min(j @ d / np.linalg.norm(j, axis=1)) >= -1e-5 * np.linalg.norm(d)


@pytest.mark.parametrize("across", [-1.0, -1 + 1e-5, -0.9, 0.0, 0.9, 1 - 1e-5, 1.0])
@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_two_vectors_of_any_angle(across, length):
    """The closed form for two: the one that loses is projected on what the other allows."""
    j = np.array([[1.0, 0.0], [length * across, length * np.sqrt(1 - across**2)]])
    found = project(jnp.asarray(j @ j.T, jnp.float32), jnp.eye(2))
    for z, own, other in zip(np.asarray(found.z, np.float64), j, j[::-1], strict=True):
        expected = own - min(own @ other, 0) / (other @ other) * other
        np.testing.assert_allclose(z @ j, expected, atol=1e-6 * np.linalg.norm(own))
    assert np.all(found.residual < 1e-6)
    only_first = jnp.array([True, False])
    alone = project(jnp.asarray(j @ j.T, jnp.float32), jnp.array([1.0, 0.0]), only_first)
    np.testing.assert_array_equal(alone.z, [1, 0])


@pytest.mark.parametrize("seed", [5, 7, 19])
def test_each_of_many_vectors_with_a_wide_spectrum(seed):
    """Eigenvalues from 1 to 1e-5; many indices fall below zero on a support, and it stays."""
    j = wide_spectrum(seed, 32).astype(np.float32).astype(np.float64)
    found = project(jnp.asarray(j @ j.T, jnp.float32), jnp.eye(32) / 32)
    assert found.residual.max() < 2e-5
    for weights, u in zip(found.z, np.eye(32) / 32, strict=True):
        error = np.asarray(weights, np.float64) @ j - reference(j, u)
        assert np.linalg.norm(error) < 1e-3 * np.linalg.norm(u @ j)


def test_many_at_once_hold_one_system_at_a_time():
    """Of 64 vectors and more on a CPU; within 20 MiB for 256."""
    j = gradients(0, 64, 300, 1.0, "conflicting")
    gram, units = jnp.asarray(j @ j.T, jnp.float32), np.eye(64) / 64
    found = project(gram, jnp.asarray(units, jnp.float32))
    updates = np.asarray(found.z, np.float64) @ j
    for update, unit in zip(updates[::7], units[::7], strict=True):
        assert relative_error(update, reference(j, unit)) < 1e-4
    one, many = jax.ShapeDtypeStruct((256, 256), jnp.float32), 20 * 2**20
    if jax.default_backend() == "cpu":
        assert project.lower(one, one).compile().memory_analysis().temp_size_in_bytes < many


@pytest.mark.parametrize("num", [2, 8])
@pytest.mark.parametrize("length", [3e-20, 1e-18, 3e-18, 1e-17, 1e-16])
def test_a_vector_whose_squares_are_lost_constrains_nothing(num, length):
    """Examples that are learnt have such gradients, beside others of length 100; 1e-16 counts."""
    for seed in range(5):
        j = 100 * gradients(seed, num, 300, 2.0, "conflicting").astype(np.float32)
        j[0] *= np.float32(length / np.linalg.norm(j[0].astype(np.float64)))
        gram = jnp.asarray(j) @ jnp.asarray(j).T
        units = np.eye(num)[1:]
        found = project(gram, jnp.asarray(units, jnp.float32)).z
        rest = 0 if length == 1e-16 else 1
        for update, unit in zip(np.asarray(found, np.float64) @ j, units, strict=True):
            assert relative_error(update, reference(j[rest:].astype(float), unit[rest:])) < 1e-4


def test_reference_numbers():
    for j, expected in [(J2, [11 / 18, 1 / 2]), (J3, [1 / 3, 1 / 3, 0.3511111111])]:
        gram = jnp.asarray(j @ j.T, jnp.float32)
        np.testing.assert_allclose(project(gram, jnp.ones(len(j)) / len(j)).z, expected, rtol=1e-5)
    gram = jnp.asarray(J2 @ J2.T, jnp.float32)
    each = project(gram, jnp.eye(2) / 2)
    np.testing.assert_allclose(each.z.sum(axis=0), [10 / 9, 15 / 19], rtol=1e-5)
    assert each.residual.shape == (2,)


def test_degenerate_stacks():
    """Parallel, opposite and zero vectors: finite, and no conflict."""
    for j in (np.ones((3, 4)), np.array([[1.0, 2], [-1, -2], [3, 1]]), np.eye(3, 4) * [1, 0, 1, 0]):
        found = project(jnp.asarray(j @ j.T, jnp.float32), jnp.ones(3) / 3)
        d = np.asarray(found.z, np.float64) @ j
        assert np.all(np.isfinite(d))
        assert np.all(j @ d >= -1e-5)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(3, 3\) and \(2,\)"):
        dual_cone(jnp.eye(3), jnp.ones(2))
