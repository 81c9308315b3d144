"""Plots in a plane: paths, convex weights of three tasks, fronts of two losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from numpy.typing import ArrayLike

from jaxmtl._checks import shown
from jaxmtl.pareto import non_dominated
from jaxmtl.plotting._inputs import axis_or_new, check_colors, check_names, named_numbers, numbers


def plot_trajectories(
    paths: ArrayLike,
    axis: Axes | None = None,
    *,
    contours: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    **line: Any,
) -> Axes:
    """Draw paths in the plane, a circle where each starts and a star where it ends.

    Args:
      paths: (N, steps, 2) points.
      axis: where to draw; a new figure if None.
      contours: x (A,), y (B,) and values (B, A) of contours to draw behind the paths.
      **line: passed on to ``Axes.plot`` for the paths; their start and end marks have their
        colours.

    Returns:
      The axis, with both directions to the same scale.

    Raises:
      ValueError: if the paths do not have that shape.

    Examples:
      >>> import numpy as np
      >>> from jaxmtl import plotting
      >>> axis = plotting.plot_trajectories(np.array([[[0.0, 0.0], [1.0, 1.0]]]), color="black")
      >>> [line.get_marker() for line in axis.lines]
      ['None', 'o', '*']
    """
    points = numbers("paths", paths)
    if points.ndim != 3 or points.shape[-1] != 2:
        raise ValueError(
            f"paths must have shape (N, steps, 2), but they have {points.shape}: pass a single path"
            " as paths[None]."
        )
    if contours is not None:
        if not isinstance(contours, tuple | list) or len(contours) != 3:
            raise ValueError(
                f"contours must be (x, y, heights), three arrays, but it is {shown(contours)}."
            )
        x, y, heights = (numbers("contours", values) for values in contours)
        fits = x.shape == y.shape == heights.shape or heights.shape == (len(y), len(x))
        if heights.ndim != 2 or not fits:
            raise ValueError(
                "contours must be (x, y, heights) with heights of shape (len(y), len(x)), but"
                f" their shapes are {x.shape}, {y.shape} and {heights.shape}."
            )
    axis = axis_or_new(axis)
    if contours is not None:
        axis.contour(*contours, levels=12, colors="0.75", linewidths=0.7, linestyles="solid")
    for path in points:
        (drawn,) = axis.plot(*path.T, **line)
        colour = drawn.get_color()
        axis.plot(*path[0], "o", color="white", markeredgecolor=colour, markersize=6)
        axis.plot(*path[-1], "*", color=colour, markeredgecolor="white", markersize=12)
    axis.set_aspect("equal")
    return axis


def plot_simplex_path(
    weights: ArrayLike,
    axis: Axes | None = None,
    *,
    names: Sequence[str] = ("1", "2", "3"),
    **line: Any,
) -> Axes:
    """Draw a path of three convex weights in the triangle whose corners are the tasks.

    Args:
      weights: (steps, 3) weights; each row sums to one.
      axis: where to draw; a new figure if None. Pass it to draw several paths in one triangle.
      names: the labels of the corners: the left, the right and the upper one.
      **line: passed on to ``Axes.plot`` for the path.

    Returns:
      The axis, without its frame.

    Raises:
      ValueError: if the weights are not of three tasks.

    Examples:
      >>> from jaxmtl import plotting
      >>> axis = plotting.plot_simplex_path([[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]], label="path")
      >>> axis.lines[-1].get_xydata().round(3).tolist()
      [[0.5, 0.866], [0.5, 0.0]]
    """
    check_names("names", names, 3)
    shares = numbers("weights", weights)
    if shares.ndim != 2 or shares.shape[1] != 3:
        raise ValueError(
            f"weights must have shape (steps, 3), but they have {shares.shape}: a triangle shows"
            " three tasks."
        )
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    axis = axis_or_new(axis)
    if not axis.patches:
        axis.add_patch(Polygon(corners, fill=False, edgecolor="0.6"))
        for name, corner, side in zip(names, corners, ("top", "top", "bottom"), strict=True):
            axis.annotate(
                name,
                corner,
                ha="center",
                va=side,
                xytext=(0, 4 if side == "bottom" else -4),
                textcoords="offset points",
            )
        axis.set(aspect="equal", xlim=(-0.1, 1.1), ylim=(-0.1, 1.0))
        axis.axis("off")
    axis.plot(*(shares @ corners).T, **line)
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
      points: name -> (N, 2) losses. Points that no other point of the set dominates are filled,
        the others are hollow.
      axis: where to draw; a new figure if None.
      front: (M, 2) losses to join by a line: the true front, or another one for comparison.
      colors: one for each set.

    Returns:
      The axis.

    Raises:
      ValueError: if a point does not have two losses.

    Examples:
      >>> from jaxmtl import plotting
      >>> axis = plotting.plot_front({"mgda": [[1.0, 3.0], [2.0, 1.0], [3.0, 3.0]]})
      >>> [len(drawn.get_offsets()) for drawn in axis.collections]  # on its front, and off it
      [2, 1]
    """
    all_losses = named_numbers("points", points, "(N, 2)", ndim=2)
    check_colors(colors, len(all_losses))
    line = None if front is None else numbers("front", front, "(N, 2)", ndim=2)
    for name, losses in {**all_losses, **({} if line is None else {"front": line})}.items():
        if losses.shape[1:] != (2,):
            raise ValueError(
                f"points must have shape (N, 2), two losses per row, but {name!r} has"
                f" {losses.shape}."
            )
    axis = axis_or_new(axis)
    if line is not None:
        x, y = line.T
        axis.plot(x, y, color="#BBBBBB", linewidth=4, zorder=0, label="front")
    for i, (name, losses) in enumerate(all_losses.items()):
        best = np.asarray(non_dominated(losses))
        color = f"C{i}" if colors is None else colors[i]
        (x, y), (beaten_x, beaten_y) = losses[best].T, losses[~best].T
        axis.scatter(x, y, s=22, color=color, label=name)
        axis.scatter(beaten_x, beaten_y, s=22, facecolors="none", edgecolors=color, linewidths=0.8)
    return axis
