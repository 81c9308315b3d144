"""The outcomes of a comparison: numbers, table, verdict, picture, file."""

import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmtl.comparison._statistics import Interval, differs, interval, mean_ranks
from jaxmtl.comparison._table import Column, lay_out
from jaxmtl.comparison._training import Outcome
from jaxmtl.comparison._verdict import FIXED, Seen, verdict

# Up to so many tasks, the picture has a column and the table a metric for each.
MOST_COLUMNS = 5
# A time is shown from so many measurements on, where the quartiles are no further apart than that.
FEWEST_TIMES = 5
MOST_SPREAD = 1.3


class Setting(NamedTuple):
    """What was compared, in words and numbers.

    Attributes:
      problem: its name.
      tasks: the tasks' names.
      maximize: whether a task's metric is better when higher.
      metric_names: what it is called.
      steps: of training.
      seeds: how many.
      training: optimizer and batches, in words.
      runs: the names of all that was to be trained.
    """

    problem: str
    tasks: tuple[str, ...]
    maximize: dict[str, bool]
    metric_names: dict[str, str]
    steps: int
    seeds: int
    training: str
    runs: tuple[str, ...]


class Comparison:
    """What ``jaxmtl.compare`` found; complete or not, it can be read, shown and saved.

    Attributes:
      setting: what was compared.
      alone: the (seeds,) metrics of each task trained alone.
      outcomes: all numbers of each method that has finished.
    """

    def __init__(self, setting: Setting):
        self.setting = setting
        self.alone: dict[str, np.ndarray] = {}
        self.outcomes: dict[str, Outcome] = {}

    @property
    def finished(self) -> int:
        """How many runs are in."""
        return len(self.alone) + len(self.outcomes)

    @property
    def complete(self) -> bool:
        """Whether all runs are in."""
        return self.finished == len(self.setting.runs)

    @property
    def metrics(self) -> dict[str, dict[str, np.ndarray]]:
        """The (seeds,) test metrics of each method and task."""
        return {
            name: dict(zip(self.setting.tasks, outcome.metrics.T, strict=True))
            for name, outcome in self.outcomes.items()
        }

    @property
    def delta_m(self) -> dict[str, np.ndarray]:
        """The (seeds,) Δm of each method: the mean change against single-task training, in %."""
        return {name: changes.mean(axis=1) for name, changes in self._all_changes().items()}

    @property
    def verdict(self) -> list[str]:
        """One to three sentences of what these numbers say of this problem, in these units."""
        if not self.outcomes:
            return ["No method has finished."]
        maximize = np.array([self.setting.maximize[task] for task in self.setting.tasks])
        metrics = {name: outcome.metrics for name, outcome in self.outcomes.items()}
        base = self.outcomes.get("equal")
        seen = None if base is None else Seen(base.conflicts, base.norm_ratio)
        changes = self._all_changes(paired=True) or None
        return verdict(self.setting.tasks, metrics, maximize, changes, seen)

    def table(self, width: int | None = None) -> str:
        """The comparison as text that is no wider than ``width``, or than the terminal.

        Metrics are means over seeds. Δm has its standard deviation over seeds; "against equal" is
        the interval of the paired differences of Δm, marked where chance alone does not explain it.
        """
        width = shutil.get_terminal_size().columns if width is None else width
        setting = self.setting
        title = (
            f"{setting.problem}: {setting.steps} steps, seeds: {setting.seeds}, {setting.training}"
        )
        broken = [f"{n}: {o.broken}." for n, o in self.outcomes.items() if o.broken]
        texts = [*broken, *self.verdict, LEGEND]
        parts = [textwrap.fill(title, width), lay_out(self._columns(), width)]
        return "\n".join([*parts, *(textwrap.fill(text, width) for text in texts)])

    def plot(self, what: str = "summary") -> Any:
        """Draw the comparison, at the width of a page.

        Args:
          what: "summary": the mean change Δm of each method with the 95 % interval of its mean over
            seeds, the change of each task's metric, and the task weights of the best methods.
            "losses": the training losses of each task. "weights": the task weights of every
            method. "all": every loss, weight and metric in one large picture.

        Returns:
          A ``matplotlib.figure.Figure``, which a notebook shows and ``.savefig("picture.pdf")``
          writes. Without single-task references, changes are those against equal weights, seed by
          seed.

        Raises:
          ValueError: where ``what`` is none of these, or no method has finished.
          ImportError: where matplotlib is missing.
        """
        return _picture().draw(self, what)

    def save(self, folder: str | Path) -> list[Path]:
        """Write all numbers, and the picture if a method has finished; return the paths.

        An incomplete comparison has names of its own, and never takes the place of a complete one.
        ``jaxmtl.compare.load`` reads the numbers again.
        """
        from jaxmtl.comparison._saved import save

        return list(save(self, Path(folder)))

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        text = self.table(110).replace("&", "&amp;").replace("<", "&lt;")
        return f'<pre style="line-height: 1.3">{text}</pre>'

    def add(self, name: str, outcome: Outcome) -> None:
        """Take in a finished run."""
        if name.startswith("single:"):
            task = name.removeprefix("single:")
            self.alone[task] = outcome.metrics[:, self.setting.tasks.index(task)]
        else:
            self.outcomes[name] = outcome

    def changes(self, name: str, *, paired: bool = False) -> np.ndarray | None:
        """Changes of a method's metrics against single-task training, once all of it is there.

        Args:
          name: the method.
          paired: whether to compare with the reference of the same seed, not with its mean.

        Returns:
          (seeds, T) changes in per cent of the mean reference, positive for better.
        """
        if len(self.alone) < len(self.setting.tasks):
            return None
        alone = np.stack([self.alone[task] for task in self.setting.tasks], axis=1)
        mean = alone.mean(axis=0)
        sign = np.array([1 if self.setting.maximize[task] else -1 for task in self.setting.tasks])
        with np.errstate(all="ignore"):  # a reference of zero, a run that diverged
            gains = sign * (self.outcomes[name].metrics - (alone if paired else mean))
            return 100 * gains / np.abs(mean)

    def relative_time(self, name: str) -> np.ndarray | None:
        """Quartiles of a step's time, equal weights = 1; None where it could not be measured."""
        times = self.outcomes[name].relative_times
        return np.quantile(times, (0.25, 0.5, 0.75)) if len(times) >= FEWEST_TIMES else None

    def against_equal(self, name: str) -> Interval | None:
        """The interval of Δm less that of equal, or of other constant weights, seed by seed."""
        base = next((fixed for fixed in FIXED if fixed in self.outcomes), None)
        gains = self.delta_m
        if base is None or base not in gains or name == base:
            return None
        return interval(gains[name] - gains[base])

    def _all_changes(self, *, paired: bool = False) -> dict[str, np.ndarray]:
        found = {name: self.changes(name, paired=paired) for name in self.outcomes}
        return {name: changes for name, changes in found.items() if changes is not None}

    def _columns(self) -> list[Column]:
        tasks, names, outcomes = self.setting.tasks, list(self.outcomes), self.outcomes
        alone = ["single-task"] if self.alone else []
        blank = ["" for _ in alone]
        columns = [Column("method", "", alone + names)]
        if len(tasks) <= MOST_COLUMNS:
            for i, task in enumerate(tasks):
                arrow = "↑" if self.setting.maximize[task] else "↓"
                unit = f"{self.setting.metric_names[task]} {arrow}"
                reference = f"{self.alone[task].mean():.3f}" if task in self.alone else ""
                cells = [f"{outcomes[name].metrics[:, i].mean():.3f}" for name in names]
                columns.append(Column(task, unit, [reference for _ in alone] + cells, spare=2 + i))
        else:
            changes = [self.changes(name) for name in names]
            for spare, (most, pick) in enumerate((("gains", np.argmax), ("loses", np.argmin)), 2):
                cells = ["" if c is None else _extreme(tasks, c, pick) for c in changes]
                columns.append(Column(f"task that {most} most,", "%", blank + cells, spare))
        gains = self.delta_m
        means = [_mean_and_spread(gains[name]) if name in gains else "" for name in names]
        if gains or not names:
            columns.append(Column("Δm ↑", "", ["0" for _ in alone] + means))
        against = [_interval(self.against_equal(name)) for name in names]
        if any(against):
            columns.append(Column("Δm against equal", "", blank + against, spare=1))
        if not names:
            return columns
        maximize = np.array([self.setting.maximize[task] for task in tasks])
        ranks = mean_ranks({name: outcomes[name].metrics for name in names}, maximize)
        seen = {
            "time": [_time(self.relative_time(name)) for name in names],
            "rank": [f"{ranks[name]:.1f}" for name in names],
            "pairs in conflict": [_or_blank("{:.0%}", outcomes[name].conflicts) for name in names],
            "longest / shortest": [_or_blank("{:.1f}", outcomes[n].norm_ratio) for n in names],
            "memory (MiB)": [_or_blank("{:.1f}", _mebibytes(outcomes[n].memory)) for n in names],
        }
        for number, (title, cells) in enumerate(seen.items(), MOST_COLUMNS + 2):
            columns.append(Column(title, "", blank + cells, spare=number))
        return columns


LEGEND = (
    "Δm: mean over tasks of the change against single-task training, in % (± standard deviation"
    " over seeds). Against equal: the 95 % interval of the differences, seed by seed; * where"
    " chance alone does not explain it. Rank: mean over tasks, 1 is best. Pairs in conflict, and"
    " longest over shortest gradient: as seen at some steps of the run. Time: of a step, equal = 1,"
    " the two measured in turn; the middle half of the measurements, or ? where they are too few,"
    " too short, or too scattered to tell. Memory: what a step takes besides parameters, states and"
    " data. The order is that of this problem in these units."
)


def _picture() -> Any:
    """The module that draws, which needs matplotlib."""
    try:
        from jaxmtl.comparison import _picture as module
    except ImportError as error:
        raise ImportError(
            "The picture of a comparison needs matplotlib: pip install matplotlib. The table and"
            " the file of numbers do without."
        ) from error
    return module


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
