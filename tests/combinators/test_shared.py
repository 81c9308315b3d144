"""Which leaves are balanced, and priorities on top."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.references import min_norm_weights

pytestmark = pytest.mark.usefixtures("quick_compiler")

PARAMS = {"trunk": {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}, "heads": jnp.zeros(3)}
RNG = np.random.default_rng(0)
GRADS = {
    "trunk": {
        "w": jnp.asarray(RNG.normal(size=(3, 2, 2)), jnp.float32),
        "b": jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32),
    },
    "heads": jnp.asarray(100 * np.diag([1.0, 2.0, 3.0]), jnp.float32),
}
TRUNK = np.concatenate(
    [np.asarray(GRADS["trunk"]["b"]), np.asarray(GRADS["trunk"]["w"]).reshape(3, 4)], axis=1
).astype(np.float64)


@pytest.mark.parametrize(
    "shared",
    [
        {"trunk": True, "heads": False},
        {"trunk": {"w": True, "b": True}, "heads": False},
        lambda path: path.startswith("trunk/"),
    ],
    ids=["prefix", "mask", "predicate"],
)
@pytest.mark.parametrize("heads", ["own", "weighted"])
def test_only_shared_leaves_are_measured(shared, heads):
    balancer = jaxmtl.on_shared(jaxmtl.mgda(num_tasks=3), shared, heads=heads)
    updates, state = jax.jit(balancer.update)(GRADS, balancer.init(PARAMS))
    weights = min_norm_weights(TRUNK)
    np.testing.assert_allclose(state.task_weights, weights, atol=1e-5)
    np.testing.assert_allclose(updates["trunk"]["b"], (weights @ TRUNK)[:2], atol=1e-5)
    own = np.array([100.0, 200.0, 300.0])
    expected = own if heads == "own" else own * weights
    np.testing.assert_allclose(updates["heads"], expected, rtol=1e-4)


def test_restrictions_add_up():
    """GradNorm measured on the last shared layer, inside a trunk whose heads are left alone."""
    inner = jaxmtl.on_shared(
        jaxmtl.normalize(num_tasks=3), lambda path: path.endswith("w"), heads="weighted"
    )
    balancer = jaxmtl.on_shared(inner, {"trunk": True, "heads": False})
    updates, state = balancer.update(GRADS, balancer.init(PARAMS))
    norms = np.linalg.norm(TRUNK[:, 2:], axis=1)
    np.testing.assert_allclose(state.task_weights, 1 / norms, rtol=1e-5)
    np.testing.assert_allclose(updates["trunk"]["b"], (1 / norms) @ TRUNK[:, :2], rtol=1e-4)
    np.testing.assert_allclose(updates["heads"], [100, 200, 300])


def test_frozen_leaves_are_allowed():
    balancer = jaxmtl.on_shared(jaxmtl.mgda(), {"w": True, "frozen": True, "head": False})
    grads = {"w": jnp.eye(2), "frozen": None, "head": jnp.eye(2)}
    params = {"w": jnp.zeros(2), "frozen": None, "head": jnp.zeros(2)}
    updates, _ = balancer.update(grads, balancer.init(params))
    assert updates["frozen"] is None
    np.testing.assert_allclose(updates["head"], [1, 1])


def test_a_nan_in_a_head_is_noticed():
    balancer = jaxmtl.on_shared(jaxmtl.gradnorm(3), {"trunk": True, "heads": False})
    _, state = balancer.update(GRADS, balancer.init(PARAMS), losses=jnp.ones(3))
    broken = {**GRADS, "heads": GRADS["heads"].at[1, 1].set(jnp.nan)}
    updates, new_state = balancer.update(broken, state, losses=jnp.ones(3))
    assert np.isnan(updates["heads"][1])
    for new, old in zip(jax.tree.leaves(new_state), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(new, old)


def test_masks_that_do_not_fit_are_refused():
    for shared, message in [
        ({"trunk": True}, "does not fit"),
        (lambda path: path == "torso", "No leaf is selected as shared. The leaves are: heads, tr"),
        ({"trunk": False, "heads": False}, "No leaf is selected"),
        ("trunk", "must be made of bools, but it is 'trunk'; for paths, give a function"),
    ]:
        balancer = jaxmtl.on_shared(jaxmtl.mgda(), shared)
        with pytest.raises(ValueError, match=message):
            balancer.update(GRADS, balancer.init(PARAMS))


def test_priorities_multiply_the_weights_of_any_method():
    plain, priorities = jaxmtl.mgda(num_tasks=3), {"a": 1.0, "b": 2.0, "c": 0.5}
    _, before = plain.update(GRADS, plain.init(PARAMS))
    balancer = jaxmtl.prioritise(plain, priorities)
    _, after = balancer.update(GRADS, balancer.init(PARAMS))
    np.testing.assert_allclose(
        after.task_weights, before.task_weights * np.array([1, 2, 0.5]), rtol=1e-6
    )


def test_priorities_are_also_kept_where_only_they_know_the_number_of_tasks():
    balancer = jaxmtl.prioritise(jaxmtl.mgda(), [1.0, 2.0, 0.5])
    assert balancer.init(PARAMS).task_weights.shape == (3,)
    shared = jaxmtl.prioritise(jaxmtl.on_shared(jaxmtl.mgda(), lambda p: "trunk" in p), [1, 2, 3])
    updates, _ = shared.update(GRADS, shared.init(PARAMS))
    np.testing.assert_allclose(updates["heads"], [100, 200, 300])
