"""Constraints on losses: multipliers rise while a loss exceeds its bound, and fall below it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import check_above, check_at_least, check_choice, check_share, shown
from jaxmtl._task_names import TaskNames, common_names
from jaxmtl._task_values import task_vector
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._averages import follow
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._state import keep

FORMS = ("additive", "damped", "pi", "log")
# A multiplier of "log" must not reach zero, since no factor could raise it again.
LEAST = 1e-8


class LagrangianState(NamedTuple):
    """The multipliers, and a report of each constraint at its task's last step.

    Attributes:
      multipliers: (T,) lambda; one for objectives.
      slack: (T,) b - L: below zero if a constraint is violated, infinite for objectives.
      at_largest: (T,) bool, whether the multiplier is at its maximum. If this stays true, the bound
        cannot be met, or not together with the others.
      average: (T,) averages of L - b.
      steps: (T,) int32, the number of steps.
    """

    multipliers: Array
    slack: Array
    at_largest: Array
    average: Array
    steps: Array


@described
def lagrangian(
    bounds: PyTree,
    *,
    form: str = "additive",
    rate: float = 0.01,
    damping: float = 1.0,
    decay: float = 0.9,
    largest: float = 1e4,
) -> Balancer:
    """Minimise some losses subject to bounds on the others, L_i <= b_i, by Lagrange multipliers.

    An objective has weight one. With v_i = L_i - b_i, a constraint's multiplier and weight are
      additive: lambda_i <- clip(lambda_i + rate v_i, 0, largest), from 0; weight lambda_i;
      damped: the same; weight lambda_i + damping max(0, v_i), the augmented Lagrangian;
      pi: the same; weight lambda_i + damping EMA(v_i), integral and proportional control;
      log: lambda_i <- lambda_i exp(rate EMA(v_i)), from 1; weight lambda_i (GECO),
    with weights kept in [0, largest] too. At each step the multipliers are updated first, and then
    give the weights.

    Args:
      bounds: (T,) sequence or tree of numbers b in ``jax.tree.leaves`` order of the losses; None
        (or infinity) for an objective.
      form: "additive", "damped", "pi" or "log". Plain gradient ascent circles around the solution
        if losses are not strongly convex; "damped" and "pi" do so less.
      rate: how fast the multipliers follow the violations; in "log" in units of 1/L.
      damping: the weight of the current violation in "damped", of the averaged one in "pi".
      decay: the share of the old value in the averages of "pi" and "log", from 0 to less than 1.
      largest: the maximum of each multiplier and weight. If a bound cannot be met the multiplier
        stops there, and ``at_largest`` in the state is true.

    Returns:
      A balancer that reads the losses, which may have any sign. Scale: the number of objectives
      plus the sum of the constraints' weights, times g, on T identical gradients g. Degree 1 in the
      gradients, none in the losses, since bounds and rate have units.
      ``find_state(opt_state).method`` has ``multipliers``, ``slack`` and ``at_largest``;
      ``by_task`` gives them the losses' names, and ``scalars`` lists them. The multiplier of an
      absent task does not change.

    Deviations from the papers: everything is bounded above by ``largest``, in "log" also below by
    1e-8 times it; the integral of "pi" stays at zero or above, so that a constraint that was slack
    for a long time acts at once; averages are corrected for their start; the paper's average in
    GECO has a decay of 0.99.

    Raises:
      ValueError: if a bound is not a number, is NaN or minus infinity, if ``form`` is unknown or a
        number is out of its range; at update, if ``losses`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.lagrangian({"fit": None, "kl": 0.05}, rate=2.0)
      >>> state = balancer.init(jnp.zeros(2))
      >>> for kl in (0.3, 0.2, 0.04):
      ...     losses = {"fit": jnp.array(-7.0), "kl": jnp.array(kl)}
      ...     updates, state = balancer.update(jnp.eye(2), state, losses=losses)
      ...     print([f"{weight:.2f}" for weight in updates])
      ['1.00', '0.50']
      ['1.00', '0.80']
      ['1.00', '0.78']
      >>> print(f"{jaxmtl.by_task(losses, state.method.slack)['kl']:.2f}")
      0.01

    References:
      Platt & Barr, `Constrained Differential Optimization
      <https://papers.nips.cc/paper/1987/hash/a87ff679a2f3e71d9181a67b7542122c-Abstract.html>`_,
      1987; Rezende & Viola, `Taming VAEs <https://arxiv.org/abs/1810.00597>`_, 2018; Stooke, Achiam
      & Abbeel, `Responsive Safety in Reinforcement Learning by PID Lagrangian Methods
      <https://arxiv.org/abs/2007.03964>`_, 2020; Sohrabi et al., `On PI Controllers for Updating
      Lagrange Multipliers in Constrained Optimization <https://arxiv.org/abs/2406.04558>`_, 2024
    """
    limits, names = _read_bounds(bounds)
    check_choice("form", form, FORMS)
    check_above("rate", rate, 0)
    check_at_least("damping", damping, 0)
    check_share("decay", decay)
    check_above("largest", largest, 0)
    bounded = limits < np.inf
    known, num_tasks = np.where(bounded, limits, 0), len(limits)

    def init(dtype: jnp.dtype) -> LagrangianState:
        zeros, no = jnp.zeros(num_tasks, dtype), jnp.zeros(num_tasks, bool)
        first = jnp.minimum(jnp.asarray(largest, dtype), 1) if form == "log" else 0
        return LagrangianState(
            jnp.where(bounded, jnp.asarray(first, dtype), 1).astype(dtype),
            jnp.where(bounded, zeros, jnp.inf).astype(dtype),
            no,
            zeros,
            jnp.zeros(num_tasks, jnp.int32),
        )

    def update(given: Given, state: LagrangianState) -> tuple[Array, LagrangianState]:
        active, dtype = given.active, given.losses.dtype
        # Within this range differences are finite too.
        reach = jnp.finfo(dtype).max / 4
        excess = jnp.clip(given.losses - jnp.asarray(known, dtype), -reach, reach)
        average, steps = follow(state.average, state.steps, excess, active & bounded, decay)
        if form == "log":
            raised = state.multipliers * jnp.exp(rate * average)
            multipliers = jnp.clip(raised, LEAST * largest, largest)
        else:
            multipliers = jnp.clip(state.multipliers + rate * excess, 0, largest)
        weights = multipliers
        if form in ("damped", "pi"):
            present = jnp.maximum(excess, 0) if form == "damped" else average
            weights = jnp.clip(multipliers + damping * present, 0, largest)
        found = LagrangianState(multipliers, -excess, multipliers >= largest, average, steps)
        return jnp.where(bounded, weights, 1), keep(active & bounded, found, state)

    return make_balancer(Weighting(init, update, frozenset({"losses"}), num_tasks, names))


def _read_bounds(bounds: PyTree) -> tuple[np.ndarray, TaskNames]:
    """The bounds, infinite at the objectives, and the tasks' names."""
    leaves, treedef = jax.tree.flatten(bounds, is_leaf=lambda leaf: leaf is None)
    numbers = [np.inf if leaf is None else leaf for leaf in leaves]
    vector = task_vector("bounds", numbers)
    traced = isinstance(vector, jax.core.Tracer)
    limits = np.full(1, np.nan) if traced or vector.dtype == bool else np.asarray(vector, float)
    if not np.all((np.abs(limits) <= np.finfo(np.float32).max) | (limits == np.inf)):
        raise ValueError(
            "bounds must hold one number per task that is finite in float32, or None for an"
            f" objective, but it is {shown(bounds)}."
        )
    return limits, common_names(bounds=jax.tree.unflatten(treedef, numbers))
