"""What people look at: curves over time, and bars with their spread. Needs matplotlib."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from jaxmtl.pareto import non_dominated


def plot_curves(
    series: Mapping[str, ArrayLike],
    axis: Axes | None = None,
    *,
    window: int = 1,
    log: bool = False,
    **line: Any,
) -> Axes:
    """Draw named curves over training steps.

    Args:
      series: name -> (steps,) values.
      axis: where to draw; a new figure if None.
      window: how many steps to average over, to see through the noise of batches.
      log: whether the vertical axis is logarithmic.
      **line: passed on to ``Axes.plot``.

    Returns:
      The axis.

    Raises:
      ValueError: where the window is longer than a curve.

    Examples:
      >>> from jaxmtl import plotting
      >>> axis = plotting.plot_curves({"depth": [3.0, 2.0, 1.0]}, log=True)
      >>> axis.get_xlabel()
      'step'
    """
    axis = plt.subplots()[1] if axis is None else axis
    for name, values in series.items():
        curve = np.asarray(values, float)
        if not 1 <= window <= len(curve):
            raise ValueError(
                f"window must be between 1 and the {len(curve)} steps of {name!r}, but it is"
                f" {window}."
            )
        smooth = np.convolve(curve, np.ones(window) / window, mode="valid")
        axis.plot(np.arange(len(smooth)) + (window - 1) / 2, smooth, label=name, **line)
    axis.set_xlabel("step")
    if log:
        axis.set_yscale("log")
    return axis


def plot_bars(
    values: Mapping[str, ArrayLike],
    axis: Axes | None = None,
    *,
    reference: float | None = None,
    colors: list[Any] | None = None,
) -> Axes:
    """Draw the mean of each named sample as a horizontal bar, with its spread.

    Args:
      values: name -> (seeds,) values; the bar is their mean, the whisker their standard deviation.
      axis: where to draw; a new figure if None.
      reference: where to draw a vertical line for comparison, if anywhere.
      colors: one for each bar.

    Returns:
      The axis, with the first name at the top.

    Examples:
      >>> from jaxmtl import plotting
      >>> axis = plotting.plot_bars({"equal": [1.0, 3.0], "mgda": [2.0, 2.0]}, reference=0.0)
      >>> [bar.get_width().item() for bar in axis.patches]
      [2.0, 2.0]
    """
    axis = plt.subplots()[1] if axis is None else axis
    samples = [np.asarray(sample, float) for sample in values.values()]
    axis.barh(
        list(values),
        [sample.mean() for sample in samples],
        xerr=[sample.std(ddof=1) if len(sample) > 1 else 0.0 for sample in samples],
        color=colors,
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    axis.invert_yaxis()
    if reference is not None:
        axis.axvline(reference, color="black", linewidth=1, linestyle="--")
    return axis


def plot_front(
    points: Mapping[str, ArrayLike],
    axis: Axes | None = None,
    *,
    front: ArrayLike | None = None,
    colors: list[Any] | None = None,
) -> Axes:
    """Draw named sets of points in the plane of two losses, each with its own front.

    Args:
      points: name -> (N, 2) losses. What no other point of its set dominates is filled, the rest
        is hollow.
      axis: where to draw; a new figure if None.
      front: (M, 2) losses to join by a line: the true front, or one to compare with.
      colors: one for each set.

    Returns:
      The axis.

    Raises:
      ValueError: where the losses are not two.

    Examples:
      >>> from jaxmtl import plotting
      >>> axis = plotting.plot_front({"mgda": [[1.0, 3.0], [2.0, 1.0], [3.0, 3.0]]})
      >>> [len(drawn.get_offsets()) for drawn in axis.collections]  # on its front, and off it
      [2, 1]
    """
    axis = plt.subplots()[1] if axis is None else axis
    if front is not None:
        x, y = np.asarray(front, float).T
        axis.plot(x, y, color="#BBBBBB", linewidth=4, zorder=0, label="front")
    for i, (name, values) in enumerate(points.items()):
        losses = np.asarray(values, float)
        if losses.shape[1:] != (2,):
            raise ValueError(
                f"points must have shape (N, 2), two losses a row, but {name!r} has {losses.shape}."
            )
        best = np.asarray(non_dominated(losses))
        color = f"C{i}" if colors is None else colors[i]
        (x, y), (beaten_x, beaten_y) = losses[best].T, losses[~best].T
        axis.scatter(x, y, s=22, color=color, label=name)
        axis.scatter(beaten_x, beaten_y, s=22, facecolors="none", edgecolors=color, linewidths=0.8)
    return axis
