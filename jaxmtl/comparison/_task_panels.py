"""The panels that show each task: metrics, task weights, losses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from jaxmtl.comparison._columns import MOST_COLUMNS
from jaxmtl.comparison._gains_panel import Row
from jaxmtl.comparison._page import (
    COLORS,
    TABLE,
    draw_table,
    fold,
    grid,
    height_of_legend,
    height_of_names,
    legend,
)
from jaxmtl.comparison._report import Comparison
from jaxmtl.plotting import plot_curves

COLUMNS = 3  # panels beside each other


def draw_changes(axis: Axes, rows: Sequence[Row], tasks: Sequence[str], width: float) -> None:
    """Draw the change of each task's metric, in the order of the rows."""
    changes = np.array([row.changes for row in rows])
    finite = np.abs(changes[np.isfinite(changes)])
    # So that one failure does not fade the others.
    most = min(np.quantile(finite, 0.95), 4 * np.median(finite)) if len(finite) else 0.0
    most = max(float(most), 1e-9)
    draw_table(axis, changes, [], tasks, width, (-most, most), "RdBu", "+")


def height_of_shares(report: Comparison, names: Sequence[str]) -> float:
    """Height in inches that ``draw_shares`` needs."""
    tasks = report.setting.tasks
    if len(tasks) > MOST_COLUMNS:
        return 0.5 + 0.34 * len(names) + height_of_names(tasks, TABLE)
    lines = max(fold(name).count("\n") + 1 for name in names)
    return 0.25 + (1.7 + 0.19 * lines) * -(-len(names) // COLUMNS) + height_of_legend(tasks)


def draw_shares(figure: Any, report: Comparison, names: Sequence[str]) -> None:
    """Draw the shares of the task weights: curves for a few tasks, else means over steps."""
    tasks = report.setting.tasks
    shares = {name: 100 * _finite(report.outcomes[name].shares) for name in names}
    if len(tasks) > MOST_COLUMNS:
        counts = [np.isfinite(share).all(axis=1) for share in shares.values()]
        means = np.array(
            [
                share[whole].mean(axis=0) if whole.any() else np.full(len(tasks), np.nan)
                for share, whole in zip(shares.values(), counts, strict=True)
            ]
        )
        axis = figure.subplots()
        limits = (0, float(np.nanmax(means, initial=100 / len(tasks))))
        draw_table(axis, means, [fold(n) for n in names], tasks, TABLE, limits, "Blues", "")
        axis.set_title("share of the task weights, mean over steps and seeds (%)")
        return
    window = max(1, report.setting.steps // 20)
    axes = grid(figure, len(names), min(COLUMNS, len(names)))
    for axis, (name, share) in zip(axes, shares.items(), strict=True):
        axis.set_prop_cycle(color=COLORS)
        plot_curves({str(i): share[:, i] for i in range(len(tasks))}, axis, window=window)
        axis.axhline(100 / len(tasks), color="black", linewidth=0.8, linestyle=":", zorder=1)
        axis.set(title=fold(name), xlim=(0, report.setting.steps))
    values = np.concatenate([line.get_ydata() for axis in axes for line in axis.lines[:-1]])
    values = values[np.isfinite(values)]
    if len(values):  # a few steps whose weights nearly cancel should not flatten the others
        low, high = np.quantile(values, (0.005, 0.995))
        axes[0].set_ylim(min(0.0, low) - 3, max(high, 100 / len(tasks)) + 5)
    axes[0].set_ylabel("share of the\ntask weights (%)")
    equal = Line2D([], [], color="black", linewidth=0.8, linestyle=":")
    legend(figure, [*axes[0].lines[: len(tasks)], equal], [*tasks, "equal shares"], "lower")


def draw_losses(figure: Any, report: Comparison, names: Sequence[str], columns: int) -> None:
    """Draw the losses, one panel per task: the named methods in colour, all others in grey."""
    axes = grid(figure, len(report.setting.tasks), columns, sharey=False)
    window = max(1, report.setting.steps // 40)
    others = [name for name in report.outcomes if name not in names]
    for i, (axis, task) in enumerate(zip(axes, report.setting.tasks, strict=True)):
        losses = {n: _finite(report.outcomes[n].losses[:, i]) for n in [*names, *others]}
        log = all(np.nanmin(loss, initial=np.inf) > 0 for loss in losses.values())
        axis.set_prop_cycle(color=COLORS)
        plot_curves({n: losses[n] for n in names}, axis, window=window, log=log)
        rest = {n: losses[n] for n in others}
        plot_curves(rest, axis, window=window, log=log, color="0.8", linewidth=0.8, zorder=1)
        axis.set(title=fold(task), xlim=(0, report.setting.steps))
    for axis in axes[::columns]:
        axis.set_ylabel("training loss")
    label = [f"the other {len(others)}"] if others else []
    legend(figure, axes[0].lines[: len(names) + len(label)], [*names, *label], "lower")


def _finite(values: ArrayLike) -> np.ndarray:
    """With NaN, which leaves a gap, where a value is not finite."""
    array = np.asarray(values, float)
    return np.where(np.isfinite(array), array, np.nan)
