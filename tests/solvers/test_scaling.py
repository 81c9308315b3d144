"""Lengths taken out of a Gramian by powers of two, at every size a number can have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmtl.solvers import equilibrate
from jaxmtl.solvers.scaling import reciprocal
from tests.references import gradients


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_rounded_at_any_size(dtype):
    info = np.finfo(dtype)
    lengths = np.sqrt(np.array([info.tiny, 1e-30, 1e-12, 0.3, 1.0, 2.0, 7e20, info.max / 2]))
    rng = np.random.default_rng(0)
    cosines = np.clip(np.eye(8) + rng.uniform(-0.3, 0.3, (8, 8)), -1, 1)
    gramian = (cosines * lengths[:, None] * lengths).astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        scaled, scale = map(np.asarray, jax.jit(equilibrate)(jnp.asarray(gramian)))
    assert scaled.dtype == scale.dtype == dtype
    np.testing.assert_array_equal(np.frexp(scale)[0], 0.5)
    np.testing.assert_array_equal(scaled, gramian * scale[:, None] * scale)
    assert np.all((np.diag(scaled) >= 0.49) & (np.diag(scaled) <= 2.01))


def test_scaling_rounds_nothing():
    j = gradients(0, 5, 30, spread=6)
    gram = jnp.asarray(j @ j.T, jnp.float32)
    scaled, scale = equilibrate(gram)
    back = np.asarray(scaled, np.float64) / np.outer(scale, scale)
    np.testing.assert_array_equal(back, np.asarray(gram, np.float64))
    assert np.all((np.diagonal(scaled) >= 0.49) & (np.diagonal(scaled) <= 2.01))


def test_vectors_without_a_length_stay():
    gramian = jnp.array([[0.0, 0.0, 0.0], [0.0, 16.0, jnp.nan], [0.0, jnp.nan, jnp.inf]])
    scaled, scale = equilibrate(gramian)
    np.testing.assert_array_equal(scale, [1, 0.25, 1])
    np.testing.assert_array_equal(jnp.diagonal(scaled), [0, 1, jnp.inf])


def test_reciprocal_is_total():
    values = jnp.array([2.0, -4.0, 0.0, 1e-45, 1e37])
    np.testing.assert_allclose(reciprocal(values), [0.5, 0.25, 0, 0, 1e-37], rtol=1e-6)
