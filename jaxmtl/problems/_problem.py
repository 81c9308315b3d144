"""The input of a comparison: initial parameters, losses, data and metrics."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax

from jaxmtl._checks import (
    check_above,
    check_callable,
    check_finite,
    check_flag,
    check_optimizer,
    real_array,
    shown,
    static_count,
)
from jaxmtl._typing import Array, LeafSelector, PyTree, TaskVector

Batch = Mapping[str, Array | np.ndarray]

# How the functions of a problem are called.
_PLAIN = {
    "init": "key",
    "losses": "params, batch",
    "metrics": "params, split",
    "active": "batch",
    "sample": "key",
}
_STATEFUL = _PLAIN | {"losses": "params, state, batch, key", "metrics": "params, state, split"}
_NEEDED = ("init", "losses")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Several losses of one network, with their data: the input of ``compare``.

    Three arguments are needed: ``init``, ``losses``, and ``train`` or ``sample``; all others have a
    default or are determined from these.

    Args:
      init: ``key -> params``, any tree of floating-point arrays. With ``stateful`` a pair
        ``(params, state)``.
      losses: ``(params, batch) -> losses``, a tree of scalars such as ``{"depth": ..., "labels":
        ...}``, each a mean over the batch. With ``stateful``, for batch statistics, running
        averages and dropout: ``(params, state, batch, key) -> (losses, state)``.
      train: a tree of arrays whose first axis runs over the examples, from which batches are drawn;
        or, for data that do not fit in memory (grain, torch's DataLoader), ``seed -> iterator of
        batches``, the same for the same seed: batches are trees of arrays of one shape. An iterator
        that ends is started again with the same seed; for another order in each epoch, let it
        shuffle again and continue without an end.
      sample: in place of ``train``, ``key -> batch`` in JAX, for generated data, such as the points
        of a differential equation: drawn again at each step, within the compiled program.
      metrics: ``(params, split) -> {task: scalar}``, the quantities to report, one for each loss
        and by its name; with ``stateful`` ``(params, state, split)``. The losses if None (with
        ``stateful`` as in training, with one key).
      maximize: whether a metric is better when higher: one bool, or one for each task.
      metric_names: the name of each task's metric in tables.
      test: arrays as for ``train``, on which metrics are reported, in one forward pass; the arrays
        of ``train`` if None.
      validation: arrays of the same kind, for the choice of learning rates.
      shared: the leaves that are balanced, a mask or a function of the path as for ``on_shared``;
        all others receive their own task's gradient. If None, the leaves on which more than one
        loss depends (``shared_leaves``), or all leaves if the losses are one array.
      active: ``batch -> mask``, one bool per task, if some batches lack labels for some tasks.
      stateful: whether the functions have a state and a key, as described above.
      name: the name of the problem in print.
      batch: number of examples in a batch, if ``train`` is arrays.
      optimizer: ``learning_rate -> optax optimizer``, such as ``optax.adam``; its argument is a
        cosine decay from ``learning_rate`` to zero over the steps. Or an optax optimizer, used
        unchanged.
      learning_rate: the rate that all methods share.
      steps: the default number of steps of a comparison.
      tasks: the tasks' names in ``jax.tree.leaves`` order; taken from the losses if None.
      prior_values: the losses of the best constant output, for ``prior_loss``.
      standardisation: the weights that amount to standardising regression targets, for ``static``.

    Raises:
      ValueError: if an argument has the wrong type; the message names it.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxmtl
      >>> x = jnp.linspace(-1.0, 1.0, 64)[:, None]
      >>> data = {"x": x, "sine": jnp.sin(3 * x), "square": 100 * x**2}
      >>> def init(key):
      ...     return {"trunk": jax.random.normal(key, (1, 8)), "sine": jnp.zeros((8, 1)),
      ...             "square": jnp.zeros((8, 1))}
      >>> def losses_fn(params, batch):
      ...     h = jnp.tanh(batch["x"] @ params["trunk"])
      ...     return {n: jnp.mean((h @ params[n] - batch[n]) ** 2) for n in ("sine", "square")}
      >>> problem = jaxmtl.Problem(init=init, losses=losses_fn, train=data)
    """

    init: Callable[[Array], Any]
    losses: Callable[..., Any]
    train: PyTree | Callable[[int], Iterator[PyTree]] = None
    sample: Callable[[Array], PyTree] | None = None
    metrics: Callable[..., Any] | None = None
    maximize: Any = False
    metric_names: Any = None
    test: PyTree = None
    validation: PyTree = None
    shared: LeafSelector | None = None
    active: Callable[[PyTree], TaskVector] | None = None
    stateful: bool = False
    name: str = "Problem"
    batch: int = 128
    optimizer: Callable[[Any], optax.GradientTransformation] | optax.GradientTransformation = (
        optax.adam
    )
    learning_rate: float = 1e-3
    steps: int = 1000
    tasks: tuple[str, ...] | None = None
    prior_values: dict[str, float] | None = None
    standardisation: dict[str, float] | None = None

    def __post_init__(self) -> None:
        check_flag("stateful", self.stateful)
        for argument, arguments in (_STATEFUL if self.stateful else _PLAIN).items():
            if (function := getattr(self, argument)) is not None or argument in _NEEDED:
                check_callable(argument, function, f"({arguments}) -> ...")
                _check_arguments(argument, function, arguments, self.stateful)
        if (self.train is None) == (self.sample is None):
            both = "neither" if self.train is None else "both"
            raise ValueError(
                "A problem needs train, arrays or a function from a seed to an iterator of batches,"
                f" or sample, a function from a key to a batch, but it has {both}."
            )
        if hasattr(self.train, "__next__"):
            raise ValueError(
                "train must be arrays or a function from a seed to an iterator, but it is an"
                f" iterator, {shown(self.train)}, which can be read only once: pass the function"
                " that makes it, such as lambda seed: batches(seed)."
            )
        static_count("batch", self.batch)
        static_count("steps", self.steps)
        check_above("learning_rate", self.learning_rate, 0)
        if not callable(self.optimizer):
            check_optimizer("optimizer", self.optimizer)
        if not isinstance(self.name, str):
            raise ValueError(f"name must be a text, but it is {shown(self.name)}.")
        if self.tasks is not None and not _are_names(self.tasks):
            raise ValueError(f"tasks must be a tuple of names, but it is {shown(self.tasks)}.")
        for argument, kind in (("maximize", bool | np.bool_), ("metric_names", str)):
            value = getattr(self, argument)
            entries = value.values() if isinstance(value, Mapping) else [value]
            if value is not None and not all(isinstance(entry, kind) for entry in entries):
                what = "bool" if argument == "maximize" else "text"
                raise ValueError(
                    f"{argument} must be a {what}, or a dict of one for each task, but it is"
                    f" {shown(value)}."
                )
        for argument in ("prior_values", "standardisation"):
            value = getattr(self, argument)
            if value is not None and not isinstance(value, Mapping):
                raise ValueError(
                    f"{argument} must be a dict of numbers by task, but it is {shown(value)}."
                )
            for task, number in (value or {}).items():
                check_finite(f"{argument}[{task!r}]", number)
        for argument in ("test", "validation"):
            for leaf in jax.tree.leaves(getattr(self, argument)):
                if not np.ndim(real_array(argument, leaf, "(examples, ...)")):
                    raise ValueError(
                        f"{argument} must hold arrays with one row per example, but one of them is"
                        f" {shown(leaf)}."
                    )


def _check_arguments(argument: str, function: Any, arguments: str, stateful: bool) -> None:
    """Raise if a function cannot be called with the arguments it will get."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of compiled code
        return
    try:
        signature.bind(*arguments.split(", "))
    except TypeError as error:
        other = (_PLAIN if stateful else _STATEFUL)[argument]
        otherwise = f" With stateful={not stateful} it would be called as {argument}({other})."
        raise ValueError(
            f"{argument} is called as {argument}({arguments}), but it takes {signature}."
            + (otherwise if other != arguments else "")
        ) from error


def _are_names(names: Any) -> bool:
    return isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)
