"""Matrices with a number in each cell."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from jaxmtl._checks import check_choice, check_count, shown
from jaxmtl.plotting._inputs import axis_or_new, check_names, numbers


def plot_cosines(cosines: ArrayLike, tasks: Sequence[str], axis: Axes | None = None) -> Axes:
    """Draw the cosines between the tasks' gradients as a heat map, with conflicts in red.

    Args:
      cosines: (T, T), such as ``jaxmtl.diagnostics.report(...).cosines``, or their mean over steps.
      tasks: T names.
      axis: where to draw; a new figure if None.

    Returns:
      The axis. Its colours run from -1 to 1 for any values.

    Raises:
      ValueError: if the shape does not fit the names.

    Examples:
      >>> from jaxmtl import plotting
      >>> axis = plotting.plot_cosines([[1.0, -0.5], [-0.5, 1.0]], ["depth", "labels"])
      >>> [text.get_text() for text in axis.texts]
      ['1.00', '-0.50', '-0.50', '1.00']
    """
    check_names("tasks", tasks)
    cosines = numbers("cosines", cosines)
    return plot_heat_map(cosines, tasks, tasks, axis, limits=(-1, 1), colormap="RdBu", digits=2)


def plot_heat_map(
    values: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    axis: Axes | None = None,
    *,
    limits: tuple[float, float],
    colormap: str = "Blues",
    digits: int = 1,
) -> Axes:
    """Draw a table with cells coloured by their values and the values written in them.

    Args:
      values: (len(rows), len(columns)) numbers.
      rows: names, from the top.
      columns: names, from the left.
      axis: where to draw; a new figure if None.
      limits: the values of the first and the last colour; values outside have the same colours.
      colormap: the name of a matplotlib colormap.
      digits: the number of decimals.

    Returns:
      The axis.

    Raises:
      ValueError: if the shape does not fit the names.

    Examples:
      >>> from jaxmtl import plotting
      >>> axis = plotting.plot_heat_map([[20.0, 80.0]], ["mgda"], ["a", "b"], limits=(0, 100))
      >>> [text.get_text() for text in axis.texts]
      ['20.0', '80.0']
    """
    check_names("rows", rows)
    check_names("columns", columns)
    check_choice("colormap", colormap, tuple(colormaps))
    check_count("digits", digits, 0)
    ends = numbers("limits", limits, "(2,)", ndim=1)
    if ends.shape != (2,) or not ends[0] < ends[1]:
        raise ValueError(
            f"limits must be the smallest and the largest value of the colours, such as (0, 1),"
            f" but it is {shown(limits)}."
        )
    table = numbers("values", values)
    if table.shape != (len(rows), len(columns)):
        raise ValueError(
            f"values must have shape ({len(rows)}, {len(columns)}) for so many names, but it is"
            f" {table.shape}."
        )
    axis = axis_or_new(axis)
    image = axis.imshow(table, vmin=limits[0], vmax=limits[1], cmap=colormap, aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(table):
        red, green, blue, _ = image.to_rgba(value)
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
        axis.text(
            j,
            i,
            f"{value.round(digits) + 0.0:.{digits}f}",  # no -0.0
            ha="center",
            va="center",
            fontsize="small",
            color="white" if dark else "black",
        )
    return axis
