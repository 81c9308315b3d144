"""Sizes, names, tables and legends that are readable at the width of a page."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxmtl.plotting import plot_heat_map

PAGE = 7.2  # inches
TABLE = 5.1  # inches, beside the longest names
TEXT = 10  # points; a point is 1.35 of the 700 pixels that a page is shown at
SMALLEST = 7
LETTER = 0.0775  # inches, of a letter of that size and the space around
LONGEST = 24  # letters of a name in one line
MOST_NUMBERS = 16  # tasks whose numbers fit into the cells of a page's width
# The colours of Okabe and Ito, which colour-blind readers can distinguish.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")


def fold(name: str) -> str:
    """A name in one line or two."""
    return "\n".join(textwrap.wrap(name, LONGEST, max_lines=2, placeholder="…"))


def width_of_names(tasks: Sequence[str]) -> float:
    """Width in inches of a table with the names of its columns side by side."""
    return LETTER * _longest(tasks) * len(tasks)


def height_of_names(tasks: Sequence[str], width: float) -> float:
    """Height in inches that the names of columns need below a table."""
    return 0.3 if width_of_names(tasks) <= width else 0.1 + LETTER * _longest(tasks)


def draw_table(
    axis: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    tasks: Sequence[str],
    width: float,
    limits: tuple[float, float],
    colormap: str,
    sign: str,
) -> None:
    """Draw a heat map whose numbers and names fit into ``width`` inches."""
    plot_heat_map(values, rows or [""] * len(values), tasks, axis, limits=limits, colormap=colormap)
    for text, value in zip([*axis.texts], values.ravel(), strict=True):
        if len(tasks) > MOST_NUMBERS:
            text.remove()
        else:
            text.set(text=_number(value, sign), fontsize=min(TEXT - 0.5, 30 * width / len(tasks)))
            if not np.isfinite(value):
                text.set_color("black")
    if len(tasks) > MOST_NUMBERS:
        axis.figure.colorbar(axis.images[0], ax=axis, fraction=0.05)
    names = [fold(task) for task in tasks]
    lying = width_of_names(tasks) <= width
    lines = 1 if lying else max(name.count("\n") + 1 for name in names)
    size = min(TEXT, 62 * width / len(tasks) / lines)
    every = int(np.ceil(SMALLEST / size))  # if not all can be read, only some are named
    axis.set_xticks(
        range(0, len(tasks), every),
        names[::every],
        rotation=0 if lying else 90,
        fontsize=max(size, SMALLEST),
    )
    for label in axis.get_xticklabels():
        label.set(ha="center", rotation_mode="default")


def grid(figure: Any, count: int, columns: int, sharey: bool = True) -> list[Axes]:
    """The given number of axes, row by row."""
    grid = figure.subplots(-(-count // columns), columns, sharey=sharey, squeeze=False).ravel()
    for axis in grid[count:]:
        axis.remove()
    for axis in grid[:count]:
        axis.spines[["top", "right"]].set_visible(False)
    return list(grid[:count])


def legend(figure: Any, handles: Sequence[Line2D], names: Sequence[str], side: str) -> None:
    """Draw the names of lines, above or below the panels."""
    columns = _legend_columns(names)
    labels = [fold(name) for name in names] if side == "lower" else names
    figure.legend(handles, labels, loc=f"outside {side} center", ncols=columns, frameon=False)


def height_of_legend(names: Sequence[str]) -> float:
    """Height in inches of a legend below the panels."""
    rows = -(-len(names) // _legend_columns(names))
    return 0.21 * rows * max(fold(name).count("\n") + 1 for name in names)


def _legend_columns(names: Sequence[str]) -> int:
    """All in one line if they fit, else columns of the width of the longest."""
    widths = [LETTER * len(name) + 0.55 for name in names]
    if sum(widths) <= PAGE:
        return len(names)
    return max(1, int(PAGE / min(max(widths), LETTER * LONGEST + 0.55)))


def _number(value: float, sign: str) -> str:
    """At most five letters: "+1.2", "+123", "<-999", "–" if there is no number."""
    if np.isnan(value):
        return "–"
    if abs(value) > 999:
        return ">999" if value > 0 else "<-999"
    text = f"{value:{sign}.1f}" if abs(value) < 9.95 else f"{value:{sign}.0f}"
    return "0.0" if float(text) == 0 else text


def _longest(names: Sequence[str]) -> int:
    """Number of letters of the longest line of folded names."""
    return max(len(line) for name in names for line in fold(name).split("\n"))
