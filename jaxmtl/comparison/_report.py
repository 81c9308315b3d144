"""The outcomes of a comparison, and the table of them that ``python -m jaxmtl`` shows."""

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmtl.comparison._table import Column, lay_out
from jaxmtl.comparison._training import Outcome, relative_changes
from jaxmtl.problems._problem import Problem

# Up to so many tasks, the picture has a column and the table a metric for each.
MOST_COLUMNS = 5
# A time is shown from so many measurements on, where the quartiles are no further apart than that.
FEWEST_TIMES = 5
MOST_SPREAD = 1.3

LEGEND = (
    "Δm: mean over tasks of the change against single-task training, in % (± standard deviation"
    " over seeds). Smaller differences are not to be trusted, and the order is that of this problem"
    " in these units. Time: of a step, equal = 1, the two measured in turn; the middle half of the"
    " measurements, or ? where they are too few, too short, or too scattered to tell."
)


class Report:
    """The outcomes so far of one comparison; complete or not, it can be shown and saved."""

    def __init__(self, problem: Problem, runs: list[str], *, steps: int, seeds: int):
        self.problem = problem
        self.runs = runs
        self.steps = steps
        self.seeds = seeds
        self.alone: dict[str, np.ndarray] = {}
        self.outcomes: dict[str, Outcome] = {}

    @property
    def finished(self) -> int:
        """How many runs are in."""
        return len(self.alone) + len(self.outcomes)

    def add(self, name: str, outcome: Outcome) -> None:
        """Take in a finished run."""
        if name.startswith("single:"):
            task = name.removeprefix("single:")
            self.alone[task] = outcome.metrics[:, self.problem.tasks.index(task)]
        else:
            self.outcomes[name] = outcome

    def changes(self, name: str) -> np.ndarray | None:
        """Relative changes of a method, (seeds, T), once every reference is there."""
        if len(self.alone) < len(self.problem.tasks):
            return None
        return relative_changes(self.problem, self.outcomes[name].metrics, self.alone)

    def relative_time(self, name: str) -> np.ndarray | None:
        """Quartiles of a step's time, equal weights = 1; None where it could not be measured."""
        times = self.outcomes[name].relative_times
        return np.quantile(times, (0.25, 0.5, 0.75)) if len(times) >= FEWEST_TIMES else None

    def table(self, width: int) -> str:
        """The table: means over the seeds of the test metrics, and how they compare."""
        problem, names = self.problem, list(self.outcomes)
        changes = [self.changes(name) for name in names]
        alone = ["single-task"] if self.alone else []
        columns = [Column("method", "", alone + names)]
        if len(problem.tasks) <= MOST_COLUMNS:
            for i, task in enumerate(problem.tasks):
                unit = f"{problem.metric_names[task]} {'↑' if problem.maximize[task] else '↓'}"
                reference = f"{self.alone[task].mean():.3f}" if task in self.alone else ""
                cells = [f"{self.outcomes[name].metrics[:, i].mean():.3f}" for name in names]
                columns.append(Column(task, unit, [reference for _ in alone] + cells, spare=1 + i))
        else:
            for spare, (most, pick) in enumerate((("gains", np.argmax), ("loses", np.argmin)), 1):
                cells = ["" if c is None else _extreme(problem.tasks, c, pick) for c in changes]
                title = f"task that {most} most,"
                columns.append(Column(title, "%", ["" for _ in alone] + cells, spare))
        means = ["" if c is None else _mean_and_spread(c.mean(axis=1)) for c in changes]
        columns.append(Column("Δm ↑", "", ["0" for _ in alone] + means))
        times = [_time(self.relative_time(name)) for name in names]
        columns.append(Column("time", "", ["" for _ in alone] + times, spare=MOST_COLUMNS + 1))
        settings = f"Adam {problem.learning_rate} with cosine decay, batch {problem.batch}"
        title = f"{problem.name}: {self.steps} steps, seeds: {self.seeds}, {settings}"
        paragraphs = [textwrap.fill(text, width) for text in (title, LEGEND)]
        return "\n".join([paragraphs[0], lay_out(columns, width), paragraphs[1]])


def _extreme(tasks: tuple[str, ...], changes: np.ndarray, pick: Callable[..., Any]) -> str:
    """Name the task of the largest or of the smallest mean change, with it."""
    means = changes.mean(axis=0)
    return f"{tasks[pick(means)]} {means[pick(means)]:+.1f}"


def _mean_and_spread(sample: np.ndarray) -> str:
    """Write "+1.2 ± 0.3", without the spread of a single number."""
    spread = f" ± {sample.std(ddof=1):.1f}" if len(sample) > 1 else ""
    return f"{sample.mean():+.1f}{spread}"


def _time(quartiles: np.ndarray | None) -> str:
    """Write "1.8–2.1", "1" where both ends read alike, "?" where they are too far apart."""
    if quartiles is None or quartiles[2] > MOST_SPREAD * quartiles[0]:
        return "?"
    ends = dict.fromkeys(f"{quartile:.1f}" for quartile in (quartiles[0], quartiles[2]))
    return "–".join(ends)
