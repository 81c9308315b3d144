"""Means over the labelled examples, and their gradients, where there are none too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl

pytestmark = pytest.mark.usefixtures("quick_compiler")

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(4, 3, 5))
MASK = RNG.random((4, 3, 5)) < 0.4
MASK[2] = False


def reference(values, mask, axis):
    axes = tuple(range(values.ndim)) if axis is None else axis
    total = np.sum(np.where(mask, values, 0.0), axis=axes)
    return total / np.maximum(np.sum(mask, axis=axes), 1)


@pytest.mark.parametrize("axis", [None, 0, -1, (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("junk", [0.0, 3e38, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("mask", [MASK, np.ones_like(MASK), np.zeros_like(MASK)])
def test_only_what_the_mask_selects_counts(mask, junk, axis):
    values = jnp.asarray(np.where(mask, VALUES, junk), jnp.float32)

    def mean(v):
        return jaxmtl.masked_mean(v, mask, axis)

    np.testing.assert_allclose(mean(values), reference(VALUES, mask, axis), atol=1e-6)
    axes = (0, 1, 2) if axis is None else axis
    counts = np.maximum(mask.sum(axis=axes, keepdims=True), 1)
    slopes = jax.grad(lambda v: jnp.sum(mean(v)))(values)
    np.testing.assert_allclose(slopes, mask / counts, rtol=1e-6)
    assert not np.any(np.asarray(slopes)[~mask])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32, bool])
def test_types(dtype):
    """Sums beyond the range and the precision of 16 bits; shares of right answers."""
    values = jnp.full(5000, 30, dtype)
    mask = jnp.arange(5000) < 4500
    mean = jaxmtl.masked_mean(values, mask)
    assert mean.dtype == (dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32)
    assert mean == (1 if dtype is bool else 30)


def losses_fn(params, batch):
    """Two heads on one trunk; labels are NaN where there is none."""
    h = jnp.tanh(batch["x"] @ params["w"])
    losses, active = {}, {}
    for name in ("a", "b"):
        mask = ~jnp.isnan(batch[name])
        errors = h @ params[name] - jnp.where(mask, batch[name], 0.0)
        losses[name] = jaxmtl.masked_mean(errors**2, mask)
        active[name] = mask.any()
    return losses, active


@pytest.mark.parametrize("missing", ["some", "all"])
@pytest.mark.parametrize("method", [jaxmtl.normalize, jaxmtl.real_time_loss])
def test_together_with_the_mask_of_the_tasks(method, missing):
    """Both routes give what the labelled examples alone would."""
    params = {k: jnp.asarray(RNG.normal(size=s)) for k, s in {"w": (3, 4), "a": 4, "b": 4}.items()}
    batch = {
        k: RNG.normal(size=s).astype(np.float32) for k, s in {"x": (6, 3), "a": 6, "b": 6}.items()
    }
    batch["b"][[1, 4] if missing == "some" else slice(None)] = np.nan
    balancer = method(num_tasks=2)
    grads_fn = jax.jit(jaxmtl.value_and_task_grads(losses_fn, has_aux=True))
    (losses, active), grads = grads_fn(params, batch)
    assert active == {"a": True, "b": missing == "some"}

    w, heads, x = (np.asarray(v, np.float64) for v in (params["w"], params["b"], batch["x"]))
    rows = ~np.isnan(batch["b"])
    errors = np.tanh(x[rows] @ w) @ heads - batch["b"][rows]
    value = np.mean(errors**2) if rows.any() else 0.0
    slope = 2 * errors @ np.tanh(x[rows] @ w) / max(rows.sum(), 1)
    np.testing.assert_allclose(losses["b"], value, rtol=1e-5)
    np.testing.assert_allclose(grads["b"][1], slope, rtol=1e-4, atol=1e-6)
    if missing == "all":
        assert all(not np.any(leaf[1]) for leaf in jax.tree.leaves(grads))

    expected, state = balancer.update(
        grads, balancer.init(params), params, losses=losses, active=active
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
    np.testing.assert_array_equal(state.task_weights[1] == 0, missing == "all")
    present = {name: (~np.isnan(batch[name])).any() for name in ("a", "b")}
    route = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer, has_aux=True))
    _, grad, _ = route(balancer.init(params), params, batch, active=present)
    for name, leaf in grad.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=1e-5, atol=1e-6)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="type bool, but it has type float32: for numbers"):
        jaxmtl.masked_mean(jnp.ones(3), jnp.ones(3))
    with pytest.raises(ValueError, match=r"shape of values, .3, 2., but it has .3,.: average"):
        jaxmtl.masked_mean(jnp.ones((3, 2)), jnp.ones(3, bool))
