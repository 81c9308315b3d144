"""Inner products of the rows of matrices: one contraction, or special sums for a CPU.

A CPU's product of a few long rows adds one column after the other, which loses digits and is far
slower than the memory bandwidth allows.
"""

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._typing import Array

_OVER_COLUMNS = (((1,), (1,)), ((), ()))
_TILE = 8 * 8 * 16


def contract(
    left: Array, right: Array, dimensions: Any, dtype: jnp.dtype, out_sharding: Any = None
) -> Array:
    """One contraction, accumulated in ``dtype``."""
    # HIGHEST, because tensor cores and TPUs would otherwise round float32 inputs to 10 or 8 bits.
    return lax.dot_general(
        left,
        right,
        dimensions,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=dtype,
        out_sharding=out_sharding,
    )


def added_by_halves(matrices: Sequence[Array], dtype: jnp.dtype) -> Array:
    """Products of every pair of rows, in one pass over each matrix, added up by halves: (T, T).

    This is for a few rows, where a matrix product is far slower than the memory bandwidth allows
    (from five rows on it is no slower, since the pairs no longer fit one pass), or for few products
    in all. This program fixes the order of the sum, not the compiler, and no order has smaller
    rounding errors.
    """
    index, sums, ends = _index_of_pairs(len(matrices[0])), [], []
    for matrix in matrices:
        size = matrix.shape[1]
        whole = size // _TILE * _TILE if size >= 8 * _TILE else 0
        ends.append(matrix[:, whole:].astype(dtype))
        if whole:
            of_pairs = jnp.stack(_sums_of_products(matrix[:, :whole].astype(dtype)))
            sums.append(of_pairs.reshape(len(of_pairs), -1)[index])
    end = jnp.concatenate(ends, axis=1)
    terms = jnp.concatenate([*sums, end[:, None] * end[None]], axis=2)
    missing = (1 << max(terms.shape[2] - 1, 0).bit_length()) - terms.shape[2]
    terms = jnp.pad(terms, ((0, 0), (0, 0), (0, missing)))
    while terms.shape[2] > 1:
        left, right = jnp.split(terms, 2, axis=2)
        terms = left + right
    return terms[:, :, 0]


def added_in_one_pass(matrix: Array, dtype: jnp.dtype) -> Array:
    """Products of every pair of rows, added up by one reduction: (T, T).

    Each thread of a GPU adds up a few terms, and threads are added up by halves, where a matrix
    product adds up one column after the other: on an H100, a Gramian of 2 to 8 rows of 300 entries
    is wrong by 5 to 8 roundings of its lengths (median of draws) as a product, and by one so.
    """
    rows = matrix.astype(dtype)
    if len(rows) > 8:
        return jnp.sum(rows[:, None] * rows[None], axis=2)
    products = [rows[i] * rows[j] for i, j in _pairs(len(rows))]  # so that each row is read once
    return jnp.stack(_add_up(products, 0))[_index_of_pairs(len(rows))]


def _index_of_pairs(num_tasks: int) -> Array:
    """Where the product of rows i and j stands among the pairs: (T, T)."""
    order = {pair: n for n, pair in enumerate(_pairs(num_tasks))}
    tasks = range(num_tasks)
    return jnp.array([[order[min(i, j), max(i, j)] for j in tasks] for i in tasks])


def _pairs(num_tasks: int) -> list[tuple[int, int]]:
    """The pairs of rows whose products make up a Gramian, each once."""
    return list(itertools.combinations_with_replacement(range(num_tasks), 2))


def _sums_of_products(rows: Array) -> list[Array]:
    """For each pair of rows of n tiles, sums of 64 of their products: arrays of shape (n, 16).

    Sixteen sums stand side by side, a vector register of them, and eight terms are added at a time:
    few enough for the compiler to unroll, so that the sixteen become one vector operation.
    """
    rows = rows.reshape(len(rows), -1, 8, 8, 16)
    products = [rows[i] * rows[j] for i, j in _pairs(len(rows))]
    return _add_up(_add_up(products, 2), 1)


def _add_up(arrays: list[Array], axis: int) -> list[Array]:
    """The sum of each array over an axis; one reduction for all reads shared inputs only once.

    Two reductions of a single array XLA would merge into one, and add one term after the other.
    """
    zeros = [jnp.zeros((), array.dtype) for array in arrays]
    return list(lax.reduce(arrays, zeros, functools.partial(jax.tree.map, operator.add), [axis]))


def added_in_blocks(left: Array, right: Array, dtype: jnp.dtype) -> Array:
    """Sum the Gramians of blocks of columns, with each addition's rounding error (Kahan's sum).

    XLA's CPU product of a (T, P) with a (P, T) matrix adds up one column after the other: its
    rounding errors on almost orthogonal gradients grow with the sum of the absolute partial sums,
    and so with the columns of a block. A few columns are one block, since a loop takes longer to
    compile; for many columns, blocks of fewer than 512 to 2048 cost more in the steps of the loop
    than they gain.
    """
    alike = left is right
    num_tasks, size = left.shape
    block = 2 ** round(math.log2(4 * math.sqrt(max(size, 1))))
    if size > 4096:
        block = min(max(block, 512), 2048)
    # Three products of halves make a symmetric matrix with less work than one product of the whole,
    # and use cores that a product of a few rows leaves idle; large products use all cores anyway.
    cut = num_tasks // 2 if alike and 16 <= num_tasks <= 64 else num_tasks

    def of_columns(start: Any, width: int) -> list[Array]:
        a, b = (lax.dynamic_slice_in_dim(stack, start, width, 1) for stack in (left, right))
        top, bottom = a[:cut], a[cut:]
        pairs = [(a, b)] if cut == num_tasks else [(top, top), (top, bottom), (bottom, bottom)]
        return [contract(x, y, _OVER_COLUMNS, dtype) for x, y in pairs]

    def add_block(index: Array, carry: tuple[list[Array], list[Array]]) -> Any:
        """Add the Gramian of a block, and the last addition's rounding error (Kahan's sum)."""
        totals, lost = carry
        parts = [p + x for p, x in zip(of_columns(index * block, block), lost, strict=True)]
        sums = [t + p for t, p in zip(totals, parts, strict=True)]
        lost = [p - (s - t) for p, s, t in zip(parts, sums, totals, strict=True)]
        return sums, lost

    count, rest = divmod(size, block) if size > 128 else (0, size)
    totals = of_columns(size - rest, rest)
    if count:
        none = [jnp.zeros_like(total) for total in totals]
        totals, _ = lax.fori_loop(0, count, add_block, (totals, none))
    if len(totals) == 1:
        return totals[0]
    of_top, across, of_bottom = totals
    return jnp.block([[of_top, across], [across.T, of_bottom]])
