"""Plots of plain arrays on a matplotlib axis. Needs matplotlib."""

from jaxmtl.plotting._curves import plot_bars, plot_curves, plot_task_weights
from jaxmtl.plotting._heat_maps import plot_cosines, plot_heat_map
from jaxmtl.plotting._plane import plot_front, plot_simplex_path, plot_trajectories

__all__ = [
    "plot_bars",
    "plot_cosines",
    "plot_curves",
    "plot_front",
    "plot_heat_map",
    "plot_simplex_path",
    "plot_task_weights",
    "plot_trajectories",
]
