"""What ``python -m jaxmtl`` shows and saves: a table, a picture, a file of all numbers."""

import json
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from numpy.typing import ArrayLike
from rich.table import Table

import jaxmtl
from jaxmtl._compare import Outcome, relative_changes
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

    def save(self, folder: Path) -> list[Path]:
        """Write the numbers, and the picture if a method has finished; say where.

        An incomplete comparison has names of its own, and never takes the place of a complete one.
        """
        if not self.finished:
            return []
        stem = "comparison" if self.finished == len(self.runs) else "comparison-partial"
        written = [folder / f"{stem}.json"]
        written[0].write_text(json.dumps(self._numbers(), ensure_ascii=False), encoding="utf-8")
        if self.outcomes:
            written.append(folder / f"{stem}.png")
            self._draw(written[1])
        return written

    def _numbers(self) -> dict[str, Any]:
        """All numbers behind table and picture, by names that say what they are."""

        def method(name: str, outcome: Outcome) -> dict[str, Any]:
            changes = self.changes(name)
            return {
                "test_metrics_per_seed": _by_task(self.problem, outcome.metrics),
                "delta_m_percent_per_seed": (
                    None if changes is None else _or_null(changes.mean(axis=1))
                ),
                "seconds_per_step_all_seeds": outcome.seconds_per_step,
                "time_per_step_relative_to_equal": self.relative_time(name),
                "training_losses_mean": _by_task(self.problem, outcome.losses.mean(axis=1)),
                "task_weights_mean": _by_task(self.problem, outcome.weights.mean(axis=1)),
            }

        return {
            "problem": self.problem.name,
            "metrics": self.problem.metric_names,
            "higher_is_better": self.problem.maximize,
            "runs": self.runs,
            "finished": self.finished,
            "settings": {
                "steps": self.steps,
                "seeds": self.seeds,
                "batch": self.problem.batch,
                "optimizer": "adam, cosine decay",
                "learning_rate": self.problem.learning_rate,
                "balanced": "the trunk; heads receive their own task's gradient",
            },
            "versions": {"jaxmtl": jaxmtl.__version__, "jax": jax.__version__},
            "single_task_metrics_per_seed": {t: _or_null(m) for t, m in self.alone.items()},
            "methods": {name: method(name, o) for name, o in self.outcomes.items()},
        }

    def _draw(self, path: Path) -> None:
        """Draw a column a task where they fit, else a table a quantity; and the summary."""
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        from jaxmtl.plotting import plot_bars

        palette = "tab10" if len(self.outcomes) <= 10 else "tab20"
        colors = [plt.get_cmap(palette)(i % 20) for i in range(len(self.outcomes))]
        few = len(self.problem.tasks) <= MOST_COLUMNS
        figure, axes = self._draw_columns(colors) if few else self._draw_tables(colors)
        changes = {n: c.mean(axis=1) for n in self.outcomes if (c := self.changes(n)) is not None}
        plot_bars(changes, axes["changes"], reference=0.0, colors=colors)
        axes["changes"].set_title("Δm: mean change against\nsingle-task training (%)")
        dashed = "dashed in the bars: single-task training; " if few else ""
        figure.suptitle(
            f"{self.problem.name}: {self.steps} steps, seeds: {self.seeds}; {dashed}"
            "whiskers: standard deviation over seeds"
        )
        figure.savefig(path, dpi=90)
        plt.close(figure)

    def _draw_columns(self, colors: list[Any]) -> Any:
        """Draw losses, shares of the weights and metrics, a column a task."""
        import matplotlib.pyplot as plt

        from jaxmtl.plotting import plot_bars, plot_curves

        tasks, window = self.problem.tasks, max(1, self.steps // 40)
        rows = ("loss", "share", "metric")
        mosaic: list[Any] = [[f"{row} {task}" for task in tasks] + ["changes"] for row in rows]
        figure, axes = plt.subplot_mosaic(
            mosaic,
            figsize=(4 * len(tasks) + 4, 11),
            layout="constrained",
        )
        for i, task in enumerate(tasks):
            loss, share, metric = (axes[f"{row} {task}"] for row in rows)
            for axis in (loss, share):
                axis.set_prop_cycle(color=colors)
            losses = {n: o.losses[:, :, i].mean(axis=1) for n, o in self.outcomes.items()}
            plot_curves(losses, loss, window=window, log=min(map(np.min, losses.values())) > 0)
            loss.set_title(f"{task}: training loss")
            shares = {n: _shares(o)[:, :, i].mean(axis=1) for n, o in self.outcomes.items()}
            plot_curves(shares, share, window=window, log=True)
            share.set_title(f"{task}: share of the task weights")
            share.set_ylim(1e-3, 1.2)
            metrics = {n: o.metrics[:, i] for n, o in self.outcomes.items()}
            alone = self.alone[task].mean() if task in self.alone else None
            plot_bars(metrics, metric, reference=alone, colors=colors)
            better = "higher" if self.problem.maximize[task] else "lower"
            what = f"{task}: {self.problem.metric_names[task]}"
            wrap = "\n" if len(what) > 28 else " "  # a column is not wider
            metric.set_title(f"{what}{wrap}({better} is better)")
        handles, labels = axes[f"loss {tasks[0]}"].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=10)
        return figure, axes

    def _draw_tables(self, colors: list[Any]) -> Any:
        """Draw changes of the metrics and shares of the weights as tables of methods by tasks."""
        import matplotlib.pyplot as plt

        from jaxmtl.plotting import plot_curves, plot_heat_map

        tasks, names = self.problem.tasks, list(self.outcomes)
        figure, axes = plt.subplot_mosaic(
            [["losses", "shares"], ["changes", "table"]],
            figsize=(8 + 0.6 * len(tasks), 6 + 0.5 * len(names)),
            width_ratios=(8, 0.6 * len(tasks)),
            layout="constrained",
        )
        axes["losses"].set_prop_cycle(color=colors)
        relative = {
            name: np.mean(outcome.losses / np.abs(outcome.losses[0]), axis=(1, 2))
            for name, outcome in self.outcomes.items()
        }
        plot_curves(
            relative,
            axes["losses"],
            window=max(1, self.steps // 40),
            log=min(map(np.min, relative.values())) > 0,
        )
        axes["losses"].set_title("training loss / first loss, mean over tasks")
        axes["losses"].legend(fontsize="small", ncols=2)
        shares = [100 * _shares(outcome).mean(axis=(0, 1)) for outcome in self.outcomes.values()]
        plot_heat_map(shares, names, tasks, axes["shares"], limits=(0, np.max(shares)))
        axes["shares"].set_title("share of the task weights, mean over steps and seeds (%)")
        changes = [c.mean(axis=0) for name in names if (c := self.changes(name)) is not None]
        axes["table"].set_title("change of the metric against single-task training (%)")
        if changes:  # an interrupted run may lack a reference
            most = float(np.quantile(np.abs(changes), 0.9))  # one failure does not fade the others
            plot_heat_map(
                changes, names, tasks, axes["table"], limits=(-most, most), colormap="RdBu"
            )
        return figure, axes


def _shares(outcome: Outcome) -> np.ndarray:
    """Task weights over their sum, (steps, seeds, T)."""
    return outcome.weights / outcome.weights.sum(axis=-1, keepdims=True)


def _extremes(tasks: tuple[str, ...], changes: np.ndarray) -> list[str]:
    """Name the tasks of the largest and of the smallest mean change, with it."""
    means = changes.mean(axis=0)
    return [f"{tasks[i]} {means[i]:+.1f}" for i in (np.argmax(means), np.argmin(means))]


def _mean_and_spread(sample: np.ndarray) -> str:
    """Write "+1.2 ± 0.3", without the spread of a single number."""
    spread = f" ± {sample.std(ddof=1):.1f}" if len(sample) > 1 else ""
    return f"{sample.mean():+.1f}{spread}"


def _by_task(problem: Problem, values: np.ndarray) -> dict[str, list[float | None]]:
    """Columns under their tasks' names, to six digits."""
    return {
        task: _or_null([float(f"{value:.6g}") for value in column])
        for task, column in zip(problem.tasks, values.T, strict=True)
    }


def _or_null(values: ArrayLike) -> list[float | None]:
    """Numbers as JSON has them, which knows no NaN: a run that diverged leaves nulls."""
    return [float(value) if np.isfinite(value) else None for value in np.asarray(values)]
