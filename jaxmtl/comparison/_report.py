"""The outcomes of a comparison: numbers, table, verdict, picture, file."""

import html
import shutil
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from jaxmtl.comparison._columns import LEGEND, columns_of
from jaxmtl.comparison._outcome import Outcome, Setting
from jaxmtl.comparison._statistics import Interval, interval
from jaxmtl.comparison._table import as_html, fitting, lay_out
from jaxmtl.comparison._verdict import FIXED, Seen, verdict

# A time is shown from this number of measurements on.
FEWEST_TIMES = 5


class Comparison:
    """The result of ``jaxmtl.compare``; complete or not, it can be read, shown and saved.

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
        """The number of finished runs."""
        return len(self.alone) + len(self.outcomes)

    @property
    def complete(self) -> bool:
        """Whether all runs have finished."""
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
        """One to three sentences on the meaning of the numbers, for this problem in these units."""
        if not self.outcomes:
            return ["No method has finished."]
        metrics = {name: outcome.metrics for name, outcome in self.outcomes.items()}
        base = self.outcomes.get("equal")
        seen = None if base is None else Seen(base.conflicts, base.norm_ratio)
        changes = self._all_changes(paired=True) or None
        return verdict(self.setting.tasks, metrics, self.setting.signs > 0, changes, seen)

    def table(self, width: int | None = None) -> str:
        """The comparison as text no wider than ``width``, by default that of the terminal.

        Metrics are means over seeds. Δm has its standard deviation over seeds; "against equal" is
        the interval of the paired differences of Δm, marked if chance alone does not explain it.
        """
        width = shutil.get_terminal_size().columns if width is None else width
        columns = columns_of(self)
        texts = [self._title, lay_out(columns, width), *self._broken, *self.verdict]
        shown = [column.name for column in fitting(columns, width)]
        texts.append(" ".join(text for name, text in LEGEND.items() if name in shown))
        wrapped = [text if n == 1 else textwrap.fill(text, width) for n, text in enumerate(texts)]
        return "\n".join(wrapped)

    def plot(self, what: str = "summary") -> Any:
        """Draw the comparison, at the width of a page.

        Args:
          what: "summary": the mean change Δm of each method with the 95 % interval of its mean over
            seeds, the change of each task's metric, and the task weights of the best methods.
            "losses": the training losses of each task. "weights": the task weights of every
            method. "all": every loss, weight and metric in one large picture.

        Returns:
          A ``matplotlib.figure.Figure``, which a notebook shows as the last value of a cell, and
          which ``.savefig("picture.pdf")`` writes; ``pyplot.show()`` does not show it. Without
          single-task references, changes are measured against equal weights, seed by seed.

        Raises:
          ValueError: if ``what`` is none of these, or no method has finished.
          ImportError: if matplotlib is missing.
        """
        return _picture().draw(self, what)

    def save(self, folder: str | Path) -> list[Path]:
        """Write all numbers, and the picture if a method has finished; return the paths.

        An incomplete comparison has its own file names, and never replaces a complete one.
        ``jaxmtl.compare.load`` reads the numbers again.
        """
        from jaxmtl.comparison._saved import save

        return list(save(self, Path(folder)))

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        columns = columns_of(self)
        texts = [html.escape(text) for text in [*self._broken, *self.verdict]]
        names = [column.name for column in columns]
        meaning = " ".join(text for name, text in LEGEND.items() if name in names)
        return (
            f"<p><b>{html.escape(self._title)}</b></p>{as_html(columns)}<p>{'<br>'.join(texts)}</p>"
            f"<details><summary>What the columns mean</summary>{html.escape(meaning)}</details>"
        )

    @property
    def _title(self) -> str:
        setting = self.setting
        leaves = len(setting.balanced) + len(setting.own)
        some = f", balanced leaves: {len(setting.balanced)} of {leaves}" if setting.own else ""
        return (
            f"{setting.problem}: {setting.steps} steps, seeds: {setting.seeds},"
            f" {setting.training}{some}"
        )

    @property
    def _broken(self) -> list[str]:
        return [f"{name}: {o.broken}." for name, o in self.outcomes.items() if o.broken]

    def add(self, name: str, outcome: Outcome) -> None:
        """Add a finished run."""
        if name.startswith("single:"):
            task = name.removeprefix("single:")
            self.alone[task] = outcome.metrics[:, self.setting.tasks.index(task)]
        else:
            self.outcomes[name] = outcome

    def changes(self, name: str, *, paired: bool = False) -> np.ndarray | None:
        """Changes of a method's metrics against single-task training, once all of it is there.

        Args:
          name: the method.
          paired: whether to compare with the reference of the same seed instead of its mean.

        Returns:
          (seeds, T) changes in per cent of the mean reference, positive for better.
        """
        if len(self.alone) < len(self.setting.tasks):
            return None
        alone = np.stack([self.alone[task] for task in self.setting.tasks], axis=1)
        mean = alone.mean(axis=0)
        with np.errstate(all="ignore"):  # a reference of zero, a run that diverged
            gains = self.setting.signs * (self.outcomes[name].metrics - (alone if paired else mean))
            return 100 * gains / np.abs(mean)

    def relative_time(self, name: str) -> np.ndarray | None:
        """Quartiles of a step's time, equal weights = 1; None if it could not be measured."""
        times = self.outcomes[name].relative_times
        return np.quantile(times, (0.25, 0.5, 0.75)) if len(times) >= FEWEST_TIMES else None

    def against_equal(self, name: str) -> Interval | None:
        """The interval of Δm minus that of equal or other constant weights, seed by seed."""
        base = next((fixed for fixed in FIXED if fixed in self.outcomes), None)
        gains = self.delta_m
        if base is None or base not in gains or name == base:
            return None
        return interval(gains[name] - gains[base])

    def _all_changes(self, *, paired: bool = False) -> dict[str, np.ndarray]:
        found = {name: self.changes(name, paired=paired) for name in self.outcomes}
        return {name: changes for name, changes in found.items() if changes is not None}


def _picture() -> Any:
    """The module for pictures, which needs matplotlib."""
    try:
        from jaxmtl.comparison import _picture as module
    except ImportError as error:
        raise ImportError(
            "The picture of a comparison needs matplotlib: pip install matplotlib. The table and"
            " the file of numbers do not need it."
        ) from error
    return module
