"""A choice between several ways to take a step, made at run time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._typing import Array
from jaxmtl.backward._cpu_layouts import laid_out


def one_of(index: Array, *branches: Callable[[], Any]) -> Any:
    """Run one of the branches; unlike with ``lax.cond``, auxiliary data may hold the tasks' names.

    Outside of ``jit`` the branch is chosen at once, since a cond would be compiled at each call.

    Args:
      index: the number of the branch, or a bool: True chooses the first of two.
      branches: functions without arguments that return tuples.
    """
    found: list[Any] = []

    def only_arrays(branch: Callable[[], Any]) -> Any:
        value, *rest = branch()
        leaves, treedef = jax.tree.flatten(value)
        found[:] = treedef, [None if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)], *rest

    is_condition = index.dtype == jnp.bool_
    if not isinstance(index, jax.core.Tracer):
        return branches[not index if is_condition else int(index)]()
    ways = [laid_out(functools.partial(only_arrays, branch)) for branch in branches]
    arrays, *rest = lax.cond(index, *ways) if is_condition else lax.switch(index, ways)
    treedef, names = found
    in_turn = iter(arrays)
    leaves = [next(in_turn) if name is None else name for name in names]
    return jax.tree.unflatten(treedef, leaves), *rest
