"""What ``python -m jaxmtl`` shows and saves: a table, a picture, a file of all numbers."""

import json
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
import rich.box
from rich.table import Table

import jaxmtl
from jaxmtl._compare import BATCH, LEARNING_RATE, Outcome, relative_changes
from jaxmtl.problems._problem import Problem


class Report:
    """The outcomes so far of one comparison; complete or not, it can be shown and saved."""

    def __init__(self, problem: Problem, *, steps: int, seeds: int):
        self.problem = problem
        self.steps = steps
        self.seeds = seeds
        self.alone: dict[str, np.ndarray] = {}
        self.outcomes: dict[str, Outcome] = {}

    def add(self, name: str, outcome: Outcome) -> None:
        """Take in a finished run."""
        if name.startswith("single:"):
            task = name.removeprefix("single:")
            self.alone[task] = outcome.metrics[:, self.problem.tasks.index(task)]
        else:
            self.outcomes[name] = outcome

    def changes(self, name: str) -> np.ndarray | None:
        """Relative changes of a method, (seeds,), once every reference is there."""
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
        tasks = self.problem.tasks
        table = Table(
            title=f"{self.problem.name}: {self.steps} steps, {self.seeds} seeds",
            caption=(
                "Δm: mean over tasks of the change against single-task training, ± standard"
                " deviation over seeds; what lies within it is a tie. The order holds for this"
                " problem in these units: other data, or another scaling, turn it round."
            ),
            caption_justify="left",
            box=rich.box.SIMPLE,
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("method", no_wrap=True)
        for task in tasks:
            arrow = "↑" if self.problem.maximize[task] else "↓"
            table.add_column(f"{task} {arrow}\n{self.problem.metric_names[task]}", justify="right")
        table.add_column("Δm ↑\n%", justify="right")
        table.add_column("step time\nequal = 1", justify="right")
        if self.alone:
            cells = [f"{self.alone[t].mean():.3f}" if t in self.alone else "" for t in tasks]
            table.add_row("single-task", *cells, "0", "", end_section=True)
        for name, outcome in self.outcomes.items():
            changes, ratio = self.changes(name), self.relative_time(name)
            table.add_row(
                name,
                *(f"{value:.3f}" for value in outcome.metrics.mean(axis=0)),
                "" if changes is None else f"{changes.mean():+.1f} ± {changes.std():.1f}",
                "" if ratio is None else f"{ratio:.1f}",
            )
        return table

    def save(self, folder: Path) -> list[Path]:
        """Write the numbers, and the picture if a method has finished; say where."""
        folder.mkdir(parents=True, exist_ok=True)
        numbers = folder / "comparison.json"
        numbers.write_text(json.dumps(self._numbers(), indent=1, ensure_ascii=False))
        if not self.outcomes:
            return [numbers]
        picture = folder / "comparison.png"
        self._draw(picture)
        return [numbers, picture]

    def _numbers(self) -> dict[str, Any]:
        """All numbers behind table and picture, by names that say what they are."""

        def method(name: str, outcome: Outcome) -> dict[str, Any]:
            changes = self.changes(name)
            return {
                "test_metrics_per_seed": _by_task(self.problem, outcome.metrics),
                "delta_m_percent_per_seed": None if changes is None else changes.tolist(),
                "seconds_per_step": outcome.seconds_per_step,
                "time_per_step_relative_to_equal": self.relative_time(name),
                "training_losses_mean": _by_task(self.problem, outcome.losses.mean(axis=1)),
                "task_weights_mean": _by_task(self.problem, outcome.weights.mean(axis=1)),
            }

        return {
            "problem": self.problem.name,
            "metrics": self.problem.metric_names,
            "higher_is_better": self.problem.maximize,
            "settings": {
                "steps": self.steps,
                "seeds": self.seeds,
                "batch": BATCH,
                "learning_rate": LEARNING_RATE,
            },
            "versions": {"jaxmtl": jaxmtl.__version__, "jax": jax.__version__},
            "single_task_metrics_per_seed": {t: m.tolist() for t, m in self.alone.items()},
            "methods": {name: method(name, o) for name, o in self.outcomes.items()},
        }

    def _draw(self, path: Path) -> None:
        """Losses, shares of the weights and metrics, a column a task; and the summary."""
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        from jaxmtl.plotting import plot_bars, plot_curves

        tasks, window = self.problem.tasks, max(1, self.steps // 40)
        palette = "tab10" if len(self.outcomes) <= 10 else "tab20"
        colors = [plt.get_cmap(palette)(i % 20) for i in range(len(self.outcomes))]
        figure, axes = plt.subplots(
            3, len(tasks) + 1, figsize=(4 * len(tasks) + 4, 10.5), layout="constrained"
        )
        for row in axes[:2]:
            for axis in row:
                axis.set_prop_cycle(color=colors)
        for i, task in enumerate(tasks):
            losses = {n: o.losses[:, :, i].mean(axis=1) for n, o in self.outcomes.items()}
            plot_curves(losses, axes[0, i], window=window, log=True).set_title(f"{task}: loss")
            shares = {
                name: (outcome.weights[:, :, i] / outcome.weights.sum(axis=-1)).mean(axis=1)
                for name, outcome in self.outcomes.items()
            }
            axis = plot_curves(shares, axes[1, i], window=window)
            axis.set_title(f"{task}: share of the task weights")
            axis.set_ylim(0, 1)
            metrics = {n: o.metrics[:, i] for n, o in self.outcomes.items()}
            alone = self.alone[task].mean() if task in self.alone else None
            axis = plot_bars(metrics, axes[2, i], reference=alone, colors=colors)
            better = "higher" if self.problem.maximize[task] else "lower"
            axis.set_title(f"{task}: {self.problem.metric_names[task]} ({better} is better)")
        changes = {n: c for n in self.outcomes if (c := self.changes(n)) is not None}
        if changes:
            axis = plot_bars(changes, axes[2, -1], reference=0.0, colors=colors)
            axis.set_title("Δm against single-task (%)")
        else:
            axes[2, -1].axis("off")
        axes[0, -1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center", ncols=1)
        axes[0, -1].axis("off")
        axes[1, -1].axis("off")
        figure.suptitle(
            f"{self.problem.name}: {self.steps} steps, {self.seeds} seeds, dashed: single-task"
        )
        figure.savefig(path, dpi=100)
        plt.close(figure)


def _by_task(problem: Problem, values: np.ndarray) -> dict[str, list[float]]:
    """Columns under their tasks' names, to six digits."""
    return {
        task: [float(f"{value:.6g}") for value in column]
        for task, column in zip(problem.tasks, values.T, strict=True)
    }
