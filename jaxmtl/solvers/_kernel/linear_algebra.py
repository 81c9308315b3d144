"""Products, factorisations and triangular systems.

They do not use the tensor cores, which would round float32 to ten bits.
"""

import math
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxmtl.solvers._kernel.entries import (
    NotInKernel,
    Rule,
    entry_at,
    pick,
    places_along,
    refilled,
    shape_of,
)

# Larger products loop over their inner axis, since the terms would not fit the registers.
_MOST_TERMS = 2**12


def _diagonal(eqn: Any, matrix: Any) -> Any:
    if matrix.shape[0] != matrix.shape[1]:
        raise NotInKernel("the diagonal of a matrix that is not square")
    return lax.squeeze(pick(places_along(matrix, 0) == places_along(matrix, 1), matrix, 1), [1])


def _dot_general(eqn: Any, left: Any, right: Any) -> Any:
    ((of_left,), (of_right,)), batch = eqn.params["dimension_numbers"]
    if batch != ((), ()) or max(left.ndim, right.ndim) > 2:
        raise NotInKernel("a product of more than two matrices")
    inner = shape_of(eqn.invars[0])[of_left]
    left = left if of_left == left.ndim - 1 else left.T
    right = right if of_right == 0 else right.T
    rows, columns = left.ndim == 2, right.ndim == 2
    if rows and columns and math.prod((*left.shape, right.shape[1])) > _MOST_TERMS:

        def add(k: Any, total: Any) -> Any:
            return total + entry_at(left, 1, k) * entry_at(right, 0, k)

        zeros = jnp.zeros((left.shape[0], right.shape[1]), left.dtype)
        return lax.fori_loop(0, inner, add, zeros)
    # The inner axis last: (rows, columns, inner).
    right = right.T if columns else right
    if rows and columns:
        left, right = left[:, None, :], right[None, :, :]
    elif rows or columns:
        left, right = (left, right[None, :]) if rows else (left[None, :], right)
    terms = left * right
    shape = (*terms.shape[:-1], inner)
    return jnp.sum(refilled(terms, shape, terms.ndim - 1, 0), axis=-1)


def _cholesky(eqn: Any, matrix: Any) -> Any:
    num = shape_of(eqn.invars[0])[0]
    row, column = places_along(matrix, 0), places_along(matrix, 1)

    def step(j: Any, carry: Any) -> Any:
        left, factor = carry
        here = entry_at(left, 1, j)
        pivot = entry_at(here, 0, j)
        line = jnp.where(places_along(here, 0) >= j, here / jnp.sqrt(pivot), 0)
        # The same numbers along the other axis: a transpose goes through memory.
        across = entry_at(left, 0, j)
        across = jnp.where(places_along(across, 1) >= j, across / jnp.sqrt(pivot), 0)
        return left - line * across, jnp.where(column == j, line, factor)

    # Of the lower half alone, as LAPACK does.
    lower = jnp.where((row >= column) & (row < num), matrix, 0)
    whole = jnp.where(row >= column, lower, lower.T)
    return lax.fori_loop(0, num, step, (whole, jnp.zeros_like(matrix)))[1]


def _lu(eqn: Any, matrix: Any) -> Any:
    """Gaussian elimination with the largest pivot of a column."""
    shape = shape_of(eqn.invars[0])
    if shape[0] != shape[1]:
        raise NotInKernel("factors of a matrix that is not square")
    row, column = places_along(matrix, 0), places_along(matrix, 1)

    def step(j: Any, carry: Any) -> Any:
        left, order = carry
        here = entry_at(left, 1, j)
        rows = places_along(here, 0)
        size = jnp.where((rows >= j) & (rows < shape[0]), jnp.abs(here), -1)
        pivot = jnp.min(jnp.where(size == jnp.max(size), rows, matrix.shape[0]))
        upper, line = entry_at(left, 0, j), entry_at(left, 0, pivot)
        left = jnp.where(row == j, line, jnp.where(row == pivot, upper, left))
        index = places_along(order, 0)
        swapped = jnp.where(index == j, entry_at(order, 0, pivot), order)
        order = jnp.where(index == pivot, entry_at(order, 0, j), swapped)
        share = jnp.where(rows > j, entry_at(left, 1, j) / entry_at(line, 1, j), 0)
        cleared = left - share * line
        return jnp.where(rows > j, jnp.where(column == j, share, cleared), left), order

    whole = jnp.where((row < shape[0]) & (column < shape[0]), matrix, 0)
    places = jnp.arange(matrix.shape[0], dtype=jnp.int32)
    factors, order = lax.fori_loop(0, shape[0], step, (whole, places))
    return factors, places, order


def _triangular_solve(eqn: Any, matrix: Any, target: Any) -> Any:
    params = eqn.params
    if not params["left_side"]:
        raise NotInKernel("a triangular system from the right")
    num = shape_of(eqn.invars[0])[0]
    turned = params["transpose_a"]
    forwards = params["lower"] != turned

    def step(i: Any, carry: Any) -> Any:
        left, found = carry
        j = i if forwards else num - 1 - i
        # Column j of the matrix, or of its transpose.
        line = entry_at(matrix, 0, j).reshape(-1, 1) if turned else entry_at(matrix, 1, j)
        entry = entry_at(left, 0, j)
        entry = entry if params["unit_diagonal"] else entry / entry_at(line, 0, j)
        later = places_along(line, 0) > j if forwards else places_along(line, 0) < j
        is_here = places_along(found, 0) == j
        return left - jnp.where(later, line, 0) * entry, jnp.where(is_here, entry, found)

    target = refilled(target, shape_of(eqn.invars[1]), 0, 0)
    return lax.fori_loop(0, num, step, (target, jnp.zeros_like(target)))[1]


RULES: dict[str, Rule] = {
    "dot_general": _dot_general,
    "cholesky": _cholesky,
    "lu": _lu,
    "triangular_solve": _triangular_solve,
}
RULES_BY_NAME: dict[str, Rule] = {"diagonal": _diagonal}
