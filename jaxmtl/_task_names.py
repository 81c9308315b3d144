"""The assignment of values to tasks: by name, or by the order of ``jax.tree.leaves``."""

import collections
import functools
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmtl._checks import path_name
from jaxmtl._typing import TaskVector


class TaskNames(NamedTuple):
    """The tasks' names in the arguments that have one value per task.

    Attributes:
      names: their names in ``jax.tree.leaves`` order; None if no argument has names.
      written: the same names in the order in which the user wrote them.
      by_position: the arguments without names.
    """

    names: tuple[str, ...] | None = None
    written: tuple[str, ...] | None = None
    by_position: tuple[str, ...] = ()


def common_names(known: TaskNames | None = None, /, **values: TaskVector | None) -> TaskNames:
    """The tasks' names, from arguments that all give the same names or none.

    If some arguments give the names in another order than the sorted one of ``jax.tree.leaves``,
    and others give their values by position, a warning says once which value belongs to which name.

    Args:
      known: the names that the balancer was built with.
      **values: arguments with one value per task, by the argument's name.

    Raises:
      ValueError: if two arguments name the tasks differently, or in another order.
    """
    known = TaskNames() if known is None else known
    named = {} if known.names is None else {"the balancer's values": known.names}
    written, by_position = known.written, list(known.by_position)
    for argument, value in values.items():
        names = _names(value)
        if names is not None:
            named[argument] = names
            as_written = _names(_with_order_kept(value))
            # The order that is not sorted is the one the user could have had in mind.
            written = as_written if written is None or as_written != names else written
        elif value is not None and argument not in by_position and not _all_equal(value):
            by_position.append(argument)
    if len(set(named.values())) > 1:
        raise ValueError(
            "The tasks must have the same names in the same order everywhere, but they are "
            + "; ".join(f"{', '.join(names)} in {argument}" for argument, names in named.items())
            + ". Give them in the same kind of tree: JAX sorts the names of a dict, not those of an"
            " OrderedDict or a named tuple."
        )
    names = next(iter(named.values()), None)
    if names is not None and written is not None and names != written and by_position:
        _tell_once(names, tuple(by_position))
    return TaskNames(names, written, tuple(by_position))


def shown_names(losses: Any) -> tuple[str, ...]:
    """The tasks' labels in print: their names, or their numbers if they have none."""
    entries = jax.tree.leaves_with_path(losses)
    if len(entries) == 1 and np.ndim(entries[0][1]) == 1:
        return tuple(map(str, range(np.shape(entries[0][1])[0])))
    return tuple(path_name(path) or "0" for path, _ in entries)


def _names(value: Any) -> tuple[str, ...] | None:
    """The names in a tree of scalars; None for a sequence or an array, which has none."""
    entries = jax.tree.leaves_with_path(value)
    keys = {type(key) for path, _ in entries for key in path}
    numbered = {jax.tree_util.SequenceKey, jax.tree_util.FlattenedIndexKey}
    if not keys - numbered or any(np.ndim(leaf) for _, leaf in entries if not _is_text(leaf)):
        return None
    return tuple(path_name(path) for path, _ in entries)


def _is_text(leaf: Any) -> bool:
    return isinstance(leaf, str)


def in_written_order(tree: Any, written: Any) -> Any:
    """The tree with its dicts ordered like those of a tree of the same structure."""
    if type(tree) is dict:
        return {key: in_written_order(tree[key], value) for key, value in written.items()}
    if isinstance(tree, list | tuple):
        return _like(tree, list(map(in_written_order, tree, written)))
    return tree


def _like(sequence: Any, values: list[Any]) -> Any:
    """Values in a sequence of the same type, which may be a named tuple."""
    is_named = hasattr(sequence, "_fields")
    return type(sequence)(*values) if is_named else type(sequence)(values)


def _with_order_kept(tree: Any) -> Any:
    """The tree with its dicts in a form that JAX does not sort."""
    if isinstance(tree, dict):
        entries = {key: _with_order_kept(value) for key, value in tree.items()}
        return collections.OrderedDict(entries)
    if isinstance(tree, list | tuple):
        return _like(tree, list(map(_with_order_kept, tree)))
    return tree


def _all_equal(value: Any) -> bool:
    """Whether all values are equal, so that their order does not matter.

    For arrays on a device this is not known without waiting for them.
    """
    leaves = jax.tree.leaves(value)
    if not leaves or any(isinstance(leaf, jax.Array) for leaf in leaves):
        return False
    values = np.concatenate([np.ravel(leaf) for leaf in leaves])
    return bool(np.all(values == values[0]))


@functools.cache
def _tell_once(names: tuple[str, ...], by_position: tuple[str, ...]) -> None:
    pairs = ", ".join(f"value {number} to {name!r}" for number, name in enumerate(names))
    warnings.warn(
        f"The tasks have names, but values of {' and '.join(by_position)} are given by position,"
        f" and so in the sorted order of the names, not in that in which they were written: {pairs}"
        " (values are counted from 0). Give them by name as well, in a dict with these keys.",
        UserWarning,
        stacklevel=4,
    )
