"""The setting and the outcomes of a comparison: the numbers that are shown, drawn and saved."""

from typing import Any, NamedTuple

import numpy as np


class Setting(NamedTuple):
    """The setting of a comparison, in words and numbers.

    Attributes:
      problem: its name.
      tasks: the tasks' names.
      maximize: whether a task's metric is better when higher.
      metric_names: the names of the metrics.
      steps: the number of training steps.
      seeds: the number of seeds.
      training: optimizer and batches, in words.
      runs: the names of all runs.
      rates: the learning rates; each method keeps its best.
      balanced: the paths of the leaves that were balanced.
      own: the paths of all others, which received their own task's gradient.
    """

    problem: str
    tasks: tuple[str, ...]
    maximize: dict[str, bool]
    metric_names: dict[str, str]
    steps: int
    seeds: int
    training: str
    runs: tuple[str, ...]
    rates: tuple[float, ...] = ()
    balanced: tuple[str, ...] = ()
    own: tuple[str, ...] = ()

    @property
    def signs(self) -> np.ndarray:
        """(T,) 1 if a higher metric is better, -1 if a lower one is."""
        return np.array([1 if self.maximize[task] else -1 for task in self.tasks])


class Outcome(NamedTuple):
    """The outcome of training.

    Attributes:
      metrics: (seeds, T) metrics on the test split.
      losses: (steps, T) training losses, mean over seeds.
      weights: (steps, T) task weights, mean over seeds.
      shares: (steps, T) task weights over their sum, mean over seeds.
      seconds_per_step: time of all seeds together, without compilation.
      relative_times: (measurements,) times of a chunk of steps, each in units of the time with
        equal weights run right after it, so that other load on the machine affects both.
      conflicts: share of the pairs of gradients in conflict, mean over some steps and all seeds.
      norm_ratio: longest over shortest gradient, median over some steps and all seeds.
      memory: bytes that a chunk of steps takes besides its arguments and results, for the seeds
        that are trained at once; None if the compiler does not report it.
      broken: a description if a loss was not finite; "" if all were finite.
      validation: (seeds, T) metrics on the validation split, if there is one.
      learning_rate: the rate, if the optimizer takes one.
    """

    metrics: np.ndarray
    losses: np.ndarray
    weights: np.ndarray
    shares: np.ndarray
    seconds_per_step: float
    relative_times: np.ndarray
    conflicts: float = float("nan")
    norm_ratio: float = float("nan")
    memory: int | None = None
    broken: str = ""
    validation: Any = None
    learning_rate: float | None = None


def what_broke(losses: np.ndarray, tasks: tuple[str, ...]) -> str:
    """Name the first step at which a loss was not finite, and the tasks with such a loss."""
    # Before a task's first turn, ``in_turn`` has no loss for it and reports infinity.
    waiting = np.logical_and.accumulate(losses == np.inf) & np.isfinite(losses).any(axis=0)
    bad = ~np.isfinite(losses) & ~waiting
    if not bad.any():
        return ""
    step = int(np.argmax(bad.any(axis=(1, 2))))
    seeds = int(bad.any(axis=(0, 2)).sum())
    culprits = [task for task, broke in zip(tasks, bad[step].any(axis=0), strict=True) if broke]
    which = ", ".join(culprits)
    if len(culprits) == len(tasks):
        which = "all losses at once, after a step whose gradient was not finite or too long"
    return f"not finite from step {step} on, in {seeds} of {losses.shape[1]} seeds: {which}"
