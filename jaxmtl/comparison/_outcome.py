"""What was compared, and what came of it: the numbers that are shown, drawn and saved."""

from typing import Any, NamedTuple

import numpy as np


class Setting(NamedTuple):
    """What was compared, in words and numbers.

    Attributes:
      problem: its name.
      tasks: the tasks' names.
      maximize: whether a task's metric is better when higher.
      metric_names: what it is called.
      steps: of training.
      seeds: how many.
      training: optimizer and batches, in words.
      runs: the names of all that was to be trained.
      rates: the learning rates, of which each method keeps its best.
      balanced: the paths of the leaves that were balanced.
      own: those of all others, which received their own task's gradient.
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
        """(T,) 1 where a higher metric is better, -1 where a lower one is."""
        return np.array([1 if self.maximize[task] else -1 for task in self.tasks])


class Outcome(NamedTuple):
    """What came of training.

    Attributes:
      metrics: (seeds, T) metrics on the test split.
      losses: (steps, T) training losses, mean over seeds.
      weights: (steps, T) task weights, mean over seeds.
      shares: (steps, T) task weights over their sum, mean over seeds.
      seconds_per_step: of all seeds together, without compilation.
      relative_times: (measurements,) times of a chunk of steps, each in units of that of equal
        weights run right after it, so that whatever else the machine does weighs on both.
      conflicts: share of the pairs of gradients in conflict, mean over some steps and all seeds.
      norm_ratio: longest over shortest gradient, median over some steps and all seeds.
      memory: bytes that a chunk of steps takes besides its arguments and results, of the seeds that
        are trained at once; None where the compiler does not tell.
      broken: what happened where a loss was not finite, in words; "" where all were.
      validation: (seeds, T) metrics on the validation split, where there is one.
      learning_rate: the rate, where the optimizer takes one.
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
    """Name the first step at which a loss was not finite, and the tasks whose loss it was."""
    # Of a task that has not had its first turn, ``in_turn`` knows no loss: infinity.
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
