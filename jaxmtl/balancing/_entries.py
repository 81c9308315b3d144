"""Conditions on all entries of trees of leaves, in few reductions."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._platform import may_be_sharded
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._one_sum import add_up


def all_finite(leaves: Sequence[Array]) -> Array:
    """Whether all these arrays are finite."""
    return all_hold([jnp.isfinite(leaf) for leaf in leaves])


def all_hold(flags: Sequence[Array]) -> Array:
    """Whether all entries of these arrays of bools are true."""
    if may_be_sharded(flags):
        return add_up(_fails, flags, otherwise=lambda: _fails(_all_of(flags))) == 0
    # The columns of matrices, and vectors of their length.
    return _all_of([jnp.all(each, axis=tuple(range(each.ndim - 1))) for each in _by_shape(flags)])


def _all_of(flags: Sequence[Array]) -> Array:
    return jnp.all(jnp.stack([jnp.all(each) for each in _by_shape(flags)] or [True]))


def _fails(flags: Array) -> Array:
    """Zero if all are true, else one: a number that can be summed over devices."""
    return jnp.any(~flags).astype(jnp.int32)


def no_nan(tree: PyTree) -> list[Array]:
    """Bools that say which entries are not NaN, for the floating-point leaves of a tree."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [~jnp.isnan(leaf) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def finite_rows(tree: PyTree) -> Array:
    """For each task, whether all of its rows in a tree of stacked leaves are finite: (T,) bool."""
    return rows_where(jnp.isfinite, tree)


def rows_where(test: Callable[[Array], Array], tree: PyTree) -> Array:
    """For each task, whether a test holds for all entries of its rows: (T,) bool."""
    found = [
        jnp.all(each, axis=tuple(range(1, each.ndim)))
        for each in _by_shape([test(leaf) for leaf in jax.tree.leaves(tree)])
    ]
    return jnp.all(jnp.stack(found), axis=0)


def _by_shape(flags: Sequence[Array]) -> list[Array]:
    """For each shape one array: true where all the arrays of that shape are true.

    Each reduction is a launch of its own on a GPU, so few arrays should be reduced. Sharded arrays
    are not combined, since arrays of one shape need not lie on the same devices.
    """
    groups: dict[Any, list[Array]] = {}
    apart = may_be_sharded(flags)
    for number, each in enumerate(flags):
        groups.setdefault(number if apart else each.shape, []).append(each)
    return [functools.reduce(operator.and_, group) for group in groups.values()]
