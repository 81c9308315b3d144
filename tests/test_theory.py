"""Losses at a zero and at the best constant output, against scikit-learn, optax and NumPy."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.dummy
import sklearn.metrics

from jaxmtl import theory

RNG = np.random.default_rng(0)
LABELS = RNG.choice(5, size=400, p=[0.5, 0.2, 0.2, 0.08, 0.02])
TARGETS = RNG.normal(3.0, 2.0, size=(300, 4))


def test_zero_output():
    loss = optax.softmax_cross_entropy_with_integer_labels(jnp.zeros((400, 5)), jnp.asarray(LABELS))
    np.testing.assert_allclose(theory.zero_output_cross_entropy(5), loss.mean(), rtol=1e-6)
    assert theory.zero_output_cross_entropy(2) == np.log(2)
    expected = np.mean(np.sum(TARGETS**2, axis=1))
    np.testing.assert_allclose(theory.zero_output_squared_error(TARGETS), expected)
    np.testing.assert_allclose(
        theory.zero_output_squared_error(TARGETS, reduction="mean", halved=True), expected / 8
    )


def test_prior_is_the_best_constant_prediction():
    dummy = sklearn.dummy.DummyClassifier(strategy="prior").fit(np.zeros((400, 1)), LABELS)
    expected = sklearn.metrics.log_loss(LABELS, dummy.predict_proba(np.zeros((400, 1))))
    np.testing.assert_allclose(theory.prior_cross_entropy(np.bincount(LABELS)), expected)
    np.testing.assert_allclose(
        theory.prior_cross_entropy(np.bincount(LABELS) / len(LABELS)), expected
    )
    mean = (
        sklearn.dummy.DummyRegressor().fit(np.zeros((300, 1)), TARGETS).predict(np.zeros((300, 1)))
    )
    expected = sklearn.metrics.mean_squared_error(TARGETS, mean)
    np.testing.assert_allclose(theory.prior_squared_error(TARGETS, reduction="mean"), expected)
    np.testing.assert_allclose(theory.prior_squared_error(TARGETS), 4 * expected)
    np.testing.assert_allclose(theory.prior_squared_error(TARGETS[:, 0]), TARGETS[:, 0].var())


def test_binary_prior():
    q = 0.3
    expected = -q * np.log(q) - (1 - q) * np.log(1 - q)
    np.testing.assert_allclose(theory.prior_binary_cross_entropy(q), expected)
    np.testing.assert_allclose(theory.prior_binary_cross_entropy([q, 0.0, 1.0]), expected / 3)
    np.testing.assert_allclose(theory.prior_cross_entropy([0, 3, 0]), 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: theory.zero_output_cross_entropy(1),
            "must be a whole number of at least 2",
        ),
        (lambda: theory.prior_cross_entropy([0.0, 0.0]), "frequencies must be"),
        (lambda: theory.prior_cross_entropy([0.5, -0.5]), "frequencies must be"),
        (lambda: theory.prior_binary_cross_entropy(3.0), r"must lie within \[0, 1\]"),
        (lambda: theory.prior_squared_error([]), "targets must be a finite array"),
        (lambda: theory.prior_squared_error([1.0, np.nan]), "1 of its entries are not finite"),
        (lambda: theory.prior_squared_error([1.0], reduction="max"), "reduction must be"),
    ],
)
def test_misuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()
