"""The panel of the mean changes: one point per method, with its interval."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxmtl.comparison._page import COLORS, LONGEST, fold, legend
from jaxmtl.comparison._statistics import FEWEST_SEEDS, Interval, differs

BASE: dict[str, Any] = {"marker": "D", "color": "black", "linestyle": "none", "markersize": 8}
WHISKER: dict[str, Any] = {"color": "0.45", "linewidth": 2.5}


class Row(NamedTuple):
    """A method in the summary.

    Attributes:
      name: the name of the method.
      changes: (T,) changes of its metrics in per cent, mean over seeds.
      gain: the interval of their mean over tasks.
      against: the interval of the difference from the method to compare with, if there is one.
      broken: whether a loss was not finite.
    """

    name: str
    changes: np.ndarray
    gain: Interval
    against: Interval | None
    broken: bool


def draw_gains(axis: Axes, rows: Sequence[Row], base: str | None) -> None:
    """Draw the mean of each method and its interval; methods far off are named at the edge."""
    low, high = _limits(rows, base)
    for i, row in enumerate(rows):
        mean = row.gain.mean
        if np.isfinite(mean) and mean >= low:
            if row.gain.seeds >= FEWEST_SEEDS:
                axis.plot(row.gain[1:3], (i, i), **WHISKER, zorder=2)
            axis.plot(mean, i, **_marker(row, base), zorder=3)
        else:
            axis.text(
                0.01,
                i,
                _at_edge(row),
                transform=axis.get_yaxis_transform(),
                color=COLORS[0],
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        if row.name == base and np.isfinite(mean):
            axis.axvline(mean, color="black", linewidth=0.8, linestyle=":", zorder=1)
    axis.axvline(0, color="0.5", linewidth=0.8, zorder=1)
    axis.set_xlim(low, high)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_yticks(range(len(rows)), [fold(row.name) for row in rows])
    for label, row in zip(axis.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.name == base else "normal")
    axis.grid(axis="y", color="0.92", zorder=0)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)


def explain(figure: Any, rows: Sequence[Row], base: str | None, seeds: int) -> None:
    """Explain the markers above the panels."""
    shown: dict[str, Line2D] = {}
    short = None if base is None else base if len(base) <= LONGEST else f"{base[: LONGEST - 1]}…"
    if seeds < FEWEST_SEEDS:
        shown[f"fewer than {FEWEST_SEEDS} seeds: no intervals"] = Line2D([], [], linestyle="none")
    elif any(row.against is not None for row in rows):
        shown[f"differs from {short} by more than chance"] = Line2D([], [], **_dot(True))
        shown["does not"] = Line2D([], [], **_dot(False))
    if short is not None:
        shown[short] = Line2D([], [], **BASE)
    if seeds >= FEWEST_SEEDS:
        shown["95 % interval over seeds"] = Line2D([], [], **WHISKER)
    legend(figure, list(shown.values()), list(shown), "upper")


def _marker(row: Row, base: str | None) -> dict[str, Any]:
    if row.name == base:
        return BASE
    return _dot(row.against is None or row.gain.seeds < FEWEST_SEEDS or bool(differs(row.against)))


def _dot(filled: bool) -> dict[str, Any]:
    color = {"color": COLORS[0], "markerfacecolor": COLORS[0] if filled else "white"}
    return {"marker": "o", "linestyle": "none", "markersize": 8.5, "markeredgewidth": 2, **color}


def _at_edge(row: Row) -> str:
    """The text at the edge for a method that is no point on the axis."""
    if np.isfinite(row.gain.mean):
        return f"◂ {row.gain.mean:.3g}"
    return "diverged" if row.broken else "not finite"


def _limits(rows: Sequence[Row], base: str | None) -> tuple[float, float]:
    """Ends of the axis: they include 0, the best and the base, but no method that is far worse."""
    inside = [row for row in rows if np.isfinite(row.gain.mean)]
    means = np.array([row.gain.mean for row in inside])
    if not len(means):
        return -1.0, 1.0
    wide = [row.gain.high - row.gain.mean for row in inside if row.gain.seeds >= FEWEST_SEEDS]
    middle = np.median(means)
    typical = max(np.median(np.abs(means - middle)), np.median(wide) if wide else 0.0)
    least = middle - 8 * typical if typical > 0 else -np.inf
    within = [row for row in inside if row.gain.mean >= least or row.name == base]
    means = np.array([row.gain.mean for row in within])
    reach = 4 * typical  # of an interval, so that a wide one does not squeeze the others
    lows, highs = [0.0, *means], [0.0, *means]
    for row in within:
        if row.gain.seeds >= FEWEST_SEEDS:
            lows.append(max(row.gain.low, row.gain.mean - reach))
            highs.append(min(row.gain.high, row.gain.mean + reach))
    low, high = min(lows), max(highs)
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin
