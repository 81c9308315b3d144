"""Methods with a main task, against NumPy in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.gradients.test_norm_methods import run
from tests.references import averaged, gradients, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")

STACKS = [gradients(seed, 4, 30, spread=2, kind="conflicting") for seed in range(6)]
NAMED = {"a": False, "b": False, "main": True, "z": False}


@pytest.mark.parametrize("relax", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("main", [2, "main", NAMED, [False, False, True, False]])
def test_metabalance(main, relax):
    balancer = jaxmtl.metabalance(4, main, relax=relax, decay=0.8)
    state, update = balancer.init(jnp.zeros(30)), jax.jit(balancer.update)
    norms = np.array([np.linalg.norm(j, axis=1) for j in STACKS])
    for t, j in enumerate(STACKS):
        losses = dict.fromkeys(NAMED, 1.0)
        d, state = update(jnp.asarray(j, jnp.float32), state, losses=losses)
        means = averaged(norms[: t + 1], 0.8)
        expected = np.where(list(NAMED.values()), 1, relax * means[2] / means + 1 - relax)
        np.testing.assert_allclose(state.task_weights, expected, rtol=1e-5)
        assert relative_error(d, expected @ j) < 1e-5


def test_metabalance_measures_against_an_absent_main_task():
    balancer = jaxmtl.metabalance(2, 0, relax=1.0)
    state = balancer.init(jnp.zeros(2))
    grads = jnp.diag(jnp.array([3.0, 1.0]))
    present = jnp.array([False, True])
    _, first = balancer.update(grads, state, active=present)
    np.testing.assert_array_equal(first.task_weights, [0, 1])
    _, state = balancer.update(grads, state)
    _, state = balancer.update(grads, state, active=present)
    np.testing.assert_allclose(state.task_weights, [0, 3], rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_auxiliary_cosine(weighted):
    _, weights, _ = run(jaxmtl.auxiliary_cosine(4, 2, weighted=weighted), STACKS)
    seen = set()
    for j, found in zip(STACKS, weights, strict=True):
        unit = j / np.linalg.norm(j, axis=1, keepdims=True)
        cosines = unit @ unit[2]
        expected = np.maximum(cosines, 0) if weighted else (cosines > 0).astype(float)
        expected[2] = 1
        np.testing.assert_allclose(found, expected, atol=1e-6)
        seen |= set(cosines > 0)
    assert seen == {True, False}


def test_auto_lambda():
    """The weights before their step; <g_i of the first batch, g_main of the second>."""
    balancer = jaxmtl.auto_lambda(4, 2, step_size=0.3)
    state, update = balancer.init(jnp.zeros(30)), jax.jit(balancer.update)
    expected, reached_zero = np.array([0.1, 0.1, 1, 0.1]), False
    for seed, j in enumerate(STACKS):
        first, second = (gradients(100 + seed + k, 4, 30, spread=1) for k in range(2))
        batches = tuple(jnp.asarray(x, jnp.float32) for x in (first, second))
        grads = jnp.asarray(j, jnp.float32)
        _, state = update(grads, state, independent_grads=batches)
        np.testing.assert_allclose(state.task_weights, expected, rtol=1e-5, atol=1e-6)
        helps = first @ second[2] / np.mean(np.sum(j**2, axis=1))
        moved = np.maximum(expected + 0.3 * helps, 0)
        expected = np.where(np.arange(4) == 2, 1, moved)
        reached_zero |= bool(np.any(moved == 0))
    assert reached_zero


def nearest(h, share):
    """The projection of the first row, with the constraints of the others, by trying all sets."""
    others, best = range(1, len(h)), None
    for size in range(len(h)):
        for chosen in map(list, itertools.combinations(others, size)):
            gram = h[chosen] @ h[chosen].T
            missing = share * np.diag(gram) - h[chosen] @ h[0]
            z = np.linalg.lstsq(gram, missing, rcond=None)[0]
            d = h[0] + z @ h[chosen]
            slack = h[1:] @ d - share * np.sum(h[1:] ** 2, axis=1)
            if slack.min() > -1e-9 and (best is None or np.sum((d - h[0]) ** 2) < best[0] - 1e-12):
                best = np.sum((d - h[0]) ** 2), d
    return h[0] if best is None else best[1]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_pcd(share):
    decay, squares, constrained = 0.9, [], 0
    balancer = jaxmtl.pcd(4, 0, share=share, decay=decay)
    updates, _, state = run(balancer, STACKS)
    for j, d in zip(STACKS, updates, strict=True):
        squares.append(np.sum(j**2, axis=1))
        h = j / np.sqrt(averaged(squares, decay))[:, None]
        expected = nearest(h, share)
        constrained += not np.allclose(expected, h[0])
        expected *= np.linalg.norm(j[0]) / np.linalg.norm(expected)
        assert relative_error(d, expected) < 1e-4
    assert constrained >= 3
    assert state.method.feasible


@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_pcd_without_a_direction_for_all_is_the_main_gradient(size):
    j = size * np.array([[3.0, 4.0, 0.0], [1.0, 0.0, 1.0], [-1.0, 0.0, -1.0]])
    updates, weights, state = run(jaxmtl.pcd(3, 0), [j])
    assert not state.method.feasible
    np.testing.assert_allclose(updates[0] / size, [3, 4, 0], rtol=1e-6)
    np.testing.assert_allclose(weights[0], [1, 0, 0], rtol=1e-6)
    # Two of them can be had, and then the main task is not alone.
    two, _, state = run(jaxmtl.pcd(2, 0), [j[[0, 2]]])
    assert state.method.feasible
    assert two[0] @ j[2] > 0


def test_pcd_with_share_zero_has_the_direction_of_the_dual_cone():
    j = STACKS[0]
    updates, _, _ = run(jaxmtl.pcd(4, 0, share=0.0), [j])
    assert np.all(j[1:] @ updates[0] > -1e-5 * np.linalg.norm(j[1:], axis=1))
    np.testing.assert_allclose(np.linalg.norm(updates[0]), np.linalg.norm(j[0]), rtol=1e-5)


def test_pcd_of_opposed_gradients_that_leave_nothing():
    j = np.array([[1.0, 0.0], [-5.0, 0.0]])
    updates, _, _ = run(jaxmtl.pcd(2, 0, share=0.0), [j])
    np.testing.assert_array_equal(updates[0], [0, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxmtl.pcd(2, main=2), "main must be the name or the index of one of the 2"),
        (lambda: jaxmtl.pcd(2, main=0, share=2.0), "share must be a number from 0 to 1"),
        (lambda: jaxmtl.metabalance(2, main=[True, True]), "of which one is true"),
        (lambda: jaxmtl.metabalance(2, main=0, relax=-1.0), "relax must be a number from 0"),
        (lambda: jaxmtl.auto_lambda(2, main=0, initial=-1.0), "initial must be a number of at"),
        (lambda: jaxmtl.auxiliary_cosine(3, main=[True, False]), "main holds 2 values"),
        (lambda: jaxmtl.auxiliary_cosine(2, main=0, weighted=1), "weighted must be True or"),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
