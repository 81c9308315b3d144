"""The large picture of a comparison: every loss, share and metric, one column per task."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaxmtl.comparison._columns import MOST_COLUMNS
from jaxmtl.comparison._report import Comparison
from jaxmtl.plotting import plot_bars, plot_curves, plot_heat_map


def draw_all(report: Comparison) -> Figure:
    """Draw one column per task if they fit, else one table per quantity; and the summary."""
    palette = "tab10" if len(report.outcomes) <= 10 else "tab20"
    colors = [matplotlib.colormaps[palette](i % 20) for i in range(len(report.outcomes))]
    few = len(report.setting.tasks) <= MOST_COLUMNS
    figure, axes = _draw_columns(report, colors) if few else _draw_tables(report, colors)
    changes = {n: c.mean(axis=1) for n in report.outcomes if (c := report.changes(n)) is not None}
    if changes:
        plot_bars(changes, axes["changes"], reference=0.0, colors=colors)
        axes["changes"].set_title("Δm: mean change against\nsingle-task training (%)")
    else:  # without references, or interrupted before all of them were in
        axes["changes"].remove()
    dashed = "dashed in the bars: single-task training; " if few else ""
    figure.suptitle(
        f"{report.setting.problem}: {report.setting.steps} steps, seeds: {report.setting.seeds};"
        f" {dashed}whiskers: standard deviation over seeds"
    )
    return figure


def _draw_columns(report: Comparison, colors: list[Any]) -> Any:
    """Draw losses, shares of the weights and metrics, one column per task."""
    tasks, window = report.setting.tasks, max(1, report.setting.steps // 40)
    rows = ("loss", "share", "metric")
    mosaic: list[Any] = [[f"{row} {task}" for task in tasks] + ["changes"] for row in rows]
    figure = Figure(figsize=(4 * len(tasks) + 4, 11), layout="constrained")
    axes = figure.subplot_mosaic(mosaic)
    for i, task in enumerate(tasks):
        loss, share, metric = (axes[f"{row} {task}"] for row in rows)
        for axis in (loss, share):
            axis.set_prop_cycle(color=colors)
        losses = {n: o.losses[:, i] for n, o in report.outcomes.items()}
        plot_curves(losses, loss, window=window, log=bool(min(map(np.min, losses.values())) > 0))
        loss.set_title(f"{task}: training loss")
        shares = {n: o.shares[:, i] for n, o in report.outcomes.items()}
        plot_curves(shares, share, window=window, log=True)
        share.set_title(f"{task}: share of the task weights")
        share.set_ylim(1e-3, 1.2)
        metrics = {n: o.metrics[:, i] for n, o in report.outcomes.items()}
        alone = report.alone[task].mean() if task in report.alone else None
        plot_bars(metrics, metric, reference=alone, colors=colors)
        better = "higher" if report.setting.maximize[task] else "lower"
        what = f"{task}: {report.setting.metric_names[task]}"
        wrap = "\n" if len(what) > 28 else " "  # a column is not wider
        metric.set_title(f"{what}{wrap}({better} is better)")
    handles, labels = axes[f"loss {tasks[0]}"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=10)
    return figure, axes


def _draw_tables(report: Comparison, colors: list[Any]) -> Any:
    """Draw changes of the metrics and shares of the weights as tables of methods by tasks."""
    tasks, names = report.setting.tasks, list(report.outcomes)
    size = (8 + 0.6 * len(tasks), 6 + 0.5 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplot_mosaic(
        [["losses", "shares"], ["changes", "table"]], width_ratios=(8, 0.6 * len(tasks))
    )
    axes["losses"].set_prop_cycle(color=colors)
    relative = {
        name: np.mean(outcome.losses / np.abs(outcome.losses[0]), axis=1)
        for name, outcome in report.outcomes.items()
    }
    plot_curves(
        relative,
        axes["losses"],
        window=max(1, report.setting.steps // 40),
        log=min(map(np.min, relative.values())) > 0,
    )
    axes["losses"].set_title("training loss / first loss, mean over tasks")
    axes["losses"].legend(fontsize="small", ncols=2)
    shares = [100 * outcome.shares.mean(axis=0) for outcome in report.outcomes.values()]
    plot_heat_map(shares, names, tasks, axes["shares"], limits=(0, np.max(shares)))
    axes["shares"].set_title("share of the task weights, mean over steps and seeds (%)")
    changes = [c.mean(axis=0) for name in names if (c := report.changes(name)) is not None]
    axes["table"].set_title("change of the metric against single-task training (%)")
    if changes:
        most = float(np.quantile(np.abs(changes), 0.9))  # so that one failure does not fade others
        plot_heat_map(changes, names, tasks, axes["table"], limits=(-most, most), colormap="RdBu")
    return figure, axes
