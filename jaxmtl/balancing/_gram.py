"""The two functions that read the parameter-sized gradients.

``gramian`` turns stacked gradients, leaves of shape (T, *leaf.shape), into the (T, T) matrix of
their inner products; ``combine`` turns task weights and a stacked leaf into one update. All arrays
between the two are T-sized.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import wide_dtype
from jaxmtl._platform import barrier, by_target, may_be_sharded
from jaxmtl._typing import Array
from jaxmtl.balancing._inner_products import (
    added_by_halves,
    added_in_blocks,
    added_in_one_pass,
    contract,
)
from jaxmtl.balancing._one_sum import add_up

_FEW_PRODUCTS = 2**17
# A GPU adds them up in the time of a launch; of more, its matrix products split the columns, and
# lose no more digits.
_FEW_ON_GPU = 2**22


def solve_dtype(leaves: Sequence[Array]) -> jnp.dtype:
    """The type of Gramians and weights: float32, or float64 if a leaf is float64."""
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
    products = num_tasks * sum(leaf.size for leaf in leaves)
    by_halves = 2 <= num_tasks <= 4 or products <= _FEW_PRODUCTS
    for_cpu = _by_halves if by_halves else _in_blocks
    on_gpus = ("cuda", "rocm") if products <= _FEW_ON_GPU else ()
    total = _by_target(leaves, cpu=for_cpu, **dict.fromkeys(on_gpus, _in_one_pass))
    return (total + total.T) / 2


@jax.jit
def cross_gramian(leaves: Sequence[Array], others: Sequence[Array]) -> Array:
    """Inner products of two stacks, <g_i, h_j>, summed over the leaves: (T, T)."""
    return _by_target(leaves, others, cpu=_in_blocks)


def _by_target(*stacks: Sequence[Array], **ways: Callable[..., Array]) -> Array:
    """Join small leaves, and take a target's own way, only if no leaf is sharded."""
    if may_be_sharded([leaf for leaves in stacks for leaf in leaves]):
        return _leaf_by_leaf(*stacks)
    return by_target(*stacks, default=_in_few_products, **ways)


def _leaf_by_leaf(leaves: Sequence[Array], others: Sequence[Array] | None = None) -> Array:
    """One contraction per leaf."""
    others = leaves if others is None else others
    dtype = solve_dtype([*leaves, *others])
    part = functools.partial(_whole_gramian, dtype=dtype)

    def one_by_one() -> Array:
        return functools.reduce(operator.add, map(part, leaves, others))

    return add_up(part, leaves, others, otherwise=one_by_one)


def _in_few_products(leaves: Sequence[Array], others: Sequence[Array] | None = None) -> Array:
    """One contraction per large leaf and one for all small ones: each is a launch of its own."""
    dtype = solve_dtype([*leaves, *(others or [])])
    lefts = _joined(leaves, dtype, 2**16)
    rights = lefts if others is None else _joined(others, dtype, 2**16)
    parts = [_whole_gramian(*pair, dtype) for pair in zip(lefts, rights, strict=True)]
    return jnp.sum(jnp.stack(parts), axis=0)


def _in_one_pass(leaves: Sequence[Array]) -> Array:
    """One reduction a large leaf, and one for all small ones."""
    dtype = solve_dtype(leaves)
    joined = _joined(leaves, dtype, 2**16)
    return jnp.sum(jnp.stack([added_in_one_pass(_flat(m), dtype) for m in joined]), axis=0)


def _by_halves(leaves: Sequence[Array]) -> Array:
    """Products of every pair of rows, added up by halves."""
    dtype = solve_dtype(leaves)
    return added_by_halves(_matrices(leaves, dtype), dtype)


def _in_blocks(leaves: Sequence[Array], others: Sequence[Array] | None = None) -> Array:
    """A loop over blocks of columns."""
    dtype = solve_dtype([*leaves, *(others or [])])
    lefts = _matrices(leaves, dtype)
    rights = lefts if others is None else _matrices(others, dtype)
    parts = [added_in_blocks(*pair, dtype) for pair in zip(lefts, rights, strict=True)]
    return functools.reduce(operator.add, parts)


def _matrices(stacks: Sequence[Array], dtype: jnp.dtype) -> list[Array]:
    return [_flat(stack) for stack in _joined(stacks, dtype, 2**12)]


def _joined(stacks: Sequence[Array], dtype: jnp.dtype, most: int) -> list[Array]:
    """Join all stacks of at most ``most`` columns into one: many small products take longer."""
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
    return contract(leaf, other, over_all, dtype, replicated if explicit else None)


def combine(weights: Array, leaf: Array) -> Array:
    """The weighted sum over tasks, sum_i w_i g_i, of one stacked leaf.

    Args:
      weights: (T,) task weights; the sum is accumulated in their type.
      leaf: (T, *leaf.shape) stacked gradients.

    Returns:
      The combination, of shape ``leaf.shape[1:]`` and the leaf's own type.
    """
    if may_be_sharded([leaf]):
        # Compilers for TPUs would shard the weights once for all leaves of one shape, as the first
        # of these leaves is sharded, and add exchanges between devices for the others.
        weights, leaf = barrier(weights, leaf, targets=("tpu",))
    if leaf.dtype == weights.dtype:
        return contract(weights, leaf, (((0,), (0,)), ((), ())), weights.dtype)
    # For a matrix product the whole leaf would be cast and kept; a sum casts one number at a time.
    products = rows(weights, leaf) * leaf.astype(weights.dtype)
    return jnp.sum(products, axis=0).astype(leaf.dtype)


def equal_shares(active: Array, dtype: Any) -> Array:
    """1/T for each of the T tasks present, 0 for the absent ones."""
    return active.astype(dtype) / count_present(active, dtype)


def count_present(active: Array, dtype: Any) -> Array:
    """The number of tasks present, as a divisor: at least one."""
    return jnp.maximum(jnp.sum(active, dtype=dtype), 1)


def only_active(active: Array, leaf: Array) -> Array:
    """Zero the rows of absent tasks: the gradient of a mean over no examples is often NaN."""
    return jnp.where(rows(active, leaf), leaf, jnp.zeros((), leaf.dtype))


def rows(values: Array, leaf: Array) -> Array:
    """Reshape one number per task, or a matrix over the first two axes, to match a stacked leaf.

    The other axes have size 1: an array broadcast over them would not be sharded as the leaf is.
    """
    return lax.expand_dims(values, range(values.ndim, leaf.ndim))
