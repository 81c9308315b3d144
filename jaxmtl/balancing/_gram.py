"""The two places that read parameter-sized arrays once the gradients are there.

``gramian`` turns stacked gradients, leaves of shape (T, *leaf.shape), into the (T, T) matrix of
their inner products; ``combine`` turns task weights and a stacked leaf into one update. All that
happens between the two is T-sized.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import wide_dtype
from jaxmtl._platform import barrier, by_target, may_be_sharded
from jaxmtl._typing import Array

_OVER_COLUMNS = (((1,), (1,)), ((), ()))
_TILE = 8 * 8 * 16
_FEW_PRODUCTS = 2**17


def solve_dtype(leaves: Sequence[Array]) -> jnp.dtype:
    """The type that Gramians and weights are held in: float32, or float64 where a leaf is."""
    return wide_dtype(*(jnp.result_type(leaf) for leaf in leaves))


@jax.jit
def gramian(leaves: Sequence[Array]) -> Array:
    """Inner products of the tasks' gradients, G_ij = <g_i, g_j>, summed over the leaves.

    Args:
      leaves: stacked gradients of shape (T, *leaf.shape), of any floating type.

    Returns:
      The (T, T) Gramian, exactly symmetric, in float32 or better.
    """
    num_tasks = len(leaves[0])
    few = 2 <= num_tasks <= 4 or num_tasks * sum(leaf.size for leaf in leaves) <= _FEW_PRODUCTS
    total = _by_target(_gramian_by_halves if few else _in_blocks, leaves)
    return (total + total.T) / 2


@jax.jit
def cross_gramian(leaves: Sequence[Array], others: Sequence[Array]) -> Array:
    """Inner products of two stacks, <g_i, h_j>, summed over the leaves: (T, T)."""
    return _by_target(_in_blocks, leaves, others)


def _by_target(for_cpu: Callable[..., Array], *stacks: Sequence[Array]) -> Array:
    """Where nothing is sharded, small leaves may be laid side by side, and columns walked over."""
    if may_be_sharded([leaf for leaves in stacks for leaf in leaves]):
        return _leaf_by_leaf(*stacks)
    return by_target(*stacks, cpu=for_cpu, default=_in_few_products)


def _leaf_by_leaf(leaves: Sequence[Array], others: Sequence[Array] | None = None) -> Array:
    """One contraction a leaf."""
    others = leaves if others is None else others
    dtype = solve_dtype([*leaves, *others])
    parts = [_whole_gramian(*pair, dtype) for pair in zip(leaves, others, strict=True)]
    return functools.reduce(operator.add, parts)


def _in_few_products(leaves: Sequence[Array], others: Sequence[Array] | None = None) -> Array:
    """One contraction a large leaf, and one for all small ones: each is a launch of its own."""
    dtype = solve_dtype([*leaves, *(others or [])])
    lefts = _joined(leaves, dtype, 2**16)
    rights = lefts if others is None else _joined(others, dtype, 2**16)
    parts = [_whole_gramian(*pair, dtype) for pair in zip(lefts, rights, strict=True)]
    return jnp.sum(jnp.stack(parts), axis=0)


def _in_blocks(leaves: Sequence[Array], others: Sequence[Array] | None = None) -> Array:
    """A walk over blocks of columns."""
    dtype = solve_dtype([*leaves, *(others or [])])
    lefts = _joined(leaves, dtype, 2**12)
    rights = lefts if others is None else _joined(others, dtype, 2**12)
    parts = [_blockwise_gramian(*pair, dtype) for pair in zip(lefts, rights, strict=True)]
    return functools.reduce(operator.add, parts)


def _joined(stacks: Sequence[Array], dtype: jnp.dtype, most: int) -> list[Array]:
    """Stacks, those of at most so many columns side by side in one: many products take longer."""
    are_small = [stack.size <= most * len(stack) for stack in stacks]
    large = [stack for stack, is_small in zip(stacks, are_small, strict=True) if not is_small]
    small = [_flat(stack).astype(dtype) for stack in itertools.compress(stacks, are_small)]
    return [*large, jnp.concatenate(small, axis=1)] if small else large


def _flat(stack: Array) -> Array:
    return stack.reshape(len(stack), -1)


def _whole_gramian(leaf: Array, other: Array, dtype: jnp.dtype) -> Array:
    """One contraction over *all* trailing axes: a reshape would gather a sharded leaf."""
    axes = tuple(range(1, leaf.ndim))
    mesh = jax.typeof(leaf).sharding.mesh
    # On an explicit mesh the type must say where a contraction over sharded axes leaves its result.
    explicit = jax.sharding.AxisType.Explicit in mesh.axis_types
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    over_all = ((axes, axes), ((), ()))
    return _contract(leaf, other, over_all, dtype, replicated if explicit else None)


def _gramian_by_halves(leaves: Sequence[Array]) -> Array:
    """Products of every pair of rows, in one pass over each leaf, added up by halves.

    For a few rows, since a matrix product is far from what the memory could deliver there (from
    five on it is no slower: the pairs no longer fit one pass), or a few products in all. The order
    of the sum is that of this program, not the compiler's, and its rounding errors are the smallest
    there are.
    """
    dtype = solve_dtype(leaves)
    tasks = range(len(leaves[0]))
    order = {pair: n for n, pair in enumerate(_pairs(len(tasks)))}
    index = jnp.array([[order[min(i, j), max(i, j)] for j in tasks] for i in tasks])
    sums, ends = [], []
    for matrix in map(_flat, _joined(leaves, dtype, 2**12)):
        size = matrix.shape[1]
        whole = size // _TILE * _TILE if size >= 8 * _TILE else 0
        ends.append(matrix[:, whole:].astype(dtype))
        if whole:
            of_pairs = jnp.stack(_sums_of_products(matrix[:, :whole].astype(dtype)))
            sums.append(of_pairs.reshape(len(order), -1)[index])
    end = jnp.concatenate(ends, axis=1)
    terms = jnp.concatenate([*sums, end[:, None] * end[None]], axis=2)
    missing = (1 << max(terms.shape[2] - 1, 0).bit_length()) - terms.shape[2]
    terms = jnp.pad(terms, ((0, 0), (0, 0), (0, missing)))
    while terms.shape[2] > 1:
        left, right = jnp.split(terms, 2, axis=2)
        terms = left + right
    return terms[:, :, 0]


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
    """The sum of each array over an axis; in one reduction, so that what they share is read once.

    XLA would also make one reduction of two of a single array, and add one term after the other.
    """
    zeros = [jnp.zeros((), array.dtype) for array in arrays]
    return list(lax.reduce(arrays, zeros, functools.partial(jax.tree.map, operator.add), [axis]))


def _blockwise_gramian(left: Array, right: Array, dtype: jnp.dtype) -> Array:
    """Sum the Gramians of blocks of columns, and what each addition rounds off (Kahan's sum).

    XLA's CPU product of a (T, P) with a (P, T) matrix adds up one column after the other: its
    rounding errors on almost orthogonal gradients grow with the sum of the absolute partial sums,
    and so with the columns of a block. A few columns are one block, since a loop takes longer to
    compile; of many, blocks of fewer than 512 to 2048 cost more in the steps of the loop than they
    gain.
    """
    alike, left = left is right, _flat(left)
    right = left if alike else _flat(right)
    num_tasks, size = left.shape
    block = 2 ** round(math.log2(4 * math.sqrt(max(size, 1))))
    if size > 4096:
        block = min(max(block, 512), 2048)
    # Three products of halves make a symmetric matrix with less work than one of the whole, and
    # use the cores that a product of a few rows does not; large ones use them all the same.
    cut = num_tasks // 2 if alike and 16 <= num_tasks <= 64 else num_tasks

    def of_columns(start: Any, width: int) -> list[Array]:
        a, b = (lax.dynamic_slice_in_dim(stack, start, width, 1) for stack in (left, right))
        top, bottom = a[:cut], a[cut:]
        pairs = [(a, b)] if cut == num_tasks else [(top, top), (top, bottom), (bottom, bottom)]
        return [_contract(x, y, _OVER_COLUMNS, dtype) for x, y in pairs]

    def add_block(index: Array, carry: tuple[list[Array], list[Array]]) -> Any:
        """Add what a block makes, and what the last addition rounded off (Kahan's sum)."""
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


def _contract(
    left: Array, right: Array, dimensions: Any, dtype: jnp.dtype, out_sharding: Any = None
) -> Array:
    # HIGHEST, because tensor cores and TPUs would otherwise round float32 inputs to 10 or 8 bits.
    return lax.dot_general(
        left,
        right,
        dimensions,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=dtype,
        out_sharding=out_sharding,
    )


def combine(weights: Array, leaf: Array) -> Array:
    """The weighted sum over tasks, sum_i w_i g_i, of one stacked leaf.

    Args:
      weights: (T,) task weights; the sum is accumulated in their type.
      leaf: (T, *leaf.shape) stacked gradients.

    Returns:
      The combination, of shape ``leaf.shape[1:]`` and the leaf's own type.
    """
    if may_be_sharded([leaf]):
        # Compilers for TPUs would spread the weights over the devices once for all leaves of one
        # shape, as one of them lies, and exchange for the others.
        weights, leaf = barrier(weights, leaf, targets=("tpu",))
    if leaf.dtype == weights.dtype:
        return _contract(weights, leaf, (((0,), (0,)), ((), ())), weights.dtype)
    # Before a product all of the leaf would be cast and kept, in a sum one number at a time is.
    products = rows(weights, leaf) * leaf.astype(weights.dtype)
    return jnp.sum(products, axis=0).astype(leaf.dtype)


def equal_shares(active: Array, dtype: Any) -> Array:
    """1/T for each of the T tasks present, 0 for the absent ones."""
    return active.astype(dtype) / count_present(active, dtype)


def count_present(active: Array, dtype: Any) -> Array:
    """How many tasks are present, to divide by: at least one."""
    return jnp.maximum(jnp.sum(active, dtype=dtype), 1)


def only_active(active: Array, leaf: Array) -> Array:
    """Zero the rows of absent tasks: the gradient of a mean over no examples is often NaN."""
    return jnp.where(rows(active, leaf), leaf, jnp.zeros((), leaf.dtype))


def rows(values: Array, leaf: Array) -> Array:
    """One number a task, or a matrix over the first two axes, ready to meet a stacked leaf.

    Of size 1 along the other axes: an array spread over them would not be sharded as the leaf is.
    """
    return lax.expand_dims(values, range(values.ndim, leaf.ndim))
