"""The verdict of a comparison: what its numbers say in words, and what they leave open."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from jaxmtl.comparison._statistics import FEWEST_SEEDS, Interval, differs, interval

# Per cent: a change that reads as 0.0 in the text is not called a difference, however certain.
LEAST_CHANGE = 0.05
# Per cent, or points of Δm: a smaller gain or loss is no reason to change a method.
WORTH = 2.0
# Longest over shortest gradient. Balancing gained nothing at 1.3 (two digits) and 4.2 (yeast), and
# much at 20 (four tasks in different units): notebooks/choosing_a_method.ipynb.
A_FEW = 5
MOST_NAMED = 3  # methods or tasks in one sentence

# Methods with constant weights, in the order in which they serve as the base of the comparison.
FIXED = ("equal", "static", "prior_loss", "initial_loss")
# The first methods to try if losses differ in kind; one backward pass each, like those above.
FIRST = ("initial_loss", "prior_loss", "real_time_loss")
AGAINST_CONFLICT = ("pcgrad", "upgrad", "mgda")


class Seen(NamedTuple):
    """Statistics of the gradients while a method trained.

    Attributes:
      conflicts: share of the pairs with a negative cosine, mean over steps and seeds.
      norm_ratio: longest over shortest gradient, median over steps and seeds.
    """

    conflicts: float
    norm_ratio: float


def verdict(
    tasks: Collection[str],
    metrics: dict[str, np.ndarray],
    maximize: np.ndarray,
    changes: dict[str, np.ndarray] | None = None,
    seen: Seen | None = None,
) -> list[str]:
    """Say in one to three sentences whether fixed weights are enough, who loses, what to try next.

    Methods are compared with "equal", or if that is missing with the first of ``FIXED`` that is
    present: in points of Δm, the mean over tasks of the changes; without changes, in per cent of
    the metrics of "equal", mean over tasks. Intervals are not corrected for their number: of 40
    methods that change nothing, about one seems better.

    Args:
      tasks: the T names.
      metrics: (seeds, T) for each method; not finite if a seed diverged.
      maximize: (T,) bool, whether a higher metric is better.
      changes: (seeds, T) for each method, against each task trained alone on the same seed, in per
        cent, positive for better; None without such references.
      seen: the gradients while "equal" trained; None if they were not measured.

    Returns:
      The sentences, about this problem in these units.

    Examples:
      >>> import numpy as np
      >>> from jaxmtl.comparison._verdict import verdict
      >>> metrics = {"equal": np.array([[1.0, 2.0]] * 3), "mgda": np.array([[1.0, 1.0]] * 3)}
      >>> for sentence in verdict(["a", "b"], metrics, np.array([False, False])):
      ...     print(sentence)  # doctest: +NORMALIZE_WHITESPACE
      On this problem in these units, over 3 seeds, better than equal by more than chance, in % of
      the metrics of equal with 95 % intervals, are: mgda +25.0 (+25.0 to +25.0) (of 1 compared;
      1 in 40 would pass by chance).
      Train each task alone as well: without that, nobody can tell what is lost.
      Start with mgda.
    """
    seeds = {name: len(values) for name, values in metrics.items()}
    failed = {n: int(np.sum(~np.isfinite(values).all(axis=1))) for n, values in metrics.items()}
    named = [f"{name} on {failed[name]} of {seeds[name]} seeds" for name in metrics if failed[name]]
    end = f"; diverged: {', '.join(named)}." if named else "."
    base = next((name for name in FIXED if name in metrics), None)
    if base is None:
        return [f"Nothing says whether fixed weights are enough: train equal as well{end}"]
    if len(tasks) == 1:
        return [f"There is nothing to balance in a single task{end}"]
    if failed[base]:
        return [f"Nothing can be compared with {base}{end}"]
    if seeds[base] < FEWEST_SEEDS:
        few = "One seed is" if seeds[base] == 1 else "Two seeds are"
        return [
            f"{few} too few to tell whether a method does better than {base}, or a task worse than"
            f" alone, by more than chance: train with {FEWEST_SEEDS} or more{end}",
            _advice(base, metrics, None, seen),
        ]
    by_task, unit = _gains(base, metrics, maximize, changes)
    gains = {name: gain.mean(axis=1) for name, gain in by_task.items()}
    intervals = {name: interval(gain) for name, gain in gains.items() if name != base}
    known = {name: found for name, found in intervals.items() if np.isfinite(found.low)}
    better, losers = _beyond_chance(known, "better"), None
    second = "Train each task alone as well: without that, nobody can tell what is lost."
    if changes is not None:
        alone = dict(zip(tasks, map(interval, changes[base].T), strict=True))
        worse = _beyond_chance(alone, "worse")
        which = f"in %: {_listed(worse)}" if worse else "no task"
        second = f"Under {base}, worse than the task trained alone by more than chance, {which}"
        losers = {task: found for task, found in worse.items() if found.mean <= -WORTH}
        if undefined := [task for task in tasks if np.isnan(alone[task].mean)]:
            second += f"; not comparable with it: {', '.join(undefined)}"
            losers = losers or None
        second += "."
    here = f"On this problem in these units, over {seeds[base]} seeds,"
    if not known:
        first = f"There is nothing to compare {base} with, in {unit}{end}"
    elif better:
        first = (
            f"{here} better than {base} by more than chance, in {unit} with 95 % intervals, are:"
            f" {_listed(better)} (of {len(known)} compared; 1 in 40 would pass by chance){end}"
        )
    else:
        best = dict([max(known.items(), key=lambda item: item[1].mean)])
        most = max(found.high for found in known.values())
        answer, more = "fixed weights are enough", ""
        if most > WORTH:
            answer = "nobody can tell whether fixed weights are enough"
            more = "; more seeds make the intervals shorter"
        elif losers:
            answer = "fixed weights are as good as any other"
        first = (
            f"{here} {answer}: no method of {len(known)} is better than {base} by more than chance;"
            f" the best, in {unit} with its 95 % interval, is {_listed(best)}{more}{end}"
        )
    last = _start(tasks, better, gains, by_task) if better else _advice(base, metrics, losers, seen)
    return [first, second, last]


def _gains(
    base: str,
    metrics: dict[str, np.ndarray],
    maximize: np.ndarray,
    changes: dict[str, np.ndarray] | None,
) -> tuple[dict[str, np.ndarray], str]:
    """The gain of each seed and task over ``base``, (seeds, T), and its unit."""
    with np.errstate(all="ignore"):  # diverged seeds and metrics of zero: intervals without bounds
        if changes is not None and np.all(np.isfinite(changes[base])):
            return {n: c - changes[base] for n, c in changes.items()}, "points of Δm"
        unit = np.where(maximize, 100, -100) / np.abs(metrics[base].mean(axis=0))
        gains = {n: unit * (m - metrics[base]) for n, m in metrics.items()}
        return gains, f"% of the metrics of {base}"


def _start(
    tasks: Collection[str],
    better: dict[str, Interval],
    gains: dict[str, np.ndarray],
    by_task: dict[str, np.ndarray],
) -> str:
    """Say where to start, and what that costs.

    It is a method with a single backward pass, unless the best beats it by more than chance.
    """
    best = next(iter(better))
    cheap = [name for name in better if name in FIXED + FIRST]
    cheap = [n for n in cheap if differs(interval(gains[best] - gains[n])) != "better"]
    start = cheap[0] if cheap else best
    why = ""
    if cheap:
        why = ": a single backward pass, and none beats it by more than chance"
    elif best == "normalize":
        why = ", or every(normalize, 10) if T backward passes are too many"
    of_tasks = dict(zip(tasks, map(interval, by_task[start].T), strict=True))
    worse = _beyond_chance(of_tasks, "worse")
    cost = f". It costs, in %: {_listed(worse)}" if worse else ""
    return f"Start with {start}{why}{cost}."


def _advice(
    base: str, tried: Collection[str], losers: dict[str, Interval] | None, seen: Seen | None
) -> str:
    """Say what to try if no method did better; ``losers`` is None if they are unknown."""
    if seen is None or np.isnan(seen.norm_ratio):
        return (
            f"Look at norm_ratio in the report of report_only({base}): what to try depends on it."
        )
    first, against = (
        _either(name for name in names if name not in tried) for names in (FIRST, AGAINST_CONFLICT)
    )
    ratio = f"longest over shortest, median: {seen.norm_ratio:.3g}"
    alike = seen.norm_ratio <= A_FEW
    if alike and not losers:
        condition = "if every task is near what it reaches alone, " if losers is None else ""
        return (
            f"The gradients are alike in length ({ratio}): {condition}stay with {base}, whatever"
            f" the share of conflicts ({100 * seen.conflicts:.0f} %)."
        )
    steps = [f"{first} if the losses differ in kind" if alike else first] if first else []
    if losers and not alike and "normalize" not in tried:
        short = f"if the gradient of {_either(losers)} is much shorter than the others"
        steps.append(f"normalize, or every(normalize, 10), {short}")
    if losers and against:
        steps.append(f"{against} if a loss rises while others fall, and must not")
    advice = f"try {'; then '.join(steps)}" if steps else f"what to try has been tried: keep {base}"
    return f"The gradients {'are alike' if alike else 'differ much'} in length ({ratio}): {advice}."


def _beyond_chance(found: dict[str, Interval], which: str) -> dict[str, Interval]:
    """Those that differ that way, the largest first."""
    those = [n for n, i in found.items() if differs(i) == which and abs(i.mean) >= LEAST_CHANGE]
    return {name: found[name] for name in sorted(those, key=lambda name: -abs(found[name].mean))}


def _listed(found: dict[str, Interval]) -> str:
    """Write "normalize +2.0 (+0.9 to +3.1)" for each of the first, and count the others."""
    rounded = {n: [round(end, 1) + 0.0 for end in i[:3]] for n, i in found.items()}  # not -0.0
    texts = [f"{n} {i[0]:+.1f} ({i[1]:+.1f} to {i[2]:+.1f})" for n, i in rounded.items()]
    more = [f"and {len(texts) - MOST_NAMED} more"] if len(texts) > MOST_NAMED else []
    return ", ".join(texts[:MOST_NAMED] + more)


def _either(names: Iterable[str]) -> str:
    """Write "a, b or c"."""
    *most, last = [*names] or [""]
    return f"{', '.join(most)} or {last}" if most else last
