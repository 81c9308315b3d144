"""Points on and off a Pareto front: dominance, hypervolume, and preferences that trace a front.

All losses are to be minimised. ``jaxmtl.diagnostics`` measures from the gradients how far a step is
from Pareto-stationary.

>>> import jax.numpy as jnp
>>> from jaxmtl import pareto
>>> points = jnp.array([[1.0, 3.0], [2.0, 1.0], [3.0, 3.0]])
>>> print(pareto.non_dominated(points), pareto.hypervolume(points, jnp.array([4.0, 4.0])))
[ True  True False] 7.0
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmtl._checks import check_at_least, check_num_tasks, real_array, static_count
from jaxmtl._typing import Array

__all__ = ["dominates", "hypervolume", "non_dominated", "preferences"]


def dominates(point: ArrayLike, other: ArrayLike) -> Array:
    """Test whether p is as good as q in every loss and better in one: p_i <= q_i, some p_i < q_i.

    Args:
      point: (..., T) losses p.
      other: (..., T) losses q; the leading axes broadcast.

    Returns:
      (...) bool. Equal points do not dominate each other. A point with a NaN dominates none, and
      none dominates it. Infinite losses compare as numbers do.

    Raises:
      ValueError: if the numbers of losses differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl import pareto
      >>> point = jnp.array([1.0, 2.0])
      >>> [bool(pareto.dominates(point, other)) for other in jnp.array([[1.0, 3.0], [0.0, 9.0]])]
      [True, False]
    """
    point, other = jnp.asarray(real_array("point", point)), jnp.asarray(real_array("other", other))
    if point.shape[-1:] != other.shape[-1:] or not point.ndim:
        raise ValueError(
            "point and other must have one loss for each of the same T tasks on their last axis,"
            f" but their shapes are {point.shape} and {other.shape}."
        )
    point, other = jnp.broadcast_arrays(point, other)
    return jnp.all(point <= other, axis=-1) & jnp.any(point < other, axis=-1)


def non_dominated(points: ArrayLike) -> Array:
    """Find the points that no other point dominates: the front of a set.

    Args:
      points: (N, T) losses.

    Returns:
      (N,) bool. Equal points are all on the front, or none of them is; a point with a NaN is not.
      It compares every pair: N^2 T comparisons.

    Raises:
      ValueError: if the points are not stacked.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl import pareto
      >>> print(pareto.non_dominated(jnp.array([[1.0, 3.0], [2.0, 1.0], [2.0, 3.0], [1.0, 3.0]])))
      [ True  True False  True]

    References:
      Deb et al., `A fast and elitist multiobjective genetic algorithm: NSGA-II
      <https://doi.org/10.1109/4235.996017>`_, 2002
    """
    points = _stacked(points)
    beaten = jnp.any(dominates(points[:, None, :], points[None, :, :]), axis=0)
    return ~beaten & ~jnp.any(jnp.isnan(points), axis=1)


def hypervolume(points: ArrayLike, reference: ArrayLike) -> Array:
    """Measure the region that some point dominates and that dominates the reference.

    Larger is better. It is the exact volume of the union of the boxes between each point and the
    reference. With the points sorted by the last loss, the slab between one point and the next is
    as thick as their difference, and its base is the union of the boxes so far in T - 1 losses.

    Args:
      points: (N, T) losses. Dominated and equal points may be included, and change nothing; a
        point that is not below the reference in every loss contributes nothing.
      reference: (T,) losses, above those of any good point. Use the same for all that you compare.

    Returns:
      A scalar, in float32 or better; NaN if a loss is NaN or minus infinity, or the reference is
      not finite. It takes N^(T-1) log N operations, and N^2 numbers of memory from T = 3 on: for
      hundreds of points and three losses, or tens of points and five. Works under ``jit`` and
      ``vmap``.

    Raises:
      ValueError: if points and reference do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl import pareto
      >>> points = jnp.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
      >>> print(pareto.hypervolume(points, jnp.array([2.0, 2.0, 2.0])))  # 2 + 4 - 1
      5.0

    References:
      Zitzler & Thiele, `Multiobjective optimization using evolutionary algorithms: a comparative
      case study <https://doi.org/10.1007/BFb0056872>`_, 1998
    """
    points, reference = _stacked(points), jnp.asarray(real_array("reference", reference))
    if reference.shape != points.shape[1:]:
        raise ValueError(
            f"reference must have shape (T,) for points of shape (N, T), but they have"
            f" {reference.shape} and {points.shape}."
        )
    dtype = jnp.result_type(points, reference, jnp.float32)
    points, reference = points.astype(dtype), reference.astype(dtype)
    sane = jnp.all(points > -jnp.inf) & jnp.all(jnp.isfinite(reference))
    boxes = jnp.maximum(reference[None, :] - points, 0)
    return jnp.where(sane, _union(jnp.where(sane, boxes, 0)), jnp.nan)


def _union(boxes: Array) -> Array:
    """The volume of the union of boxes (N, T) that have one corner in common."""
    num, dimensions = boxes.shape
    if dimensions == 1:
        return jnp.max(boxes[:, 0], initial=0)
    boxes = boxes[jnp.argsort(-boxes[:, -1])]
    thickness = boxes[:, -1] - jnp.append(boxes[1:, -1], jnp.zeros((), boxes.dtype))
    if dimensions == 2:
        bases = lax.cummax(boxes[:, 0])
    else:

        def base(index: Array) -> Array:
            so_far = (jnp.arange(num) <= index)[:, None]
            return _union(jnp.where(so_far, boxes[:, :-1], 0))

        # Side by side in three dimensions; in more, one after the other, to save memory.
        indices = jnp.arange(num)
        bases = jax.vmap(base)(indices) if dimensions == 3 else lax.map(base, indices)
    return jnp.sum(thickness * bases)


def preferences(num_tasks: int, divisions: int, *, least: float = 0.0) -> Array:
    """Spread preference vectors evenly over the simplex.

    The vectors are all p with p_i = least + (1 - T least) k_i / H, for whole numbers k_i >= 0 of
    sum H: for two tasks H + 1 vectors, for T of them (H + T - 1 over T - 1).

    Args:
      num_tasks: T.
      divisions: H.
      least: the smallest share of a task, from 0 to below 1/T. It should be above zero for
        balancers, since a task of preference zero may become arbitrarily bad.

    Returns:
      (N, T) float32 vectors of sum one, in descending order of their first entry. Evenly spread
      preferences do not give evenly spread points: that depends on the front and on the method.

    Raises:
      ValueError: if ``num_tasks`` or ``divisions`` is not a whole number of at least 1, or
        ``least`` is not below 1/T.

    Examples:
      >>> from jaxmtl import pareto
      >>> print(pareto.preferences(2, 2, least=0.25))
      [[0.75 0.25]
       [0.5  0.5 ]
       [0.25 0.75]]
      >>> pareto.preferences(3, 12).shape
      (91, 3)

    References:
      Das & Dennis, `Normal-Boundary Intersection: A New Method for Generating the Pareto Surface in
      Nonlinear Multicriteria Optimization Problems <https://doi.org/10.1137/S1052623496307510>`_,
      1998
    """
    num_tasks = check_num_tasks(num_tasks)
    divisions = static_count("divisions", divisions)
    check_at_least("least", least, 0)
    if not least * num_tasks < 1:
        raise ValueError(
            f"least must be below 1/T, here 1/{num_tasks}, for the shares to sum to one, but it is"
            f" {least}."
        )
    # Stars and bars: each choice of T - 1 places among H + T - 1 is one way to share H.
    places = divisions + num_tasks - 1
    number = math.comb(places, num_tasks - 1)
    bars = np.array(list(itertools.combinations(range(places), num_tasks - 1)), int)
    bars = bars.reshape(number, num_tasks - 1)
    ends = np.full((number, 1), -1), np.full((number, 1), places)
    shares = np.diff(np.hstack([ends[0], bars, ends[1]]), axis=1)[::-1] - 1
    return jnp.asarray(least + (1 - num_tasks * least) * shares / divisions, jnp.float32)


def _stacked(points: ArrayLike) -> Array:
    points = jnp.asarray(real_array("points", points))
    if points.ndim != 2 or not points.shape[1]:
        raise ValueError(
            f"points must have shape (N, T), one point per row, but they have {points.shape}."
        )
    return points
