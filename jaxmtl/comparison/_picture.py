"""The pictures of a comparison: a summary at the width of a page, and the rest on request."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaxmtl.comparison._gains_panel import Row, draw_gains, explain
from jaxmtl.comparison._large_picture import draw_all
from jaxmtl.comparison._page import COLORS, PAGE, TABLE, TEXT, fold, height_of_names, width_of_names
from jaxmtl.comparison._report import Comparison
from jaxmtl.comparison._statistics import interval
from jaxmtl.comparison._task_panels import (
    draw_changes,
    draw_losses,
    draw_shares,
    height_of_shares,
)
from jaxmtl.comparison._verdict import FIXED

MOST_WIDTH = 3.5  # inches, of the changes of all tasks
MOST_SHARES = 2  # methods whose task weights fit beside each other
SIZES: Any = {
    "font.size": TEXT,
    "axes.titlesize": TEXT + 0.5,
    "axes.labelsize": TEXT,
    "xtick.labelsize": TEXT,
    "ytick.labelsize": TEXT,
    "legend.fontsize": TEXT,
    "figure.titlesize": TEXT + 1.5,
}


def as_png(report: Comparison) -> bytes:
    """The summary as the content of a PNG file."""
    image = io.BytesIO()
    draw(report, "summary").savefig(image, dpi=160, format="png")
    return image.getvalue()


def draw(report: Comparison, what: str) -> Figure:
    """Draw the requested picture."""
    kinds = {"summary": _summary, "losses": _losses, "weights": _weights, "all": draw_all}
    if what not in kinds:
        names = ", ".join(map(repr, kinds))
        raise ValueError(f"what must be one of {names}, but it is {what!r}.")
    if not report.outcomes:
        raise ValueError("There is nothing to draw: no method of this comparison has finished.")
    named = _without_formulas(report)
    if what == "all":
        return draw_all(named)
    with matplotlib.rc_context(SIZES):
        figure = kinds[what](named)
        figure.suptitle(_title(named))
    return figure


def _summary(report: Comparison) -> Figure:
    """Draw the changes above, best method first, and task weights of the best methods below."""
    reference, base, rows = _rows(report)
    named = _best(rows)[:MOST_SHARES]
    tasks = report.setting.tasks
    lying = max(width_of_names(tasks), 0.7 * len(tasks))
    width = float(np.clip(lying if lying <= MOST_WIDTH else 0.55 * len(tasks), 1.6, MOST_WIDTH))
    lines = max(fold(row.name).count("\n") + 1 for row in rows)
    row = max(np.clip(3.6 / len(rows), 0.22, 0.4), 0.19 * lines)
    fixed = 1.1 + height_of_names(tasks, width)
    heights = (fixed + row * len(rows), height_of_shares(report, named))
    figure = Figure(figsize=(PAGE, sum(heights) + 0.3), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    upper, lower = parts
    left, right = upper.subplots(1, 2, width_ratios=(TABLE - width, width))
    draw_gains(left, rows, base)
    left.set_title(f"Δm, mean over tasks of the change\nagainst {fold(reference)} (%)")
    draw_changes(right, rows, tasks, width)
    right.set_title("each task's metric\n(change in %, + is better)")
    explain(upper, rows, base, report.setting.seeds)
    draw_shares(lower, report, named)
    return figure


def _losses(report: Comparison) -> Figure:
    """Draw training losses, one panel per task; the best methods and equal weights in colour."""
    _, base, rows = _rows(report)
    names = dict.fromkeys([*([base] if base else []), *_best(rows), *report.outcomes])
    columns = 2 if len(report.setting.tasks) in (2, 4) else 3
    lines = -(-len(report.setting.tasks) // columns)
    figure = Figure(figsize=(PAGE, 2.1 * lines + 1), layout="constrained")
    draw_losses(figure, report, [*names][: len(COLORS)], columns)
    return figure


def _weights(report: Comparison) -> Figure:
    """Draw the task weights of every method, the best first."""
    names = [row.name for row in _rows(report)[2]]
    height = height_of_shares(report, names) + 0.4
    figure = Figure(figsize=(PAGE, height), layout="constrained")
    draw_shares(figure, report, names)
    return figure


def _rows(report: Comparison) -> tuple[str, str | None, list[Row]]:
    """The reference of the changes, the method to compare with, and all methods, best first."""
    base = next((name for name in FIXED if name in report.outcomes), None)
    reference = "single-task training"
    found = {n: c for n in report.outcomes if (c := report.changes(n)) is not None}
    against = {name: report.against_equal(name) for name in found}
    if not found:  # without references, or interrupted before all of them were in
        base = base or next(iter(report.outcomes))
        reference, found = base, _paired(report, base)
        against = {name: interval(found[name].mean(axis=1)) for name in found if name != base}
    rows = []
    with np.errstate(all="ignore"):  # a run that diverged
        for name, changes in found.items():
            gain = interval(changes.mean(axis=1))
            broken = bool(report.outcomes[name].broken)
            rows.append(Row(name, changes.mean(axis=0), gain, against.get(name), broken))
    return reference, base, sorted(rows, key=lambda row: np.nan_to_num(-row.gain.mean, nan=np.inf))


def _paired(report: Comparison, base: str) -> dict[str, Any]:
    """Changes against a method, seed by seed, in per cent of its mean; positive for better."""
    setting, start = report.setting, report.outcomes[base].metrics
    sign = np.array([1 if setting.maximize[task] else -1 for task in setting.tasks])
    with np.errstate(all="ignore"):  # a metric of zero, a run that diverged
        scale = sign * 100 / np.abs(start.mean(axis=0))
        return {n: scale * (o.metrics - start) for n, o in report.outcomes.items()}


def _best(rows: Sequence[Row]) -> list[str]:
    """Methods with weights worth showing, the best first; all if there is none."""
    names = [row.name for row in rows if row.name not in FIXED and np.isfinite(row.gain.mean)]
    return names or [row.name for row in rows]


def _title(report: Comparison) -> str:
    setting = report.setting
    text = f"{setting.problem}: {setting.steps} steps, seeds: {setting.seeds}"
    if not report.complete:
        text += f"; incomplete: {report.finished} of {len(setting.runs)} runs"
    return textwrap.fill(text, 80)


def _without_formulas(report: Comparison) -> Comparison:
    """The same comparison, with names that matplotlib does not read as formulas."""

    def plain(named: dict[str, Any]) -> dict[str, Any]:
        return {name.replace("$", r"\$"): value for name, value in named.items()}

    setting = report.setting
    made = Comparison(
        setting._replace(
            problem=setting.problem.replace("$", r"\$"),
            tasks=tuple(plain(dict.fromkeys(setting.tasks))),
            maximize=plain(setting.maximize),
            metric_names={t: n.replace("$", r"\$") for t, n in plain(setting.metric_names).items()},
        )
    )
    made.alone, made.outcomes = plain(report.alone), plain(report.outcomes)
    return made
