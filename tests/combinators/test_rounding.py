"""A gradient of rounding, as that of a loss at its minimum is, must not make weights that last."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.references import gradients, relative_error
from tests.test_every_method import METHODS, PARAMS, as_tree, each, make, needed

pytestmark = pytest.mark.usefixtures("quick_compiler")

NOISE = 5e-8
# These two watch for it themselves: lr_annealing holds the weight that the task has, and excess_mtl
# has a Gramian of accumulated squares.
BY_THEMSELVES = ("excess_mtl", "lr_annealing")
READ_THE_GRAMIAN = [
    name
    for name in METHODS
    if "gramian" in make(name).weighting.reads and name not in BY_THEMSELVES
]


def at_its_minimum(seed=0):
    """Three gradients, of which the last one is rounding at first; and what it is later."""
    later = gradients(seed, 3, 10)
    later /= np.linalg.norm(later, axis=1, keepdims=True)
    first = later * np.array([[1.0], [1.0], [NOISE]])
    return as_tree(first), as_tree(later)


@each(READ_THE_GRAMIAN, soon=("normalize", "imtl_g", "mgda"))
def test_what_is_held_is_of_the_others_size(name):
    """The weights of the others are those without it, and its own is the least of them."""
    balancer = jaxmtl.every(make(name), 1000)
    first, later = at_its_minimum()
    losses = jnp.array([1.0, 2.0, 0.5])
    state = balancer.init(PARAMS)
    _, held = balancer.update(first, state, losses=losses, **needed(name, first))
    present = jnp.array([True, True, False])
    _, alone = balancer.update(first, state, losses=losses, active=present, **needed(name, first))
    expected = np.array(alone.timing.weights)
    expected[2] = max(expected[:2].min(), 0)
    np.testing.assert_allclose(held.timing.weights, expected, rtol=1e-6)
    # So does it stay when that task begins to count.
    _, after = balancer.update(later, held, losses=losses, **needed(name, later))
    np.testing.assert_allclose(after.task_weights, expected, rtol=1e-6)


@pytest.mark.parametrize("noise", [0.0, NOISE])
@pytest.mark.parametrize("reference", [None, 0])
def test_lr_annealing_holds_the_weight_that_the_task_has(reference, noise):
    _, later = at_its_minimum()
    first = jax.tree.map(lambda leaf: leaf.at[2].multiply(noise), later)
    balancer = jaxmtl.every(jaxmtl.lr_annealing(3, reference=reference), 2)
    _, state = balancer.update(first, balancer.init(PARAMS))
    assert state.task_weights[2] == 1
    for grads in (first, later, first, first):
        _, state = balancer.update(grads, state)
    _, fresh = balancer.update(later, balancer.init(PARAMS))
    np.testing.assert_allclose(state.task_weights[2], fresh.task_weights[2], rtol=1e-5)


def test_excess_mtl_does_not_outgrow_it():
    balancer = jaxmtl.excess_mtl(3)
    first, later = at_its_minimum()
    _, state = balancer.update(first, balancer.init(PARAMS))
    for _ in range(3):
        _, state = balancer.update(later, state)
    np.testing.assert_allclose(state.task_weights, 1 / 3, rtol=0.02)


def test_smooth_does_not_remember_it():
    balancer = jaxmtl.smooth(jaxmtl.normalize(num_tasks=3), 0.9)
    first, later = at_its_minimum()
    _, state = balancer.update(first, balancer.init(PARAMS))
    _, state = balancer.update(later, state)
    np.testing.assert_allclose(state.task_weights, 1, rtol=1e-5)


@pytest.mark.parametrize("name", ["imtl_g", "aligned_mtl", "nash_mtl", "conflict_free"])
def test_methods_start_in_spite_of_it(name):
    """The update is that of the two other tasks, up to the rounding itself."""
    first, _ = at_its_minimum()
    plain, wrapped = make(name), jaxmtl.skip_rounding(make(name))
    updates, _ = wrapped.update(first, wrapped.init(PARAMS))
    two = jax.tree.map(lambda leaf: leaf[:2], first)
    method = make(name, 2)
    expected, _ = method.update(two, method.init(PARAMS))
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(u)]) for u in (updates, expected)]
    assert relative_error(*flat) < 1e-6
    if name in ("imtl_g", "aligned_mtl"):
        unstarted, _ = plain.update(first, plain.init(PARAMS))
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(unstarted)) < 1e-6


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize(("type_", "floor"), [("float32", 8 * 2.0**-23), ("float64", 8 * 2.0**-52)])
def test_the_bound_is_relative_and_that_of_the_type(type_, floor, size):
    balancer = jaxmtl.skip_rounding(jaxmtl.normalize(num_tasks=2))
    with jax.enable_x64(type_ == "float64"):
        for factor, skipped in [(0.9, True), (1.1, False)]:
            j = jnp.diag(size * jnp.array([1.0, factor * floor], type_))
            _, state = balancer.update(j, balancer.init(jnp.zeros(2, type_)))
            weights = np.asarray(state.task_weights) * size
            np.testing.assert_allclose(weights, [1, 1 if skipped else 1 / (factor * floor)], 1e-6)


def test_how_many_roundings_is_the_users_to_say():
    j = jnp.diag(jnp.array([1.0, 1e-4]))

    def weights(balancer):
        return balancer.update(j, balancer.init(jnp.zeros(2)))[1].task_weights

    method = jaxmtl.normalize(num_tasks=2)
    np.testing.assert_allclose(weights(jaxmtl.skip_rounding(method)), [1, 1e4], rtol=1e-6)
    np.testing.assert_allclose(weights(jaxmtl.skip_rounding(method, 1e4)), 1)
    tiny = jnp.diag(jnp.array([1.0, 1e-12]))
    held = jaxmtl.every(jaxmtl.skip_rounding(method, 0), 10)
    _, state = held.update(tiny, held.init(jnp.zeros(2)))
    np.testing.assert_allclose(state.task_weights, [1, 1e12], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-9, 1e9])
@pytest.mark.parametrize("within", [True, False])
def test_losses_with_weights_of_their_own_keep_them(within, size):
    """And their gradients are no measure for the others'."""
    kinds, method = ["balanced", "balanced", 0.1], jaxmtl.normalize(num_tasks=2)
    if within:
        balancer = jaxmtl.with_fixed(jaxmtl.every(method, 10), kinds)
    else:
        balancer = jaxmtl.every(jaxmtl.with_fixed(method, kinds), 10)
    j = jnp.diag(jnp.array([2.0, NOISE, size]))
    _, state = balancer.update(j, balancer.init(jnp.zeros(3)))
    np.testing.assert_allclose(state.task_weights, [0.5, 0.5, 0.1], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxmtl.skip_rounding(jaxmtl.equal()), "but this balancer reads nothing"),
        (lambda: jaxmtl.skip_rounding(jaxmtl.lr_annealing(2)), "leaves out .* already"),
        (lambda: jaxmtl.skip_rounding(jaxmtl.mgda(), -1.0), "roundings must be a number of at"),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
