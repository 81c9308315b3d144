"""What holds for all entries of trees of leaves, in few reductions."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._platform import may_be_sharded
from jaxmtl._typing import Array, PyTree


def all_finite(leaves: Sequence[Array]) -> Array:
    """Whether all these arrays are finite."""
    found = [jnp.all(holds) for holds in hold_by_shape(jnp.isfinite, leaves)]
    return jnp.all(jnp.stack(found or [True]))


def finite_rows(tree: PyTree) -> Array:
    """For each task, whether all of its rows in a tree of stacked leaves are finite: (T,) bool."""
    return rows_where(jnp.isfinite, tree)


def rows_where(test: Callable[[Array], Array], tree: PyTree) -> Array:
    """For each task, whether a test holds for all entries of its rows: (T,) bool."""
    found = [
        jnp.all(holds, axis=tuple(range(1, holds.ndim)))
        for holds in hold_by_shape(test, jax.tree.leaves(tree))
    ]
    return jnp.all(jnp.stack(found), axis=0)


def hold_by_shape(test: Callable[[Array], Array], leaves: Sequence[Array]) -> list[Array]:
    """Where a test holds in all leaves of one shape: an array of bools a shape.

    So that few are reduced, since each reduction is a launch of its own on a GPU. What is sharded
    stays apart: leaves of one shape need not lie on the same devices.
    """
    groups: dict[Any, list[Array]] = {}
    apart = may_be_sharded(leaves)
    for number, leaf in enumerate(leaves):
        groups.setdefault(number if apart else leaf.shape, []).append(test(leaf))
    return [functools.reduce(operator.and_, group) for group in groups.values()]
