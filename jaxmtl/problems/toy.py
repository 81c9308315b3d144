"""A landscape in two dimensions with two tasks, to compare the paths of methods to the front.

Above y = 0 each loss has a narrow valley; descent on the sum falls into it and does not leave.
Below, both losses are bowls, whose minima (7, -8.4) and (-7, -8.4) are the ends of the Pareto set.
The first loss has a tenth of the scale of the second, so that it hardly counts with equal weights.
There are no data: the parameters are the point itself.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import check_count, real_array
from jaxmtl._typing import Array, PyTree
from jaxmtl.problems._problem import Batch, Problem

STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
SCALES = (0.1, 1.0)
_LEAST = 5e-6


def toy() -> Problem:
    """Build the two-task toy of CAGrad, Nash-MTL and FAMO.

    The tasks, in order: "first" (a tenth of its loss, as in the papers) and "second". A run starts
    near one of the five ``STARTS``, drawn at random, with normal noise of 0.1 on top, so that no
    two seeds are the same run; for the exact starts use ``STARTS``. The papers train for 35000
    steps at this learning rate.

    Returns:
      A ``Problem`` whose parameters are ``{"trunk": {"point": (2,)}, "heads": {}}``. There are no
      data: the splits hold an "index" (8,) that nothing reads. The metrics are the losses.

    Examples:
      >>> problem = toy()
      >>> problem.tasks
      ('first', 'second')
      >>> params = {"trunk": {"point": jnp.array([0.0, -8.355])}, "heads": {}}
      >>> {task: f"{loss:.1f}" for task, loss in problem.losses(params, problem.train).items()}
      {'first': '-1.5', 'second': '-15.1'}

    References:
      Liu et al., `Conflict-Averse Gradient Descent for Multi-task Learning
      <https://arxiv.org/abs/2110.14048>`_, 2021

      Navon et al., `Multi-Task Learning as a Bargaining Game <https://arxiv.org/abs/2202.01017>`_,
      2022

      Liu et al., `FAMO: Fast Adaptive Multitask Optimization
      <https://arxiv.org/abs/2306.03792>`_, 2023
    """
    nothing = {"index": np.arange(8, dtype=np.int32)}
    return Problem(
        name="Toy in two dimensions",
        tasks=("first", "second"),
        init=_init,
        losses=_losses,
        metrics=_losses,
        maximize={"first": False, "second": False},
        metric_names={"first": "loss", "second": "loss"},
        train=nothing,
        validation=nothing,
        test=nothing,
        learning_rate=1e-3,
        batch=1,
        steps=35_000,
        shared={"trunk": True, "heads": False},
    )


def toy_losses(point: Array) -> dict[str, Array]:
    """Evaluate both losses of the toy at a point.

    loss_i = s_i (f_i c_up + q_i c_down), with s = ``SCALES``, c_up = max(tanh(y/2), 0),
    c_down = max(tanh(-y/2), 0) and
      f_1 = log max(|(-x - 7)/2 - tanh(-y)|, 5e-6) + 6,
      f_2 = log max(|(-x + 3)/2 + tanh(-y) + 2|, 5e-6) + 6,
      q_1 = ((x - 7)^2 + (y + 8)^2/10)/10 - 20,
      q_2 = ((x + 7)^2 + (y + 8)^2/10)/10 - 20.

    At y = 0, where both c have a tie, each passes its full derivative, as in the authors' code;
    the gradients at the start (0, 0) are then vertical.

    Args:
      point: (2, ...) x and y, floating; further axes are those of a grid.

    Returns:
      Each loss by the name of its task, of shape (...).

    Raises:
      ValueError: if the first axis does not hold two coordinates.

    Examples:
      >>> losses = toy_losses(jnp.array([0.0, 5.0]))
      >>> {task: f"{loss:.2f}" for task, loss in losses.items()}
      {'first': '0.68', 'second': '6.82'}
    """
    point = jnp.asarray(real_array("point", point, "(2, ...)"))
    if point.ndim < 1 or point.shape[0] != 2:
        raise ValueError(
            f"point must have shape (2, ...), x and y first, but it has {point.shape}: transpose a"
            " list of points."
        )
    x, y = point
    # jnp.maximum would halve the derivative at a tie, while clamping passes all of it.
    rise, fall = jnp.tanh(y / 2), jnp.tanh(-y / 2)
    up, down = jnp.where(rise >= 0, rise, 0), jnp.where(fall >= 0, fall, 0)
    bend, height = jnp.tanh(-y), 0.1 * (y + 8) ** 2
    valleys = 0.5 * (-x - 7) - bend, 0.5 * (-x + 3) + bend + 2
    bowls = ((x - 7) ** 2 + height) / 10 - 20, ((x + 7) ** 2 + height) / 10 - 20
    losses = [
        scale * ((jnp.log(jnp.maximum(jnp.abs(valley), _LEAST)) + 6) * up + bowl * down)
        for scale, valley, bowl in zip(SCALES, valleys, bowls, strict=True)
    ]
    return {"first": losses[0], "second": losses[1]}


def pareto_set(num: int = 201) -> np.ndarray:
    """Compute the Pareto set: a flat arc from the minimum of "second" to that of "first".

    Where y < 0, the gradients are opposite if x is in [-7, 7] and
      y = -8 + (755 + 5 x^2 - (y + 8)^2 / 2) / sinh(y),
    a contraction, which is iterated. It does not depend on the losses' scales. Above y = 0 no point
    is better, since the losses there are above -6.3 s.

    Args:
      num: the number of points, evenly spaced in x.

    Returns:
      (num, 2) points, in float64, x from -7 to 7.

    Raises:
      ValueError: if ``num`` is below two.

    Examples:
      >>> print(pareto_set(3).round(3))
      [[-7.    -8.434]
       [ 0.    -8.355]
       [ 7.    -8.434]]
    """
    check_count("num", num, 2)
    x = np.linspace(-7.0, 7.0, num)
    y = np.full(num, -8.0)
    for _ in range(60):  # each iteration more than halves the error
        y = -8 + (755 + 5 * x**2 - (y + 8) ** 2 / 2) / np.sinh(y)
    return np.stack([x, y], axis=1)


def _init(key: Array) -> PyTree:
    """Draw a point near one of the starts."""
    which, around = jax.random.split(key)
    start = jax.random.choice(which, jnp.array(STARTS))
    return {"trunk": {"point": start + 0.1 * jax.random.normal(around, (2,))}, "heads": {}}


def _losses(params: PyTree, batch: Batch) -> dict[str, Array]:
    del batch
    return toy_losses(params["trunk"]["point"])
