"""Laws of the methods, searched for counterexamples among structured stacks of gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxmtl.methods import METHODS
from jaxmtl.solvers import dual_cone
from tests.crosschecks import exact

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compiler")]

SIZE = 6
TASKS = (2, 3, 5)
# Functions of the Gramian alone that treat all tasks alike and depend on it continuously.
NAMES = (
    "normalize",
    "mgda",
    "upgrad",
    "dualproj",
    "cagrad",
    "nash_mtl",
    "fairgrad",
    "imtl_g",
    "conflict_free",
    "aligned_mtl",
)
search = settings(max_examples=25, derandomize=True, deadline=None)
every_method = pytest.mark.parametrize("name", NAMES)
every_size = pytest.mark.parametrize("num", TASKS)


@functools.cache
def compiled(name, num):
    balancer = METHODS[name].make(num, jax.random.key(7))

    @jax.jit
    def update(j):
        updates, state = balancer.update(j, balancer.init(jnp.zeros(SIZE)))
        return updates, state.task_weights

    return update


def update_of(name, j):
    """The update and the weights, in float64."""
    found = compiled(name, len(j))(jnp.asarray(j, jnp.float32))
    return tuple(np.asarray(array, np.float64) for array in found)


def terms(j, weights):
    """The size of what is summed: what float32's rounding errors are in proportion to."""
    return np.abs(weights) @ exact.lengths(j)


@st.composite
def rows(draw, num):
    """Rows of small integers, some the same, opposite or zero, as exactly as can be."""
    numbers = st.lists(st.integers(-4, 4), min_size=num * SIZE, max_size=num * SIZE)
    j = np.array(draw(numbers), np.float64).reshape(num, SIZE)
    for i in range(1, num):
        kind = draw(st.sampled_from(["own", "own", "same", "opposite", "zero", "others"]))
        other = draw(st.integers(0, i - 1))
        if kind == "same":
            j[i] = j[other]
        elif kind == "opposite":
            j[i] = -j[other]
        elif kind == "zero":
            j[i] = 0
        elif kind == "others":
            j[i] = -j[:i].sum(axis=0)
    return j[list(draw(st.permutations(range(num))))]


def factors(num, base=10.0, most=3):
    """Row factors base^e."""
    exponents = st.lists(st.integers(-most, most), min_size=num, max_size=num)
    return exponents.map(lambda e: base ** np.array(e, np.float64)[:, None])


def stacks(num):
    """Rows of any length, as float32 holds them."""
    return st.tuples(rows(num), factors(num)).map(
        lambda drawn: (drawn[0] * drawn[1]).astype(np.float32).astype(np.float64)
    )


def independent(num, name=None):
    """Conflicting or not, each row has something of its own: mostly a condition below 10^3."""
    most = 1 if name == "mgda" else 3  # it gives figures for lengths that span 10^3
    numbers = st.lists(st.integers(-4, 4), min_size=num * SIZE, max_size=num * SIZE)
    own = 3 * np.eye(num, SIZE)
    return st.tuples(numbers, factors(num, most=most)).map(
        lambda drawn: (
            (drawn[1] * (np.reshape(drawn[0], (num, SIZE)) + own))
            .astype(np.float32)
            .astype(np.float64)
        )
    )


def assume_well_conditioned(j):
    assume(np.all(exact.lengths(j) > 0))
    assume(exact.condition(j) <= 1e3)


def assume_it_is_well_posed(name, weights):
    """IMTL-G divides by the sum of its weights."""
    assume(name != "imtl_g" or abs(weights.sum()) > 1e-2 * np.abs(weights).sum())


def same(name):
    """Relative distance that counts as none; MGDA's tolerance is on its gap, the square of it."""
    return 1e-3 if name == "mgda" else 1e-4


@pytest.mark.parametrize("name", [n for n in NAMES if METHODS[n].descends_all])
@every_size
def test_no_conflict(name, num):
    """<g_i, d> >= 0 as far as rounding of the terms of d tells, on independent gradients or not."""
    equal_cosines = name in ("imtl_g", "conflict_free")  # promised for independent ones

    @search
    @given(independent(num) if equal_cosines else stacks(num))
    def law(j):
        if equal_cosines:
            assume_well_conditioned(j)
        d, weights = update_of(name, j)
        assert np.all(np.isfinite(d))
        assert np.all(j @ d >= -1e-5 * exact.lengths(j) * terms(j, weights))

    law()


