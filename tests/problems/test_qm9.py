"""QM9: descriptors against physics, and the data where they are installed."""

import importlib.util
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxmtl.problems.qm9 import describe, qm9


@pytest.fixture(scope="module")
def problem():
    if importlib.util.find_spec("qm9pack") is None:
        pytest.skip("qm9pack, which carries the data, is not installed")
    return qm9()


def test_without_the_package_there_is_a_clear_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "qm9pack", None)
    with pytest.raises(ImportError, match=r"qm9pack is not installed: pip install qm9pack\."):
        qm9()


def test_hydrogen_by_hand():
    """Two protons, r bohr apart, and two places left empty: eigenvalues 1/2 ± 1/r."""
    positions = np.zeros((1, 4, 3))
    positions[0, 1] = 0.3, 0.4, 0.0
    r = 0.5 * 1.8897261
    found = describe(np.array([[1.0, 1.0, 0.0, 0.0]]), positions)
    eigenvalues = np.sort([0.5 - 1 / r, 0.5 + 1 / r, 0, 0])
    np.testing.assert_allclose(found, [[2, 0, 0, 0, 0, *eigenvalues]], atol=1e-12)


def test_descriptors_ignore_order_turns_and_shifts():
    rng = np.random.default_rng(0)
    charges = np.array([[8.0, 1, 1, 6, 9, 7, 0, 0]])
    positions = rng.normal(size=(1, 8, 3))
    order = rng.permutation(8)
    moved = Rotation.random(random_state=0).apply(positions[0]) + np.array([[1.0, -2.0, 3.0]])
    found = describe(charges[:, order], moved[None, order])
    np.testing.assert_allclose(found, describe(charges, positions), atol=1e-9)
    stretched = describe(charges, 1.1 * positions)
    assert np.abs(stretched - describe(charges, positions)).max() > 0.1


def test_data_and_constants(problem):
    splits = problem.train, problem.validation, problem.test
    assert [split["features"].shape for split in splits] == [(6000, 34), (1000, 34), (1000, 34)]
    targets = problem.train["targets"].astype(float)
    variances = targets.var(axis=0)
    np.testing.assert_allclose(list(problem.prior_values.values()), variances, rtol=1e-6)
    np.testing.assert_allclose(list(problem.standardisation.values()), 1 / variances, rtol=1e-6)
    assert variances.max() / variances.min() > 1e8
    # Thermodynamics: H = U + RT at 298.15 K for every molecule, and G lies below H.
    index = {task: i for i, task in enumerate(problem.tasks)}
    difference = targets[:, index["h"]] - targets[:, index["u"]]
    assert np.abs(difference).max() < 1e-3  # a constant, less its mean, in float32


def test_no_molecule_is_in_two_splits(problem):
    rows = [
        np.concatenate([split["features"], split["targets"]], axis=1)
        for split in (problem.train, problem.validation, problem.test)
    ]
    molecules = [{row.tobytes() for row in split} for split in rows]
    assert len(set.union(*molecules)) == sum(map(len, molecules)) > 7900


def test_features_tell_of_the_targets(problem):
    """Atom counts alone give the energies almost exactly, by linear regression in NumPy."""
    design = np.c_[problem.train["features"][:, :5], np.ones(6000)].astype(float)
    energy = problem.train["targets"][:, problem.tasks.index("u0")].astype(float)
    coefficients, *_ = np.linalg.lstsq(design, energy, rcond=None)
    held_out = np.c_[problem.test["features"][:, :5], np.ones(1000)] @ coefficients
    truth = problem.test["targets"][:, problem.tasks.index("u0")]
    assert np.var(held_out - truth) < 1e-4 * np.var(truth)
