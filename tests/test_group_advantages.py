"""Advantages of several rewards, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl

pytestmark = pytest.mark.usefixtures("quick_compiler")


def of_paper(rewards, groups, weights):
    """Standardised within the group, summed, standardised over the batch; NaN for what is absent.

    Args:
      rewards: (B, K).
      groups: (B,).
      weights: (K,).
    """
    sums = np.zeros(len(rewards))
    for column, weight in zip(rewards.T, weights, strict=True):
        for group in np.unique(groups):
            members = np.flatnonzero((groups == group) & ~np.isnan(column))
            if len(members) and np.ptp(column[members]) > 0:
                values = column[members]
                sums[members] += weight * (values - values.mean()) / values.std()
    there = ~np.all(np.isnan(rewards), axis=1)
    found = np.zeros(len(rewards))
    found[there] = (sums[there] - sums[there].mean()) / sums[there].std()
    return found


def draw(seed, num_groups=6, size=8, absent=0.2):
    """A share of right answers, a length, a score with an offset; some of them absent."""
    rng = np.random.default_rng(seed)
    number = num_groups * size
    rewards = np.stack(
        [
            (rng.uniform(size=number) < 0.3).astype(float),
            rng.integers(20, 400, size=number).astype(float),
            5 + 1e-2 * rng.normal(size=number),
        ],
        axis=1,
    )
    rewards[rng.uniform(size=rewards.shape) < absent] = np.nan
    rewards[:size, 0] = 1.0
    rewards[3] = np.nan if absent else rewards[3]
    return rewards.astype(np.float32).astype(float), np.repeat(np.arange(num_groups), size)


@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_against_numpy(absent):
    weights = np.array([2.0, 0.5, 1.0])
    for seed in range(3):
        rewards, groups = draw(seed, absent=absent)
        expected = of_paper(rewards, groups, weights)
        find = jax.jit(lambda r, w: jaxmtl.group_advantages(r, group_size=8, weights=w))
        found = find(jnp.asarray(rewards, jnp.float32), weights)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, atol=2e-3)
        with jax.enable_x64(True):
            found = jaxmtl.group_advantages(jnp.asarray(rewards), group_size=8, weights=weights)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        # Of groups in any order, by any numbers.
        order = np.random.default_rng(seed).permutation(len(groups))
        names = np.array([7, -3, 100, 0, 2**30, 5])[groups][order]
        mixed = jax.jit(lambda r, g, w: jaxmtl.group_advantages(r, groups=g, weights=w))
        found = mixed(jnp.asarray(rewards[order], jnp.float32), names, weights)
        np.testing.assert_allclose(found, expected[order], atol=2e-3)


def test_names_and_what_the_batch_has():
    rewards, groups = draw(7)
    tree = dict(zip("abc", jnp.asarray(rewards.T, jnp.float32), strict=True))
    weights = {"c": 3.0, "a": 1.0, "b": 2.0}
    found = jaxmtl.group_advantages(tree, groups=groups, weights=weights)
    np.testing.assert_allclose(found, of_paper(rewards, groups, [1, 2, 3]), atol=2e-3)
    there = ~np.all(np.isnan(rewards), axis=1)
    assert found[3] == 0
    assert not there[3]
    np.testing.assert_allclose(np.mean(found[there]), 0, atol=1e-6)
    np.testing.assert_allclose(np.var(found[there]), 1, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_each_reward_may_have_its_own_scale(scale):
    rewards, _ = draw(1)
    table = jnp.asarray(rewards, jnp.float32)
    plain = jaxmtl.group_advantages(table, group_size=8)
    scaled = jaxmtl.group_advantages(table * jnp.array([[1, scale, 1 / scale]]), group_size=8)
    np.testing.assert_allclose(scaled, plain, atol=1e-3)


def test_rounding_is_no_reward():
    """What is equal up to rounding adds nothing, in a group and where rewards cancel."""
    rewards, _ = draw(2, absent=0.0)
    score = jnp.asarray(rewards[:, 1], jnp.float32)
    noise = jnp.float32(0.1) + jnp.asarray(np.arange(len(score)) % 2 * 7.5e-9, jnp.float32)
    assert len(np.unique(noise)) == 2
    alone = jaxmtl.group_advantages({"score": score}, group_size=8)
    both = jaxmtl.group_advantages({"noise": noise, "score": score}, group_size=8)
    np.testing.assert_array_equal(both, alone)
    for other in (score, 3 * score, score - 1000):
        opposite = {"for": score, "against": -other}
        np.testing.assert_array_equal(jaxmtl.group_advantages(opposite, group_size=8), 0)
    np.testing.assert_array_equal(jaxmtl.group_advantages({"one": score}, group_size=1), 0)


def test_whole_numbers_nothing_at_all_and_infinity():
    right = np.array([[1, 0, 0, 1, 1, 1]])
    found = jaxmtl.group_advantages(right.T, group_size=3)
    np.testing.assert_allclose(found, of_paper(right.T * 1.0, np.arange(6) // 3, [1]), atol=1e-6)
    with jax.debug_nans(True):
        assert np.all(jaxmtl.group_advantages(right.T > 5, group_size=3) == 0)
    none = jaxmtl.group_advantages(jnp.full((4, 2), jnp.nan), group_size=2)
    np.testing.assert_array_equal(none, 0)
    for rewards in ([1.0, jnp.inf, 3.0, 4.0], [jnp.inf, jnp.inf, 3.0, 4.0]):
        broken = jaxmtl.group_advantages({"a": jnp.array(rewards)}, group_size=2)
        assert np.all(np.isnan(broken))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "identified by either groups, .* or group_size, but groups is None"),
        ({"groups": np.zeros(4, int), "group_size": 2}, "identified by either groups"),
        ({"group_size": 3}, "group_size must divide the number of answers, 4, but it is 3"),
        ({"groups": np.zeros(4)}, "groups must hold whole numbers"),
        ({"groups": np.zeros(3, int)}, r"groups must have shape \(4,\)"),
        ({"group_size": 2, "weights": [1.0]}, "weights holds 1 values"),
        ({"group_size": 2, "weights": {"a": 1.0, "c": 2.0}}, "must have the same names"),
        ({"rewards": [1.0, 2.0], "group_size": 1}, "rewards must be a tree of arrays of one shape"),
        (
            {"rewards": {"a": np.ones(4), "b": np.ones(3)}, "group_size": 1},
            r"leaves have shapes \[\(4,\), \(3,\)\]",
        ),
    ],
)
def test_messages(options, message):
    rewards = {"a": np.ones(4), "b": np.ones(4)}
    with pytest.raises(ValueError, match=message):
        jaxmtl.group_advantages(**({"rewards": rewards} | options))
