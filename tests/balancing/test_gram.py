"""The Gramian and the combination against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmtl.balancing import _gram
from tests.references import gradients, relative_error


def leaves_of(j, dtype=jnp.float32):
    j = jnp.asarray(j, dtype)
    return [j[:, :24].reshape(-1, 2, 3, 4), j[:, 24:30].reshape(-1, 6), j[:, 30]]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_gramian_is_accumulated_in_float32(dtype):
    leaves = leaves_of(gradients(0, 5, 31), dtype)
    flat = np.concatenate([np.asarray(leaf, np.float64).reshape(5, -1) for leaf in leaves], axis=1)
    inner = jax.jit(_gram.gramian)(leaves)
    assert inner.dtype == jnp.float32
    assert relative_error(inner, flat @ flat.T) < 1e-6
    np.testing.assert_array_equal(inner, inner.T)


# Each number of tasks and each number of columns soon, the other pairs of them later.
PAIRS = [
    pytest.param(num, size, marks=[] if num in (2, 5) or size == 129 else [pytest.mark.slow])
    for num in (1, 2, 4, 5, 15, 16, 17, 64, 65)
    for size in (1, 128, 129, 5000, 30_000)
]


@pytest.mark.parametrize(("num_tasks", "size"), PAIRS)
def test_gramian_of_any_number_of_tasks_and_columns(num_tasks, size):
    rng = np.random.default_rng(0)
    j = (rng.normal(size=(num_tasks, size)) + 0.1).astype(np.float32)
    exact = j.astype(np.float64) @ j.T
    inner = jax.jit(_gram.gramian)([jnp.asarray(j)])
    np.testing.assert_allclose(inner, exact, atol=1e-6 * np.max(np.diag(exact)))
    np.testing.assert_array_equal(inner, inner.T)
    across = jax.jit(_gram.cross_gramian)([jnp.asarray(j)], [jnp.asarray(j[::-1])])
    np.testing.assert_allclose(across, exact[:, ::-1], atol=1e-6 * np.max(np.diag(exact)))


@pytest.mark.parametrize("num_tasks", [1, 2, 4, 5])
def test_long_sums_lose_no_more_than_their_last_digits(num_tasks):
    """All terms alike and of one sign: added one after the other they would be off by 1e-3."""
    leaves = [jnp.full((num_tasks, size), 1 / 3) for size in (2_000_003, 70_001, 8192, 900, 17)]
    exact = sum(leaf.shape[1] for leaf in leaves) * np.float64(leaves[0][0, 0]) ** 2
    inner = jax.jit(_gram.gramian)(leaves)
    np.testing.assert_allclose(inner, np.full((num_tasks, num_tasks), exact), rtol=2e-5)


@pytest.mark.parametrize(
    ("num_tasks", "size"), [(2, 300), (4, 5000), (16, 300), (3, 100_000), (8, 400_000)]
)
def test_errors_are_those_of_a_few_roundings(num_tasks, size):
    """Of almost opposite gradients, whose combinations have no more digits than the Gramian."""
    gramian = jax.jit(_gram.gramian)
    for seed in range(5):
        j = np.random.default_rng(seed).normal(size=(num_tasks, size))
        j = (j - 0.98 * j.mean(axis=0)).astype(np.float32)
        exact = j.astype(np.float64) @ j.T
        lengths = np.sqrt(np.diag(exact))
        error = np.abs(np.asarray(gramian([jnp.asarray(j)]), np.float64) - exact)
        assert np.max(error / np.outer(lengths, lengths)) <= 3.5 * 2.0**-24


@pytest.mark.parametrize("num_tasks", [3, 5])
def test_gramian_is_differentiated_and_mapped(num_tasks):
    rng = np.random.default_rng(1)
    j, factors = rng.normal(size=(2, num_tasks, 9000)), rng.normal(size=(num_tasks, num_tasks))

    def total(j):
        return jnp.sum(_gram.gramian([j]) * factors)

    grads = jax.jit(jax.vmap(jax.grad(total)))(jnp.asarray(j, jnp.float32))
    assert relative_error(grads, (factors + factors.T) @ j) < 1e-6


@pytest.mark.parametrize("num_tasks", [1, 2, 5, 9])
def test_a_gpu_adds_up_few_products_in_one_pass(num_tasks):
    leaves = leaves_of(gradients(4, num_tasks, 31))
    flat = np.concatenate([np.asarray(x, np.float64).reshape(num_tasks, -1) for x in leaves], 1)
    found = jax.jit(_gram._in_one_pass)(leaves)
    np.testing.assert_allclose(found, flat @ flat.T, atol=1e-6)
    for size, is_product in ((31, False), (2**18, num_tasks > 4), (2**22 + 1, True)):
        shape = jax.ShapeDtypeStruct((num_tasks, size), jnp.float32)
        traced = jax.jit(lambda leaf: _gram.gramian([leaf])).trace(shape)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert ("dot_general" in text) == is_product


def test_gramian_of_long_bfloat16_gradients_does_not_lose_count():
    ones = jnp.ones((2, 1_000_000), jnp.bfloat16)
    np.testing.assert_array_equal(jax.jit(_gram.gramian)([ones]), np.full((2, 2), 1e6))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_combination(dtype):
    leaf = leaves_of(gradients(1, 5, 31), dtype)[0]
    weights = jnp.array([0.1, -2.0, 3.0, 1e-3, 0.7])
    update = jax.jit(_gram.combine)(weights, leaf)
    assert update.dtype == dtype
    expected = np.tensordot(np.asarray(weights, np.float64), np.asarray(leaf, np.float64), 1)
    assert relative_error(update, expected) < max(1e-6, float(jnp.finfo(dtype).eps))


def test_the_contraction_over_all_axes_is_the_same():
    """The form that more than one device takes."""
    for leaf in leaves_of(gradients(3, 4, 31)):
        flat = np.asarray(leaf, np.float64).reshape(4, -1)
        whole = jax.jit(_gram._whole_gramian, static_argnums=2)(leaf, leaf, jnp.float32)
        assert relative_error(whole, flat @ flat.T) < 1e-6
