"""Paired differences over seeds: their size, their certainty, and the ranks of methods.

All methods of a comparison share seeds and batches: differences are taken seed by seed, so that
effects of a seed on all methods cancel.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

LEVEL = 0.95
# With two, the half-width is 6.4 times the distance of the two: such an interval says nothing.
FEWEST_SEEDS = 3


class Interval(NamedTuple):
    """A mean over seeds, with its 95 % interval.

    Attributes:
      mean: mean of the differences; NaN if a seed diverged.
      low: lower end; -inf if there is no bound.
      high: upper end; inf if there is no bound.
      seeds: the number of seeds, including those that diverged.
    """

    mean: float
    low: float
    high: float
    seeds: int


def interval(differences: ArrayLike) -> Interval:
    """Student's t interval of a mean over seeds: mean ± t s / sqrt(n), n - 1 degrees of freedom.

    Args:
      differences: (seeds,) one difference per seed.

    Returns:
      The interval; without bounds if there is one seed, or if one difference is not finite. Equal
      differences have an interval of length zero.

    Examples:
      >>> from jaxmtl.comparison._statistics import interval
      >>> print("{:.1f}, {:.2f} to {:.2f}, {} seeds".format(*interval([1.0, 2.0, 3.0])))
      2.0, -0.48 to 4.48, 3 seeds
    """
    values = np.asarray(differences, np.float64)
    seeds = len(values)
    if not seeds or not np.all(np.isfinite(values)):
        return Interval(np.nan, -np.inf, np.inf, seeds)
    scale = np.max(np.abs(values)) or 1.0  # so that equal differences have exactly no spread
    mean = float(np.mean(values / scale) * scale)
    if seeds == 1:
        return Interval(mean, -np.inf, np.inf, seeds)
    error = np.std(values / scale, ddof=1) * scale / np.sqrt(seeds)
    half = float(stdtrit(seeds - 1, (1 + LEVEL) / 2) * error)
    return Interval(mean, mean - half, mean + half, seeds)


def differs(found: Interval) -> str:
    """Return "better" or "worse" if the whole interval is above or below 0, else "".

    Fewer than three seeds never differ.

    Examples:
      >>> from jaxmtl.comparison._statistics import differs, interval
      >>> [differs(interval(sample)) for sample in ([1.0, 1.2, 1.1], [1.0, 1.2], [-1.0, 0.0, 1.0])]
      ['better', '', '']
    """
    if found.seeds < FEWEST_SEEDS:
        return ""
    return "better" if found.low > 0 else "worse" if found.high < 0 else ""


def mean_ranks(metrics: dict[str, np.ndarray], maximize: np.ndarray) -> dict[str, float]:
    """Rank the methods by their mean metric in each task, 1 for the best, and average over tasks.

    Args:
      metrics: (seeds, T) for each method.
      maximize: (T,) bool, whether higher is better.

    Returns:
      The mean rank of each method. Ties share the mean of their ranks, so that the ranks of M
      methods sum to M (M + 1) / 2. If a seed diverged, the method is last in that task.
    Examples:
      >>> import numpy as np
      >>> from jaxmtl.comparison._statistics import mean_ranks
      >>> metrics = {"equal": np.array([[0.9, 3.0]]), "mgda": np.array([[0.8, np.nan]])}
      >>> mean_ranks(metrics, np.array([True, False]))
      {'equal': 1.0, 'mgda': 2.0}
    """
    by_seed = np.array(list(metrics.values()), np.float64)
    means = np.where(np.isfinite(by_seed), by_seed, np.nan).mean(axis=1)
    scores = np.where(np.isnan(means), np.inf, np.where(maximize, -means, means))
    better = np.sum(scores[:, None] > scores, axis=1)
    equal = np.sum(scores[:, None] == scores, axis=1)
    ranks = np.mean(better + (1 + equal) / 2, axis=1)
    return dict(zip(metrics, ranks.tolist(), strict=True))
