"""Intervals and ranks against scipy.stats, and what the verdict says of problems made for it."""

import numpy as np
import pytest
import scipy.stats

from jaxmtl.comparison._statistics import Interval, differs, interval, mean_ranks
from jaxmtl.comparison._verdict import FIXED, Seen, verdict
from jaxmtl.methods import METHODS

TASKS = ["left", "right"]
UP = np.array([True, True])


@pytest.mark.parametrize("seeds", [2, 3, 5, 30])
@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_the_interval_is_that_of_scipy(seeds, scale):
    sample = scale * (0.3 + np.random.default_rng(seeds).normal(size=seeds))
    expected = scipy.stats.ttest_1samp(sample / scale, 0).confidence_interval(0.95)
    found = interval(sample)
    np.testing.assert_allclose(
        found[:3], scale * np.array([sample.mean() / scale, *expected]), 1e-10
    )
    assert found.seeds == seeds


def test_the_interval_of_two_in_closed_form():
    """One degree of freedom is Cauchy's law: its quantile is tan(pi (0.975 - 0.5))."""
    half = np.tan(np.pi * 0.475) * 0.5
    np.testing.assert_allclose(interval([1.0, 2.0])[:3], (1.5, 1.5 - half, 1.5 + half))


@pytest.mark.parametrize("value", [0.1, -0.3, 0.0, 1e300])
def test_equal_differences_have_no_spread(value):
    assert interval(np.full(7, value)) == (value, value, value, 7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_seed_is_not_dropped(bad):
    found = interval([1.0, bad, 1.0])
    assert np.isnan(found.mean)
    assert found[1:] == (-np.inf, np.inf, 3)
    assert differs(found) == ""


def test_one_seed_bounds_nothing():
    assert interval([2.0]) == (2.0, -np.inf, np.inf, 1)


def test_the_interval_holds_95_times_in_100():
    samples = np.random.default_rng(0).normal(size=(4000, 5))
    found = [differs(interval(sample)) for sample in samples]
    # 100 each are expected, with a standard deviation of 10.
    assert 60 < found.count("better") < 140
    assert 60 < found.count("worse") < 140


def test_differs():
    assert differs(Interval(1.0, 0.1, 1.9, 3)) == "better"
    assert differs(Interval(-1.0, -1.9, -0.1, 3)) == "worse"
    assert differs(Interval(1.0, 0.0, 2.0, 3)) == differs(Interval(-1.0, -2.0, 0.0, 3)) == ""
    assert differs(interval([1.0, 1.0])) == ""  # two seeds, however equal
    assert differs(interval([0.0, 0.0, 0.0])) == ""


def test_ranks_are_those_of_scipy():
    # Whole numbers, so that there are ties.
    values = np.random.default_rng(0).integers(4, size=(6, 3, 5)).astype(np.float32)
    maximize = np.array([True, False, True, False, True])
    means = values.astype(float).mean(axis=1) * np.where(maximize, -1, 1)
    expected = scipy.stats.rankdata(means, axis=0).mean(axis=1)
    ranks = mean_ranks({str(i): sample for i, sample in enumerate(values)}, maximize)
    np.testing.assert_allclose(list(ranks.values()), expected)
    np.testing.assert_allclose(sum(ranks.values()), 6 * 7 / 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_who_diverged_is_last(bad):
    metrics = {name: np.full((3, 2), value) for name, value in [("a", 1.0), ("b", 2.0), ("c", 9.0)]}
    metrics["c"][1, 0] = bad
    assert mean_ranks(metrics, UP) == {"a": 2.5, "b": 1.5, "c": 2.0}
    metrics["b"][0, 0] = bad  # the two that diverged share the last places: 2 and 3
    assert mean_ranks(metrics, UP) == {"a": 2.0, "b": 2.25, "c": 1.75}


def changes_of(seeds=5, **means):
    """Changes that scatter by about one per cent, most of it the same for all methods of a seed."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(seeds, 2))
    return {
        name: shared + np.array(mean) + 0.1 * rng.normal(size=(seeds, 2))
        for name, mean in means.items()
    }


def say(changes, seen=None, alone=True):
    """The verdict on accuracies of 0.5 alone."""
    metrics = {name: 0.5 * (1 + change / 100) for name, change in changes.items()}
    return verdict(TASKS, metrics, UP, changes if alone else None, seen)


def test_every_fixed_name_is_a_method_and_the_thresholds_are_those_of_the_notebook():
    assert set(FIXED) <= set(METHODS)
    same = changes_of(equal=(2, 2), normalize=(2, 2))
    for ratio in (1.3, 4.2):
        assert "stay with equal" in say(same, Seen(0.47, ratio))[2]
    assert "stay" not in say(same, Seen(0.46, 20))[2]


def test_fixed_weights_are_enough():
    first, second, third = say(
        changes_of(equal=(2, 3), normalize=(2, 3), mgda=(-9, 1)), Seen(0.47, 4.2)
    )
    assert "over 5 seeds, fixed weights are enough: no method of 2 is better than equal" in first
    assert "the best, in points of Δm with its 95 % interval, is normalize" in first
    assert second.endswith("worse than the task trained alone by more than chance, no task.")
    assert "stay with equal, whatever the share of conflicts (47 %)" in third


def test_differences_are_paired():
    """A gain of 0.5 shows under seeds that scatter by ten, because all methods share them."""
    rng = np.random.default_rng(0)
    equal = 10 * rng.normal(size=(5, 2))
    changes = {"equal": equal, "pcgrad": equal + 0.5 + 0.01 * rng.normal(size=(5, 2))}
    assert "better than equal by more than chance" in say(changes)[0]
    changes["pcgrad"] = changes["pcgrad"][::-1]
    first = say(changes)[0]  # of intervals as wide as that
    assert "nobody can tell whether fixed weights are enough" in first
    assert "more seeds make the intervals shorter" in first


def test_better_methods_come_with_their_intervals():
    changes = changes_of(
        equal=(-30, -30), real_time_loss=(-9, -9), normalize=(1, 3), mgda=(-31, -31)
    )
    first, second, third = say(changes, Seen(0.46, 20))
    for name, mean in (("normalize", 32), ("real_time_loss", 21)):
        sample = (changes[name] - changes["equal"]).mean(axis=1)
        low, high = scipy.stats.ttest_1samp(sample, 0).confidence_interval(0.95)
        assert f"{name} {sample.mean():+.1f} ({low:+.1f} to {high:+.1f})" in first
        assert abs(sample.mean() - mean) < 0.5
    assert "mgda" not in first
    for i, task in enumerate(TASKS):
        sample = changes["equal"][:, i]
        low, high = scipy.stats.ttest_1samp(sample, 0).confidence_interval(0.95)
        assert f"{task} {sample.mean():+.1f} ({low:+.1f} to {high:+.1f})" in second
    assert third.startswith("Start with normalize, or every(normalize, 10)")


def test_a_single_backward_pass_is_preferred_where_nothing_beats_it():
    changes = changes_of(equal=(-30, -30), real_time_loss=(2, 2), normalize=(2.02, 2.02))
    assert say(changes)[2].startswith("Start with real_time_loss: a single backward pass")


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_tell_nothing(seeds):
    changes = changes_of(seeds, equal=(-30, -30), normalize=(3, 3))
    sentences = say(changes, Seen(0.46, 20))
    assert sentences[0].startswith(f"{['One seed is', 'Two seeds are'][seeds - 1]} too few")
    text = " ".join(sentences)
    assert "enough" not in text
    assert "Start" not in text
    assert "try initial_loss, prior_loss or real_time_loss." in text


def test_what_a_better_method_costs():
    changes = changes_of(equal=(-30, 0), pcgrad=(2, -4))
    third = say(changes)[2]
    sample = (changes["pcgrad"] - changes["equal"])[:, 1]
    low, high = scipy.stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    cost = f"right {sample.mean():+.1f} ({low:+.1f} to {high:+.1f})"
    assert third == f"Start with pcgrad. It costs, in %: {cost}."


def test_a_loss_of_one_per_cent_is_told_and_no_reason_to_change():
    changes = {name: found - 1 for name, found in changes_of(equal=(0, 0), mgda=(0, 0)).items()}
    changes = {name: 0.1 * (found + 1) - 1 for name, found in changes.items()}
    first, second, third = say(changes, Seen(0.4, 2))
    assert "fixed weights are enough" in first
    assert "left -" in second
    assert "stay with equal" in third


def test_what_to_try_next():
    changes = changes_of(equal=(-30, 1), pcgrad=(-30, 1), prior_loss=(-30, 1))
    first, second, third = say(changes, Seen(0.46, 20))
    assert "as good as any other" in first  # though not enough
    assert "left -" in second
    assert "right" not in second
    assert "try initial_loss or real_time_loss; then normalize, or every(normalize, 10)" in third
    assert "if the gradient of left is much shorter than the others" in third
    assert "upgrad or mgda if a loss rises while others fall" in third  # pcgrad was there
    third = say(changes, Seen(0.46, 1.3))[2]
    assert "normalize" not in third
    assert "initial_loss or real_time_loss if the losses differ in kind" in third
    assert "norm_ratio" in say(changes)[2]
    tried = ("initial_loss", "real_time_loss", "normalize", "upgrad", "mgda")
    changes |= dict.fromkeys(tried, changes["equal"])
    assert "keep equal" in say(changes, Seen(0.46, 20))[2]


def test_differences_that_read_as_zero_are_none():
    equal = np.zeros((5, 2))
    changes = {"equal": equal - 1e-4, "pcgrad": equal}
    first, second, _ = say(changes)
    assert "fixed weights are enough" in first
    assert "pcgrad +0.0 (+0.0 to +0.0)" in first
    assert "no task" in second


def test_without_references_in_per_cent_of_equal():
    changes = changes_of(equal=(-30, -30), normalize=(3, 3))
    accuracy = {name: 0.5 * (1 + change / 100) for name, change in changes.items()}
    gain = 100 * (accuracy["normalize"] - accuracy["equal"]) / accuracy["equal"].mean(axis=0)
    first, second, _ = say(changes, alone=False)
    assert (
        f"in % of the metrics of equal with 95 % intervals, are: normalize {gain.mean():+.1f}"
        in first
    )
    assert second.startswith("Train each task alone as well")
    # An error that is lower is better by as much.
    error = {name: -values for name, values in accuracy.items()}
    assert verdict(TASKS, error, ~UP)[0] == first


def test_without_equal_another_constant_is_compared_with():
    changes = changes_of(normalize=(3, 3), prior_loss=(-30, -30), static=(-30, -30))
    assert "better than static by more than chance" in say(changes)[0]
    only = {"normalize": changes["normalize"]}
    assert say(only) == ["Nothing says whether fixed weights are enough: train equal as well."]


def test_who_diverged_is_named():
    changes = changes_of(equal=(2, 2), normalize=(2, 2), mgda=(50, 50))
    changes["mgda"][1, 0] = np.nan
    first = say(changes)[0]
    assert "of 1 is better" in first
    assert first.endswith("; diverged: mgda on 1 of 5 seeds.")
    del changes["normalize"]
    assert say(changes)[0].startswith("There is nothing to compare equal with")
    changes["equal"][:2, 1] = np.inf
    assert say(changes) == [
        "Nothing can be compared with equal; diverged: equal on 2 of 5 seeds, mgda on 1 of 5 seeds."
    ]


def test_a_reference_that_diverged_is_named():
    changes = changes_of(equal=(2, 2), normalize=(2, 2))
    metrics = {name: 1 + 0 * values for name, values in changes.items()}
    broken = {name: values * np.array([np.nan, 1]) for name, values in changes.items()}
    first, second, third = verdict(TASKS, metrics, UP, broken, Seen(0.4, 2))
    assert "% of the metrics of equal" in first
    assert second.endswith("no task; not comparable with it: left.")
    assert "if every task is near what it reaches alone, stay with equal" in third


def test_a_metric_of_zero_has_no_per_cent():
    metrics = {"equal": np.zeros((3, 2)), "normalize": np.ones((3, 2))}
    assert verdict(TASKS, metrics, UP)[0].startswith("There is nothing to compare equal with, in %")


def test_a_single_task_has_nothing_to_balance():
    metrics = {"equal": np.ones((3, 1))}
    assert verdict(["left"], metrics, UP[:1]) == ["There is nothing to balance in a single task."]


def test_long_lists_are_counted():
    names = ["normalize", "pcgrad", "upgrad", "mgda", "gls"]
    changes = changes_of(equal=(-30, -30), **{name: (i, i) for i, name in enumerate(names)})
    first = say(changes)[0]
    assert "gls +" in first
    assert "and 2 more (of 5 compared" in first
