"""GDPO: the advantages of several rewards, each standardised within its group."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.ops import segment_max, segment_min, segment_sum

from jaxmtl._checks import is_real, real_array, shown, static_count, wide_dtype
from jaxmtl._task_names import common_names
from jaxmtl._task_values import constant_vector
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.solvers.scaling import reciprocal

# Deviations this small compared with the rewards are the rounding errors of equal rewards.
ROUNDING = 8


def group_advantages(
    rewards: PyTree,
    *,
    groups: Array | None = None,
    group_size: int | None = None,
    weights: TaskVector | None = None,
) -> Array:
    """Turn several rewards into one advantage for each answer, for group-relative policy gradients.

    Each reward is standardised among the answers to the same prompt, A_k = (r_k - mean) / std. Then
    follow the weighted sum A = sum_k w_k A_k and its standardisation (A - mean) / std over the
    batch. So each reward keeps its influence for any scale. If the sum of raw rewards were
    standardised, different answers could have the same advantage.

    Args:
      rewards: a tree of (B,) arrays, such as ``{"correct": ..., "short": ...}``, or one (B, K)
        array; NaN if an answer does not have a reward.
      groups: (B,) whole numbers, the same for answers to the same prompt.
      group_size: the number of consecutive answers to the same prompt; in place of ``groups``.
      weights: (K,) array or tree of scalars, by name if the rewards have names; ones if None.

    Returns:
      (B,) advantages of mean zero and variance one over the batch (zero if no answer differs
      from its group), in float32 or better. They do not change if each reward is multiplied by a
      positive number of its own, or shifted. A missing reward has no part in its group's mean and
      deviation, and adds nothing to the answer's sum; an answer without any reward has advantage
      zero and no part in the batch. Rewards that are equal within a group, up to rounding, add
      nothing. An infinite reward makes its group NaN, and so the batch.

    Deviations from the paper: no epsilon is added to the deviations, which are those of the
    population (over n, not n - 1).

    Raises:
      ValueError: if the rewards are not arrays of one length, the groups do not fit, both or
        none of ``groups`` and ``group_size`` are given, or there is not one weight per reward.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> rewards = {"correct": jnp.array([1.0, 0.0, 1.0, 1.0]), "short": jnp.array([1.0, 2, 1, 2])}
      >>> found = jaxmtl.group_advantages(rewards, group_size=2, weights={"correct": 2, "short": 1})
      >>> [f"{advantage:.2f}" for advantage in found]  # of the sums 1, -1, -1, 1
      ['1.00', '-1.00', '-1.00', '1.00']

    References:
      `GDPO: Group reward-Decoupled Normalization Policy Optimization for Multi-reward RL
      Optimization <https://arxiv.org/abs/2601.05242>`_, 2026
    """
    columns, names = _columns(rewards)
    index = _group_index(groups, group_size, len(columns[0]))
    given = np.ones(len(columns)) if weights is None else weights
    factors = constant_vector("weights", given, len(columns))
    common_names(rewards=names, weights=weights)
    dtype = wide_dtype(*(column.dtype for column in columns))
    table = jnp.stack([column.astype(dtype) for column in columns])
    there = ~jnp.isnan(table)
    in_groups = jax.vmap(functools.partial(_standardised, index=index))
    parts = jnp.asarray(factors, dtype)[:, None] * in_groups(table, there, sizes=jnp.abs(table))
    total, sizes = jnp.sum(parts, axis=0), jnp.sum(jnp.abs(parts), axis=0)
    whole = jnp.zeros_like(index)
    return _standardised(total, jnp.any(there, axis=0), index=whole, sizes=sizes)


def _standardised(values: Array, there: Array, *, index: Array, sizes: Array) -> Array:
    """(x - mean) / std among entries of the same index; zero if they differ only by rounding.

    Args:
      values: (B,) x.
      there: (B,) bool, which of them count; the others are zero in the result.
      index: (B,) int32 below B.
      sizes: (B,) sizes of the numbers from which the values were computed, for their rounding
        error.
    """

    def among(reduce: Callable[..., Array], x: Array, without: float) -> Array:
        """A number for each group, given back to its members."""
        return reduce(jnp.where(there, x, without), index, len(index))[index]

    least, most = among(segment_min, values, jnp.inf), among(segment_max, values, -jnp.inf)
    spread = jnp.where(there, most - least, 0)
    count = jnp.maximum(among(segment_sum, jnp.ones_like(values), 0), 1)
    # From 0 to 1, so that equal values stay equal and squares stay in the range of the type.
    inside = jnp.where(there, values - least, 0) * reciprocal(spread)
    away = inside - among(segment_sum, inside, 0) / count
    variance = among(segment_sum, away**2, 0) / count
    noise = ROUNDING * jnp.finfo(values.dtype).eps * among(segment_max, sizes, 0)
    differ = there & (spread > noise)
    found = jnp.where(differ, away * reciprocal(jnp.sqrt(variance)), 0)
    return jnp.where(there & ~jnp.isfinite(spread), jnp.nan, found)


def _columns(rewards: PyTree) -> tuple[list[Array], PyTree]:
    """The rewards one by one, and a tree that has their names."""
    leaves, treedef = jax.tree.flatten(rewards)
    arrays = [jnp.asarray(real_array("rewards", leaf)) for leaf in leaves]
    shapes = [array.shape for array in arrays]
    if len(shapes) == 1 and len(shapes[0]) == 2 and all(shapes[0]):
        return list(arrays[0].T), None
    if not shapes or len(set(shapes)) > 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        raise ValueError(
            "rewards must be a tree of arrays of one shape (B,), such as {'correct': ..., 'short':"
            f" ...}}, or one (B, K) array, but its leaves have shapes {shapes}."
        )
    return arrays, jax.tree.unflatten(treedef, range(len(arrays)))


def _group_index(groups: Array | None, group_size: int | None, num_answers: int) -> Array:
    """The groups as whole numbers from 0 to less than B."""
    if (groups is None) == (group_size is None):
        raise ValueError(
            "The answers to one prompt must be identified by either groups, (B,) whole numbers, or"
            f" group_size, but groups is {shown(groups)} and group_size {shown(group_size)}."
        )
    if group_size is not None:
        size = static_count("group_size", group_size)
        if num_answers % size:
            raise ValueError(
                f"group_size must divide the number of answers, {num_answers}, but it is {size}."
            )
        return jnp.arange(num_answers, dtype=jnp.int32) // size
    if not is_real(groups := real_array("groups", groups), (jnp.integer,)):
        raise ValueError(f"groups must hold whole numbers, but it is {shown(groups)}.")
    if groups.shape != (num_answers,):
        raise ValueError(
            f"groups must have shape {(num_answers,)}, one number per answer, but it has"
            f" {groups.shape}."
        )
    _, index = jnp.unique(jnp.asarray(groups), return_inverse=True, size=num_answers)
    return index.astype(jnp.int32)
