"""Dominance by brute force, volumes by inclusion and exclusion and on grids, in float64."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmtl import pareto

pytestmark = pytest.mark.usefixtures("quick_compiler")

volume = jax.jit(pareto.hypervolume)


def beats(p, q):
    return all(a <= b for a, b in zip(p, q, strict=True)) and tuple(p) != tuple(q)


def inclusion_exclusion(points, reference):
    """Add and subtract the intersections of all sets of boxes."""
    sides = np.maximum(np.asarray(reference, float) - np.asarray(points, float), 0)
    return sum(
        (-1) ** (size + 1) * sides[list(chosen)].min(axis=0).prod()
        for size in range(1, len(sides) + 1)
        for chosen in itertools.combinations(range(len(sides)), size)
    )


def on_a_grid(points, reference):
    """Count the unit cells below the reference that some point of whole numbers dominates."""
    cells = np.stack(np.meshgrid(*(np.arange(-1, r) for r in reference), indexing="ij"), axis=-1)
    return int(np.any(np.all(points <= cells[..., None, :], axis=-1), axis=-1).sum())


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 5])
def test_dominance_by_brute_force(num_tasks):
    for seed in range(10):
        # Few values: ties and duplicates.
        points = np.random.default_rng(seed).integers(0, 4, size=(12, num_tasks))
        matrix = pareto.dominates(points[:, None], points[None])
        expected = [[beats(p, q) for q in points] for p in points]
        np.testing.assert_array_equal(matrix, expected)
        front = [not any(beats(p, q) for p in points) for q in points]
        np.testing.assert_array_equal(pareto.non_dominated(points), front)
        assert any(front)


def test_dominance_of_what_is_no_number():
    points = np.array([[1.0, np.nan], [np.nan, 0.0], [5.0, 5.0], [np.inf, 4.0], [9.0, np.inf]])
    np.testing.assert_array_equal(pareto.non_dominated(points), [0, 0, 1, 1, 0])
    assert not pareto.dominates(points[0], points[2])
    assert not pareto.dominates(np.array([0.0, np.nan]), points[2])
    assert pareto.dominates(np.array([0.0, -np.inf]), points[2])
    np.testing.assert_array_equal(pareto.non_dominated(np.zeros((3, 2))), [1, 1, 1])
    assert pareto.non_dominated(np.zeros((0, 2))).shape == (0,)


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 4])
def test_volumes_by_inclusion_and_exclusion(num_tasks):
    reference = np.linspace(0.6, 0.9, num_tasks)
    for seed in range(6):
        points = np.random.default_rng(seed).random((9, num_tasks))
        points[3], points[5, 0], points[6] = points[1], points[2, 0], reference
        expected = inclusion_exclusion(points, reference)
        with jax.enable_x64(True):
            np.testing.assert_allclose(volume(points, reference), expected, rtol=1e-12)
        single = volume(points.astype(np.float32), reference.astype(np.float32))
        np.testing.assert_allclose(single, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("num_tasks", [2, 3, 4, 5])
def test_volumes_on_a_grid(num_tasks):
    reference = np.array([4, 5, 4, 3, 5])[:num_tasks]
    for seed in range(4):
        points = np.random.default_rng(seed).integers(-1, 6, size=(10, num_tasks))
        assert volume(points, reference) == on_a_grid(points, reference)


def test_what_contributes_nothing():
    reference = np.array([2.0, 3.0, 2.0])
    points = np.array([[1.0, 1.0, 0.0], [0.5, 2.0, 1.5]])
    alone = volume(points, reference)
    beyond = [[2.0, 0.0, 0.0], [-9.0, 3.5, 0.0], [np.inf, -5.0, 0.0], [1.0, 1.5, 0.0], points[0]]
    for more in beyond:
        assert volume(np.vstack([points, more]), reference) == alone
    assert volume(reference[None], reference) == 0
    assert volume(np.zeros((0, 3)), reference) == 0


def test_what_is_not_finite_is_visible():
    points, reference = np.array([[1.0, 1.0], [0.5, 2.0]]), np.array([3.0, 3.0])
    assert volume(points, reference) == 4.5
    assert np.isnan(volume(np.vstack([points, [9.0, np.nan]]), reference))
    assert np.isnan(volume(np.vstack([points, [1.0, -np.inf]]), reference))
    assert np.isnan(volume(points, np.array([3.0, np.inf])))
    assert np.isnan(volume(points, np.array([np.nan, 3.0])))


def test_many_points_on_a_sphere_and_vmap():
    """The first octant of the unit ball, seen from its far corner, has volume 1 - pi/6."""
    normals = np.abs(np.random.default_rng(0).normal(size=(2, 300, 3)))
    points = 1 - normals / np.linalg.norm(normals, axis=2, keepdims=True)
    found = jax.jit(jax.vmap(pareto.hypervolume, in_axes=(0, None)))(points, jnp.ones(3))
    assert np.all(found < math.pi / 6)
    np.testing.assert_allclose(found, math.pi / 6, atol=0.05)
    np.testing.assert_allclose(found[1], volume(points[1], np.ones(3)), rtol=1e-6)


@pytest.mark.parametrize(("num_tasks", "divisions"), [(1, 3), (2, 10), (3, 12), (5, 4)])
def test_preferences(num_tasks, divisions):
    found = np.asarray(pareto.preferences(num_tasks, divisions), float)
    assert len(found) == math.comb(divisions + num_tasks - 1, num_tasks - 1)
    assert found.shape[1] == num_tasks
    whole = np.round(found * divisions).astype(int)
    np.testing.assert_allclose(found * divisions, whole, atol=1e-5)
    expected = {
        k for k in itertools.product(range(divisions + 1), repeat=num_tasks) if sum(k) == divisions
    }
    assert set(map(tuple, whole.tolist())) == expected
    assert np.all(np.diff(found[:, 0]) <= 0)
    inner = np.asarray(pareto.preferences(num_tasks, divisions, least=0.1), float)
    np.testing.assert_allclose(inner, 0.1 + (1 - 0.1 * num_tasks) * found, atol=1e-6)
    np.testing.assert_allclose(inner.sum(axis=1), 1, atol=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"point and other must have .* \(3,\) and \(2,\)"):
        pareto.dominates(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match=r"points must have shape \(N, T\)"):
        pareto.non_dominated(np.ones(3))
    with pytest.raises(ValueError, match=r"reference must have shape \(T,\)"):
        pareto.hypervolume(np.ones((4, 2)), np.ones(3))
    with pytest.raises(ValueError, match="least must be below 1/T, here 1/4"):
        pareto.preferences(4, 3, least=0.25)
    with pytest.raises(ValueError, match="divisions must be a whole number of at least 1"):
        pareto.preferences(2, 0)
