"""The columns of a comparison's table, and their meanings."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmtl.comparison._statistics import Interval, differs, mean_ranks
from jaxmtl.comparison._table import Column

if TYPE_CHECKING:
    from jaxmtl.comparison._report import Comparison

# With at most this many tasks, the picture has a column and the table a metric for each.
MOST_COLUMNS = 5
# A time is shown if the ratio of its quartiles is at most this.
MOST_SPREAD = 1.3

# The meanings of the columns, by their names.
LEGEND = {
    "Δm ↑": "Δm: mean over tasks of the change against single-task training, in % (± standard"
    " deviation over seeds).",
    "Δm against equal": "Against equal: the 95 % interval of the differences, seed by seed; * where"
    " chance alone does not explain it.",
    "learning rate": "Learning rate: the best on validation.",
    "rank": "Rank: mean over tasks, 1 is best.",
    "pairs in conflict": "Pairs in conflict, and longest over shortest gradient: as seen at some"
    " steps of the run.",
    "time": "Time: of a step, equal = 1, the two measured in turn; the middle half of the"
    " measurements, or ? where they are too few, too short, or too scattered to tell.",
    "memory (MiB)": "Memory: what a step takes besides parameters, states and data.",
    "method": "The order is that of this problem in these units.",
}


def columns_of(comparison: "Comparison") -> list[Column]:
    """The columns of the table, with a row for each method."""
    setting, outcomes = comparison.setting, comparison.outcomes
    tasks, names = setting.tasks, list(outcomes)
    alone = ["single-task"] if comparison.alone else []
    blank = ["" for _ in alone]
    columns = [Column("method", "", alone + names)]
    if len(tasks) <= MOST_COLUMNS:
        for i, task in enumerate(tasks):
            arrow = "↑" if setting.maximize[task] else "↓"
            unit = f"{setting.metric_names[task]} {arrow}"
            reference = f"{comparison.alone[task].mean():.3f}" if task in comparison.alone else ""
            cells = [f"{outcomes[name].metrics[:, i].mean():.3f}" for name in names]
            columns.append(Column(task, unit, [reference for _ in alone] + cells, spare=2 + i))
    else:
        changes = [comparison.changes(name) for name in names]
        for spare, (most, pick) in enumerate((("gains", np.argmax), ("loses", np.argmin)), 2):
            cells = ["" if c is None else _extreme(tasks, c, pick) for c in changes]
            columns.append(Column(f"task that {most} most,", "%", blank + cells, spare))
    gains = comparison.delta_m
    means = [_mean_and_spread(gains[name]) if name in gains else "" for name in names]
    if gains or not names:
        columns.append(Column("Δm ↑", "", ["0" for _ in alone] + means))
    against = [_interval(comparison.against_equal(name)) for name in names]
    if any(against):
        columns.append(Column("Δm against equal", "", blank + against, spare=1))
    if not names:
        return columns
    if len(setting.rates) > 1:
        rates = [f"{outcomes[name].learning_rate:g}" for name in names]
        columns.append(Column("learning rate", "", blank + rates, spare=1))
    ranks = mean_ranks({name: outcomes[name].metrics for name in names}, setting.signs > 0)
    seen = {
        "time": [_time(comparison.relative_time(name)) for name in names],
        "rank": [f"{ranks[name]:.1f}" for name in names],
        "pairs in conflict": [_or_blank("{:.0%}", outcomes[name].conflicts) for name in names],
        "longest / shortest": [_or_blank("{:.1f}", outcomes[n].norm_ratio) for n in names],
        "memory (MiB)": [_or_blank("{:.1f}", _mebibytes(outcomes[n].memory)) for n in names],
    }
    for number, (title, cells) in enumerate(seen.items(), MOST_COLUMNS + 2):
        columns.append(Column(title, "", blank + cells, spare=number))
    return columns


def _extreme(tasks: tuple[str, ...], changes: np.ndarray, pick: Callable[..., Any]) -> str:
    """Name the task of the largest or of the smallest mean change, with it."""
    means = changes.mean(axis=0)
    return f"{tasks[pick(means)]} {means[pick(means)]:+.1f}"


def _mean_and_spread(sample: np.ndarray) -> str:
    """Write "+1.2 ± 0.3", without the spread of a single number."""
    spread = f" ± {sample.std(ddof=1):.1f}" if len(sample) > 1 else ""
    return f"{sample.mean():+.1f}{spread}"


def _interval(found: Interval | None) -> str:
    """Write "+0.4 to +2.1 *"; "?" without bounds."""
    if found is None:
        return ""
    if not np.isfinite(found.low):
        return "?"
    return f"{found.low:+.1f} to {found.high:+.1f}{' *' if differs(found) else ''}"


def _or_blank(form: str, value: float) -> str:
    return form.format(value) if np.isfinite(value) else ""


def _mebibytes(size: int | None) -> float:
    return float("nan") if size is None else size / 2**20


def _time(quartiles: np.ndarray | None) -> str:
    """Write "1.8–2.1", "1" where both ends read alike, "?" where they are too far apart."""
    if quartiles is None or quartiles[2] > MOST_SPREAD * quartiles[0]:
        return "?"
    ends = dict.fromkeys(f"{quartile:.1f}" for quartile in (quartiles[0], quartiles[2]))
    return "–".join(ends)
