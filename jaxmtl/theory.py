"""Losses that are known without training: at zero output, and at the best constant output.

Most networks start with outputs near zero, and learn the distribution of the targets within a few
steps. The losses at these two points give the scale of each loss, for
``jaxmtl.initial_loss(num_tasks, values)`` and ``jaxmtl.prior_loss(values)``.

The helpers return Python floats, computed in float64 from given data; call them outside ``jit``.
"""

import numpy as np
from numpy.typing import ArrayLike

from jaxmtl._checks import check_choice, check_count, check_flag, real_array

__all__ = [
    "prior_binary_cross_entropy",
    "prior_cross_entropy",
    "prior_squared_error",
    "zero_output_cross_entropy",
    "zero_output_squared_error",
]


def zero_output_cross_entropy(num_classes: int) -> float:
    """Compute the cross-entropy of a classifier whose logits are all zero, log K, in nats.

    Args:
      num_classes: K, at least 2; 2 for a binary cross-entropy.

    Returns:
      The loss.

    Raises:
      ValueError: if K is below 2.

    Examples:
      >>> from jaxmtl import theory
      >>> round(theory.zero_output_cross_entropy(10), 4)
      2.3026
    """
    check_count("num_classes", num_classes, 2)
    return float(np.log(num_classes))


def zero_output_squared_error(
    targets: ArrayLike, *, reduction: str = "sum", halved: bool = False
) -> float:
    """Compute the squared error of a regressor whose outputs are all zero, E[||y||^2].

    Args:
      targets: (N,) or (N, ...) targets of N examples.
      reduction: how the loss reduces the outputs of one example: "sum" or "mean".
      halved: whether the loss is ||y - f||^2 / 2.

    Returns:
      The loss, in squared units of the targets.

    Raises:
      ValueError: if the targets are empty or not finite, or ``reduction`` is unknown.

    Examples:
      >>> from jaxmtl import theory
      >>> theory.zero_output_squared_error([[3.0, 4.0], [0.0, 1.0]])
      13.0
    """
    return _mean_square(_examples(targets), reduction, halved)


def prior_cross_entropy(frequencies: ArrayLike) -> float:
    """Compute the cross-entropy of always predicting the class frequencies: their entropy, in nats.

    Args:
      frequencies: (K,) class frequencies or counts; they are normalised.

    Returns:
      -sum_k p_k log p_k, with 0 log 0 = 0.

    Raises:
      ValueError: if a frequency is negative or not finite, or all are zero.

    Examples:
      >>> from jaxmtl import theory
      >>> round(theory.prior_cross_entropy([30, 10]), 4)
      0.5623
    """
    p = _numbers("frequencies", frequencies)
    if p.ndim != 1 or not np.all(np.isfinite(p)) or np.any(p < 0) or p.sum() == 0:
        raise ValueError(
            "frequencies must be a (K,) array of numbers at or above zero, not all zero, but it is"
            f" {frequencies!r}."
        )
    p = p[p > 0] / p.sum()
    return float(-np.sum(p * np.log(p)))


def prior_binary_cross_entropy(frequencies: ArrayLike) -> float:
    """Compute the binary cross-entropy of always predicting the frequency of the positive class.

    Args:
      frequencies: the frequency q in [0, 1] of a positive label, or an array of them if the
        loss averages over several binary labels.

    Returns:
      The mean over labels of -q log q - (1 - q) log(1 - q), in nats.

    Raises:
      ValueError: if a frequency is not within [0, 1].

    Examples:
      >>> from jaxmtl import theory
      >>> round(theory.prior_binary_cross_entropy(0.25), 4)
      0.5623
    """
    q = np.atleast_1d(_numbers("frequencies", frequencies)).ravel()
    if q.size == 0 or not np.all((q >= 0) & (q <= 1)):
        raise ValueError(
            f"frequencies must lie within [0, 1], but they are {frequencies!r}: pass the share of"
            " positive labels, not their number."
        )
    return float(np.mean([prior_cross_entropy([x, 1 - x]) for x in q]))


def prior_squared_error(
    targets: ArrayLike, *, reduction: str = "sum", halved: bool = False
) -> float:
    """Compute the squared error of always predicting the mean target, E[||y - E y||^2].

    Args:
      targets: (N,) or (N, ...) targets of N examples.
      reduction: how the loss reduces the outputs of one example: "sum" or "mean".
      halved: whether the loss is ||y - f||^2 / 2.

    Returns:
      The (total or mean) variance of the targets, in their squared units.

    Raises:
      ValueError: if the targets are empty or not finite, or ``reduction`` is unknown.

    Examples:
      >>> from jaxmtl import theory
      >>> theory.prior_squared_error([1.0, 3.0, 5.0, 7.0])
      5.0
    """
    y = _examples(targets)
    return _mean_square(y - y.mean(axis=0), reduction, halved)


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    return np.asarray(real_array(name, values), np.float64)


def _examples(targets: ArrayLike) -> np.ndarray:
    y = _numbers("targets", targets)
    if y.ndim == 0 or y.size == 0 or not np.all(np.isfinite(y)):
        raise ValueError(
            "targets must be a finite array with one row per example, but its shape is"
            f" {y.shape} and {np.sum(~np.isfinite(y))} of its entries are not finite."
        )
    return y.reshape(len(y), -1)


def _mean_square(y: np.ndarray, reduction: str, halved: bool) -> float:
    check_choice("reduction", reduction, ("sum", "mean"))
    check_flag("halved", halved)
    per_example = np.sum(y**2, axis=1) if reduction == "sum" else np.mean(y**2, axis=1)
    return float(np.mean(per_example)) * (0.5 if halved else 1.0)
