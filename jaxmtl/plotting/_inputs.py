"""Checks of the plots' inputs, with messages in full sentences, before anything is drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like

from jaxmtl._checks import real_array, shown


def axis_or_new(axis: Any) -> Axes:
    """The user's axis, or the axis of a new figure."""
    if axis is None:
        return plt.subplots()[1]
    if not isinstance(axis, Axes):
        raise ValueError(
            "axis must be a matplotlib Axes, such as plt.subplots()[1], but it is"
            f" {shown(axis)}: the first of what plt.subplots() returns is the figure."
        )
    return axis


def numbers(name: str, values: Any, shape: str = "", *, ndim: int | None = None) -> np.ndarray:
    """Read numbers to draw."""
    return np.asarray(real_array(name, values, shape, ndim=ndim), float)


def named_numbers(
    name: str, series: Any, shape: str = "(N,)", ndim: int = 1
) -> dict[str, np.ndarray]:
    """Read numbers under their names, at least one of each."""
    if not isinstance(series, Mapping):
        raise ValueError(
            f'{name} must be a dict of arrays by name, such as {{"depth": values}}, but it is'
            f" {shown(series)}."
        )
    found = {
        key: numbers(f"{name}[{key!r}]", values, shape, ndim=ndim) for key, values in series.items()
    }
    for key, values in found.items():
        if not len(values):
            raise ValueError(f"{name}[{key!r}] must hold something to draw, but it is empty.")
    return found


def check_names(name: str, names: Any, count: int | None = None) -> None:
    """Raise unless ``names`` is a sequence of names, of the given number if it is known."""
    is_list = isinstance(names, Sequence) and not isinstance(names, str | bytes)
    if not is_list or not all(isinstance(entry, str) for entry in names):
        raise ValueError(
            f'{name} must be a list of names, such as ["depth", "labels"], but it is'
            f" {shown(names)}."
        )
    if count is not None and len(names) != count:
        raise ValueError(f"{name} must hold {count} names, but it holds {len(names)}.")


def check_colors(colors: Any, count: int) -> None:
    """Raise unless ``colors`` is None or a list with ``count`` colours."""
    if colors is None:
        return
    is_list = isinstance(colors, list | tuple) and len(colors) == count
    if not is_list or not all(map(is_color_like, colors)):
        raise ValueError(
            f"colors must be a list of {count} colours of matplotlib, but it is {shown(colors)}."
        )
