"""A ridge on the Gramian, against float64: gradients that are very short hardly count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

import jaxmtl
from tests.references import gradients, min_norm_weights, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")


def with_roots(j, ridge):
    """Gradients with the inner products of these and of the ridge: each has an axis of its own."""
    return np.hstack([j, np.sqrt(ridge * np.sum(j**2)) * np.eye(len(j))])


def weights_of(balancer, j, **options):
    _, state = balancer.update(
        jnp.asarray(j, jnp.float32), balancer.init(jnp.zeros(j.shape[1])), **options
    )
    return np.asarray(state.task_weights, np.float64)


@pytest.mark.parametrize("ridge", [1e-4, 1e-2])
@pytest.mark.parametrize("spread", [0.0, 4.0])
def test_the_weights_are_those_of_the_gramian_with_the_ridge(ridge, spread):
    j = gradients(0, 5, 40, spread, kind="conflicting")
    full = with_roots(j, ridge)
    conflict = nnls(full.T, -full.T @ np.full(5, 0.2))[0]
    found = weights_of(jaxmtl.with_ridge(jaxmtl.dualproj(num_tasks=5), ridge), j)
    np.testing.assert_allclose(found, 0.2 + conflict, rtol=1e-4, atol=1e-5)
    found = weights_of(jaxmtl.with_ridge(jaxmtl.mgda(num_tasks=5), ridge), j)
    np.testing.assert_allclose(found, min_norm_weights(full), atol=1e-4)


def test_the_update_is_made_of_the_gradients_as_they_are():
    j = gradients(1, 4, 30, kind="conflicting")
    balancer = jaxmtl.with_ridge(jaxmtl.upgrad(num_tasks=4), 0.1)
    updates, state = balancer.update(jnp.asarray(j, jnp.float32), balancer.init(jnp.zeros(30)))
    assert relative_error(updates, np.asarray(state.task_weights, np.float64) @ j) < 1e-5


def test_a_gradient_of_a_millionth_turns_no_other_aside():
    j = np.array([[1.0, 0.0], [-1e-6, 1e-6]])
    assert weights_of(jaxmtl.upgrad(num_tasks=2), j)[1] > 1e5
    np.testing.assert_allclose(
        weights_of(jaxmtl.with_ridge(jaxmtl.upgrad(num_tasks=2)), j), 0.5, atol=1e-2
    )


def test_tasks_that_take_no_part_do_not_count():
    j = gradients(2, 3, 20, kind="conflicting") * np.array([[1.0], [1.0], [1e3]])
    two = weights_of(jaxmtl.with_ridge(jaxmtl.dualproj(num_tasks=2), 0.1), j[:2])
    balancer = jaxmtl.with_ridge(jaxmtl.dualproj(num_tasks=3), 0.1)
    active = jnp.array([True, True, False])
    np.testing.assert_allclose(weights_of(balancer, j, active=active)[:2], two, rtol=1e-5)
    roles = {"a": "balanced", "b": "balanced", "c": 1.0}
    fixed = jaxmtl.with_ridge(jaxmtl.with_fixed(jaxmtl.dualproj(num_tasks=2), roles), 0.1)
    losses = dict.fromkeys(roles, jnp.ones(()))
    np.testing.assert_allclose(weights_of(fixed, j, losses=losses)[:2], two, rtol=1e-5)


@pytest.mark.parametrize("exponent", [-12, 0, 12])
def test_the_units_of_all_gradients_together_do_not_matter(exponent):
    j = gradients(3, 4, 30, spread=3, kind="conflicting")
    balancer = jaxmtl.with_ridge(jaxmtl.upgrad(num_tasks=4))
    found = weights_of(balancer, j * 10.0**exponent)
    np.testing.assert_allclose(found, weights_of(balancer, j), rtol=1e-4)


def test_none_at_all_is_the_method():
    j = gradients(4, 3, 30, spread=2, kind="conflicting")
    plain = weights_of(jaxmtl.upgrad(num_tasks=3), j)
    np.testing.assert_array_equal(
        weights_of(jaxmtl.with_ridge(jaxmtl.upgrad(num_tasks=3), 0.0), j), plain
    )


def test_every_route_gives_the_same_update():
    def losses_fn(x):
        return {"a": jnp.sum((x - 1) ** 2), "b": jnp.sum((x + 1) ** 2), "c": 1e-6 * jnp.sum(x)}

    balancer = jaxmtl.with_ridge(jaxmtl.upgrad(num_tasks=3), 1e-2)
    x = jnp.array([0.3, -0.2, 0.9])
    found = [
        jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer, memory=memory))(
            balancer.init(x), x
        )[1]
        for memory in ("stacked", "lean")
    ]
    losses, grads = jaxmtl.value_and_task_grads(losses_fn)(x)
    expected, _ = balancer.update(grads, balancer.init(x), losses=losses)
    for each in found:
        np.testing.assert_allclose(each, expected, rtol=1e-5)


@pytest.mark.parametrize("make", [lambda b: jaxmtl.every(b, 2), lambda b: jaxmtl.smooth(b, 0.9)])
def test_rounding_is_left_out_whatever_the_order(make):
    j = gradients(5, 3, 20) * np.array([[1.0], [1.0], [1e-9]])
    inside = weights_of(make(jaxmtl.with_ridge(jaxmtl.normalize(num_tasks=3))), j)
    outside = weights_of(jaxmtl.with_ridge(make(jaxmtl.normalize(num_tasks=3))), j)
    assert inside[2] == np.min(inside)
    np.testing.assert_allclose(outside, inside, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: jaxmtl.with_ridge(jaxmtl.equal()), "but this balancer reads nothing"),
        (lambda: jaxmtl.with_ridge(jaxmtl.modo(2)), "the inner products of two batches"),
        (lambda: jaxmtl.with_ridge(jaxmtl.upgrad(), -1.0), "ridge must be a number of at least"),
        (lambda: jaxmtl.with_ridge(jaxmtl.upgrad), "call it, since"),
    ],
)
def test_bad_arguments(make, said):
    with pytest.raises(ValueError, match=said):
        make()
