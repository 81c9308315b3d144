"""The digits: no leak between splits, honest constants, a model that starts where theory says."""

import sys

import jax
import numpy as np
import pytest

from jaxmtl.problems.digits import digits

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture(scope="module")
def problem():
    return digits()


def test_data_are_deterministic_and_in_range(problem):
    again = digits()
    for split in ("train", "validation", "test"):
        data = getattr(problem, split)
        for name, array in data.items():
            np.testing.assert_array_equal(array, getattr(again, split)[name])
        assert data["image"].min() == 0
        assert data["image"].max() == 1
        np.testing.assert_array_equal(data["sum"], data["left"] + data["right"])
    assert [len(s["left"]) for s in (problem.train, problem.validation, problem.test)] == [
        8000,
        2000,
        2000,
    ]


def test_no_original_digit_is_in_two_splits(problem):
    """The corner of a canvas that only the left digit touches tells the originals apart."""

    def corners(data):
        canvas = data["image"].reshape(-1, 11, 11)
        return {row.tobytes() for row in np.ascontiguousarray(canvas[:, :8, :3])}

    train, test = corners(problem.train), corners(problem.test)
    assert len(train) > 500
    # A few different digits share a corner; a leak would make it most of them.
    assert len(train & test) < 0.1 * len(test)


def test_constants_against_the_data(problem):
    train = problem.train
    np.testing.assert_allclose(problem.prior_values["sum"], np.var(train["sum"]), rtol=1e-6)
    np.testing.assert_allclose(
        problem.prior_values["reconstruction"], train["image"].astype(float).var(axis=0).sum()
    )


def test_tasks_are_named_in_leaf_order(problem):
    params = problem.init(jax.random.key(0))
    assert tuple(sorted(problem.losses(params, problem.test))) == problem.tasks
    assert set(problem.metrics(params, problem.test)) == set(problem.tasks)
    assert set(params) == {"trunk", "heads"}


def test_a_subset_of_the_tasks(problem):
    pair = digits(tasks=("right", "left"))
    assert pair.tasks == ("left", "right")
    for values in (pair.prior_values, pair.standardisation, pair.maximize):
        assert set(values) == {"left", "right"}
    params = pair.init(jax.random.key(0))
    assert set(params["heads"]) == {"left", "right"}
    everything = problem.init(jax.random.key(0))
    everything["heads"].update(params["heads"])
    everything["trunk"] = params["trunk"]
    for function in ("losses", "metrics"):
        few = getattr(pair, function)(params, pair.test)
        many = getattr(problem, function)(everything, problem.test)
        assert set(few) == {"left", "right"}
        assert all(few[task] == many[task] for task in few)
    np.testing.assert_array_equal(pair.train["image"], problem.train["image"])


@pytest.mark.parametrize("tasks", [(), ("left", "middle"), "left"])
def test_unknown_tasks_are_refused(tasks):
    with pytest.raises(ValueError, match="tasks must be a tuple of some of left, reconstruction"):
        digits(tasks=tasks)


def test_without_scikit_learn_there_is_a_clear_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"is not installed: pip install scikit-learn\.$"):
        digits()
