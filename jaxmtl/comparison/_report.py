"""The outcomes of a comparison, and the table of them that ``python -m jaxmtl`` shows."""

import numpy as np
from rich.table import Table

from jaxmtl.comparison._training import Outcome, relative_changes
from jaxmtl.problems._problem import Problem

# Up to so many tasks, the picture has a column and the table a metric for each.
MOST_COLUMNS = 5


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

    def relative_time(self, name: str) -> float | None:
        """Time of a step in units of that of equal weights, once that is there."""
        if "equal" not in self.outcomes:
            return None
        return self.outcomes[name].seconds_per_step / self.outcomes["equal"].seconds_per_step

    def table(self) -> Table:
        """The table: means over the seeds of the test metrics, and how they compare."""
        problem = self.problem
        settings = f"Adam {problem.learning_rate} with cosine decay, batch {problem.batch}"
        table = Table(
            title=f"{problem.name}: {self.steps} steps, seeds: {self.seeds}, {settings}",
            caption=(
                "Δm: mean over tasks of the change against single-task training, in %, ± standard"
                " deviation over seeds. Smaller differences are not to be trusted, and the order is"
                " that of this problem in these units. Time: a step's, roughly, equal = 1."
            ),
            caption_justify="left",
            box=None,  # so that the columns fit into 80 characters
            padding=(0, 1, 0, 0),
        )
        few = len(problem.tasks) <= MOST_COLUMNS
        table.add_column("method", no_wrap=True)
        if few:
            for task in problem.tasks:
                arrow = "↑" if problem.maximize[task] else "↓"
                table.add_column(f"{task}\n{problem.metric_names[task]} {arrow}", justify="right")
        else:
            table.add_column("task that\ngains most, %", justify="right", no_wrap=True)
            table.add_column("task that\nloses most, %", justify="right", no_wrap=True)
        table.add_column("Δm ↑", justify="right", no_wrap=True)
        table.add_column("time", justify="right")
        if self.alone:
            means = {task: f"{metrics.mean():.3f}" for task, metrics in self.alone.items()}
            cells = [means.get(task, "") for task in problem.tasks] if few else ["", ""]
            table.add_row("single-task", *cells, "0", "", end_section=True)
        for name, outcome in self.outcomes.items():
            changes, ratio = self.changes(name), self.relative_time(name)
            if few:
                cells = [f"{value:.3f}" for value in outcome.metrics.mean(axis=0)]
            else:
                cells = ["", ""] if changes is None else _extremes(problem.tasks, changes)
            table.add_row(
                name,
                *cells,
                "" if changes is None else _mean_and_spread(changes.mean(axis=1)),
                "" if ratio is None else f"{ratio:.1f}",
            )
        return table


def _extremes(tasks: tuple[str, ...], changes: np.ndarray) -> list[str]:
    """Name the tasks of the largest and of the smallest mean change, with it."""
    means = changes.mean(axis=0)
    return [f"{tasks[i]} {means[i]:+.1f}" for i in (np.argmax(means), np.argmin(means))]


def _mean_and_spread(sample: np.ndarray) -> str:
    """Write "+1.2 ± 0.3", without the spread of a single number."""
    spread = f" ± {sample.std(ddof=1):.1f}" if len(sample) > 1 else ""
    return f"{sample.mean():+.1f}{spread}"
