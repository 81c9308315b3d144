"""Yeast: metrics against scikit-learn, constants against the data, no gene in two splits."""

import sys

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxmtl.problems.yeast import yeast

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture(scope="module")
def problem():
    pytest.importorskip("river", reason="river carries the data")
    return yeast()


def test_without_the_package_there_is_a_clear_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(ImportError, match=r"river is not installed: pip install \"river>=0.26\"\."):
        yeast()


def test_with_a_package_that_lacks_the_file_there_is_a_clear_message(tmp_path, monkeypatch):
    (tmp_path / "river").mkdir()
    (tmp_path / "river" / "__init__.py").write_text("")
    monkeypatch.delitem(sys.modules, "river", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"river has no datasets/yeast.csv.gz in .*: pip"):
        yeast()


def test_no_gene_is_in_two_splits(problem):
    splits = [problem.train, problem.validation, problem.test]
    genes = [{row.tobytes() for row in split["features"]} for split in splits]
    assert [len(g) for g in genes] == [1300, 300, 817]
    assert len(set.union(*genes)) == 2417


def test_features_are_standardised_by_the_training_split(problem):
    features = problem.train["features"].astype(float)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-6)
    assert abs(problem.test["features"].std() - 1) < 0.1


def test_constants_against_the_data(problem):
    labels = problem.train["labels"].astype(float)
    assert set(np.unique(labels)) == {0, 1}
    q = labels.mean(axis=0)
    entropies = -q * np.log(q) - (1 - q) * np.log(1 - q)
    np.testing.assert_allclose(list(problem.prior_values.values()), entropies, rtol=1e-6)
    assert problem.standardisation is None


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_are_areas_under_the_roc_curve(problem, ties):
    params = problem.init(jax.random.key(1))
    if ties:  # outputs of -1, 0 or 1
        params = jax.tree.map(np.zeros_like, params)
        params["trunk"]["hidden_0"]["kernel"][:2, :2] = np.eye(2)
        params["trunk"]["hidden_1"]["kernel"][:2, :2] = np.eye(2)
        for head in params["heads"].values():
            head["kernel"][:2, 0] = 1, -1
    test = problem.test
    features = np.round(test["features"]) if ties else test["features"]
    metrics = jax.jit(problem.metrics)(params, {**test, "features": features})
    x = features.astype(float)
    for layer in params["trunk"].values():
        x = np.maximum(x @ np.asarray(layer["kernel"], float), 0)
    for i, (task, metric) in enumerate(metrics.items()):
        scores = np.round(x @ np.asarray(params["heads"][task]["kernel"], float), 9)[:, 0]
        assert (len(np.unique(scores)) < 20) == ties
        np.testing.assert_allclose(metric, roc_auc_score(test["labels"][:, i], scores), rtol=1e-5)
