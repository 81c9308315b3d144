"""Curves over training, and bars with their spread."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from jaxmtl._checks import check_count, check_finite, check_flag
from jaxmtl.plotting._inputs import axis_or_new, check_colors, check_names, named_numbers, numbers


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
      window: the number of steps to average over, to smooth the noise of batches.
      log: whether the vertical axis is logarithmic.
      **line: passed on to ``Axes.plot``.

    Returns:
      The axis.

    Raises:
      ValueError: if the window is longer than a curve.

    Examples:
      >>> from jaxmtl import plotting
      >>> axis = plotting.plot_curves({"depth": [3.0, 2.0, 1.0]}, log=True)
      >>> axis.get_xlabel()
      'step'
    """
    check_count("window", window)
    check_flag("log", log)
    curves = named_numbers("series", series, "(steps,)")
    axis = axis_or_new(axis)
    for name, curve in curves.items():
        if window > len(curve):
            raise ValueError(
                f"window must be between 1 and the {len(curve)} steps of {name!r}, but it is"
                f" {window}."
            )
        smooth = _smooth(curve, window)
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
      reference: the position of a vertical line for comparison; none if None.
      colors: one for each bar.

    Returns:
      The axis, with the first name at the top.

    Examples:
      >>> from jaxmtl import plotting
      >>> axis = plotting.plot_bars({"equal": [1.0, 3.0], "mgda": [2.0, 2.0]}, reference=0.0)
      >>> [bar.get_width().item() for bar in axis.patches]
      [2.0, 2.0]
    """
    samples = list(named_numbers("values", values).values())
    if reference is not None:
        check_finite("reference", reference)
    check_colors(colors, len(samples))
    axis = axis_or_new(axis)
    axis.barh(
        list(values),
        [sample.mean() for sample in samples],
        xerr=[sample.std(ddof=1) if len(sample) > 1 else 0.0 for sample in samples],
        color=colors,
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    axis.set_ylim(len(samples) - 0.5, -0.5)  # inverting would flip a shared axis twice
    if reference is not None:
        axis.axvline(reference, color="black", linewidth=1, linestyle="--")
    return axis


def plot_task_weights(
    weights: ArrayLike,
    tasks: Sequence[str],
    axis: Axes | None = None,
    *,
    window: int = 1,
    colors: Sequence[Any] | None = None,
) -> Axes:
    """Draw each task's share of the task weights over training, with its spread over seeds.

    The share is w_i / sum_j |w_j|: it does not show the length of the update, which Adam
    normalises. A line is the mean over seeds, the band one standard deviation to either side.

    Args:
      weights: (seeds, steps, T) task weights.
      tasks: T names, in the order of the weights.
      axis: where to draw; a new figure if None.
      window: the number of steps to average over.
      colors: one for each task.

    Returns:
      The axis.

    Raises:
      ValueError: if the weights have another shape, or the window is longer than training.

    Examples:
      >>> from jaxmtl import plotting
      >>> axis = plotting.plot_task_weights([[[1.0, 3.0], [1.0, 1.0]]], ["depth", "labels"])
      >>> axis.lines[0].get_ydata().tolist()
      [0.25, 0.5]
    """
    check_names("tasks", tasks)
    check_count("window", window)
    check_colors(colors, len(tasks))
    w = numbers("weights", weights)
    if w.ndim != 3 or w.shape[-1] != len(tasks):
        raise ValueError(
            f"weights must have shape (seeds, steps, {len(tasks)}) for {len(tasks)} tasks, but it"
            f" has {w.shape}: pass one seed as weights[None]."
        )
    total = np.abs(w).sum(axis=-1, keepdims=True)
    shares = np.divide(w, total, out=np.full_like(w, np.nan), where=total > 0)
    axis = axis_or_new(axis)
    for i, task in enumerate(tasks):
        color = {} if colors is None else {"color": colors[i]}
        plot_curves({task: shares[:, :, i].mean(axis=0)}, axis, window=window, **color)
        line = axis.lines[-1]
        if len(w) > 1:
            steps, mean = (np.asarray(values) for values in line.get_data())
            spread = np.std([_smooth(curve, window) for curve in shares[:, :, i]], axis=0, ddof=1)
            axis.fill_between(
                steps, mean - spread, mean + spread, color=line.get_color(), alpha=0.2, linewidth=0
            )
    axis.set_ylabel("share of the task weights")
    return axis


def _smooth(curve: np.ndarray, window: int) -> np.ndarray:
    return np.convolve(curve, np.ones(window) / window, mode="valid")