@every_method
@every_size
def test_degree(name, num):
    @search
    @given(independent(num, name), st.integers(-12, 12))
    def law(j, exponent):
        assume_well_conditioned(j)
        d, weights = update_of(name, j)
        assume_it_is_well_posed(name, weights)
        c = 10.0**exponent
        scaled, _ = update_of(name, c * j)
        expected = c ** METHODS[name].degree * d
        assert np.linalg.norm(scaled - expected) <= same(name) * np.linalg.norm(expected)

    law()


@every_method
@every_size
def test_powers_of_two_change_nothing_else_whatever_the_gradients(name, num):
    """They do not round, so the law holds of dependent, opposite and zero gradients as well."""

    @search
    @given(stacks(num), st.integers(-40, 40))
    def law(j, exponent):
        if name == "cagrad":  # see the next test
            assume(np.linalg.norm(j.sum(axis=0)) > 1e-3 * exact.lengths(j).max())
        if name in ("nash_mtl", "fairgrad"):  # no solution where gradients cancel
            present = j[exact.lengths(j) > 0]
            assume(len(present) == 0 or exact.room(present) > 1e-2)
        d, weights = update_of(name, j)
        c = 2.0**exponent
        scaled, _ = update_of(name, c * j)
        error = np.linalg.norm(scaled * c ** -METHODS[name].degree - d)
        assert error <= 1e-5 * terms(j, weights)

    law()


def test_cagrad_is_finite_where_the_mean_is_zero():
    j = np.array([[10.0], [-10.0], [0.0]]) * np.eye(1, SIZE)
    j[:, :3] = j[:, :1]
    d, _ = update_of("cagrad", j)
    assert np.all(np.isfinite(d))


@every_method
@every_size
def test_permutations(name, num):
    @search
    @given(independent(num, name), st.permutations(range(num)))
    def law(j, order):
        assume_well_conditioned(j)
        d, weights = update_of(name, j)
        assume_it_is_well_posed(name, weights)
        other, permuted = update_of(name, j[list(order)])
        assert np.linalg.norm(other - d) <= same(name) * np.linalg.norm(d)
        atol = same(name) * np.abs(weights).max()
        np.testing.assert_allclose(permuted, weights[list(order)], atol=atol)

    law()


@pytest.mark.parametrize("name", ["nash_mtl", "normalize"])
@every_size
def test_lengths_do_not_matter(name, num):
    @search
    @given(independent(num), factors(num))
    def law(j, c):
        assume_well_conditioned(j)
        d, _ = update_of(name, j)
        other, _ = update_of(name, c * j)
        assert np.linalg.norm(other - d) <= 1e-4 * np.linalg.norm(d)

    law()


@every_size
def test_mgda_has_convex_weights(num):
    @search
    @given(stacks(num))
    def law(j):
        _, weights = update_of("mgda", j)
        assert np.all(weights >= 0)
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)

    law()


@every_size
def test_upgrad_is_linear_in_the_lengths(num):
    """A(diag(c) J) = sum_i c_i A_i, A_i the projection of g_i / T."""
    project = jax.jit(lambda gramian: dual_cone(gramian, jnp.eye(num) / num).z)

    @search
    @given(independent(num), factors(num))
    def law(j, c):
        assume_well_conditioned(j)
        each = np.asarray(project(jnp.asarray(j @ j.T, jnp.float32)), np.float64) @ j
        d, _ = update_of("upgrad", c * j)
        parts = c * each
        assert np.linalg.norm(d - parts.sum(axis=0)) <= 1e-4 * exact.lengths(parts).max()

    law()


@pytest.mark.parametrize("name", ["mgda", "upgrad", "dualproj"])
@every_size
def test_nothing_moves_where_gradients_cancel(name, num):
    """At a Pareto stationary point positive weights make the gradients vanish together."""
    moved = []
    for seed in range(100):
        rng = np.random.default_rng([seed, num])
        j = exact.units(rng.normal(size=(num, SIZE)))
        j[-1] = -rng.uniform(0.2, 1, size=num - 1) @ j[:-1]
        d, _ = update_of(name, j)
        if np.linalg.norm(d) > 1e-3:
            moved.append(seed)
    assert not moved, f"{len(moved)} of 100"
