"""The vocabulary of the test bed: what a demo problem is made of."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxmtl._typing import Array, PyTree

Batch = Mapping[str, Array | np.ndarray]


class Problem(NamedTuple):
    """A multi-task problem: a model, its losses, its metrics, its data.

    Every per-task dictionary has exactly the names in ``tasks`` as its keys.

    Attributes:
      name: what to call the problem in print.
      tasks: task names, in the order of ``jax.tree.leaves`` of the losses (sorted).
      init: ``key -> params``, a pytree whose top level is ``{"trunk": ..., "heads": {task: ...}}``.
      losses: ``(params, batch) -> {task: scalar}``, each the mean over the batch.
      metrics: ``(params, split) -> {task: scalar}``, what a reader cares about.
      maximize: whether a task's metric is better when higher.
      metric_names: what a task's metric is called.
      train: arrays whose first axis runs over the examples.
      validation: likewise, to choose hyperparameters on.
      test: likewise, to report.
      initial_values: the losses of a model that outputs zeros, from theory; None where there is no
        theory.
      prior_values: the losses of the best constant output, which knows the labels' prior only.
      standardisation: the static loss weights that amount to standardising the regression targets.
      learning_rate: of Adam, chosen on the validation split with equal weights.
      batch: examples in a batch.
      steps: how long a comparison trains unless told.
    """

    name: str
    tasks: tuple[str, ...]
    init: Callable[[Array], PyTree]
    losses: Callable[[PyTree, Batch], dict[str, Array]]
    metrics: Callable[[PyTree, Batch], dict[str, Array]]
    maximize: dict[str, bool]
    metric_names: dict[str, str]
    train: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    initial_values: dict[str, float] | None = None
    prior_values: dict[str, float] | None = None
    standardisation: dict[str, float] | None = None
    learning_rate: float = 1e-2
    batch: int = 256
    steps: int = 800
