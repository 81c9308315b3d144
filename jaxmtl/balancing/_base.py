"""The types: a method's inputs, the method, and the optax transformation around it.

A method is a ``Weighting``: T-sized pure functions that never see the parameters. A ``Balancer`` is
the optax transformation made from one (in ``_balancer.py``).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from jaxmtl._task_names import TaskNames
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._gram import equal_shares
from jaxmtl.balancing._leaf_roles import LeafRoles


class Given(NamedTuple):
    """The inputs of a method at one step; inputs that it does not read may be None.

    Attributes:
      losses: (T,) losses; one for absent tasks.
      gramian: (T, T) inner products of the gradients; zero rows and columns for absent tasks.
      active: (T,) bool, the tasks present in this batch.
      cross_gramian: (T, T) inner products <g_i, h_j> of the gradients of two further batches.
      extra: the (T,) arguments of ``update`` that the method requests by name; one for absent
        tasks.
      finite_losses: (T,) bool, whether each loss is finite, also for the tasks that ``skip_broken``
        has left out; True for absent tasks.
      finite_gradients: the same for the gradients, if a report or ``skip_broken`` needs it.
      named: for each argument that names one task, a (T,) bool array that is True at that task.
    """

    losses: Any
    gramian: Any
    active: Array
    cross_gramian: Any = None
    extra: dict[str, Array] = {}  # noqa: RUF012 (never written to)
    finite_losses: Any = None
    finite_gradients: Any = None
    named: dict[str, Array] = {}  # noqa: RUF012 (never written to)


class Weighting(NamedTuple):
    """A balancing method as T-sized pure functions.

    Attributes:
      init: ``dtype -> state``; arrays with one entry per task have shape (T,) and this type.
      update: ``(Given, state) -> ((T,) weights, state)``. The weights of absent tasks are ignored;
        their entries of the state must not change.
      reads: which of "losses", "gramian" and "cross_gramian" the method reads.
      num_tasks: T if the method was built with it, else None.
      names: the tasks' names if the user gave an argument as a dict of tasks; the losses must then
        have the same names. None if no argument was given by task.
      extra: names of further arguments of ``update``, one number per task, that the method needs.
      named: arguments of the method, each with the name of one task: ``("reference", "residual")``.
      roundings: a task is left out when its gradient is shorter than this many rounding errors of
        the longest gradient (``skip_rounding``); None if this was not requested.
      fixed: (T,) bool, the tasks with constant weights, which the method does not balance
        (``with_fixed``).
    """

    init: Callable[[Any], PyTree]
    update: Callable[[Given, PyTree], tuple[Array, PyTree]]
    reads: frozenset[str]
    num_tasks: int | None
    names: TaskNames | None = None
    extra: frozenset[str] = frozenset()
    named: tuple[tuple[str, str], ...] = ()
    roundings: Any = None
    fixed: Any = False


class Preparation(NamedTuple):
    """What a method does to the stacked gradients before they are measured and combined.

    It tracks them over the steps, or masks coordinates. This part of a method is not T-sized.

    Attributes:
      init: ``params -> state``, with None at the leaves that receive no task weights.
      update: ``(grads, Given, state) -> (measured, combined, state)``. ``measured`` and
        ``combined`` are trees with the structure and shapes of the stacked gradients; the Gramian
        is computed from ``measured``, the update from ``combined``. The entries of absent tasks in
        the state must not change.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, Given, PyTree], tuple[PyTree, PyTree, PyTree]]


class Timing(NamedTuple):
    """The steps at which a method computes new weights, and the weights that apply before.

    At step t the method computes new weights if t >= start and (t - start) is a multiple of
    ``period``; otherwise its last weights apply. During the ``ramp`` steps from ``start`` on, the
    applied weights go over from ``before`` to the method's weights.

    Attributes:
      period: steps between two computations; None if this step is known to compute new weights.
      start: the first step at which the method computes weights.
      ramp: number of steps of the transition.
      before: ``(active, dtype) -> (T,) weights``; equal shares for the tasks present.
      held: (T,) weights for tasks that were absent whenever the method computed weights.
    """

    period: Any = 1
    start: Any = 0
    ramp: Any = 0
    before: Callable[[Array, Any], Array] = equal_shares
    held: Any = 0


class Reporting(NamedTuple):
    """What is recorded at each step at which the method computes weights, also at non-finite steps.

    Attributes:
      init: ``(T, dtype) -> report``.
      update: ``(Given, (T,) weights, report) -> report``.
    """

    init: Callable[[int, Any], PyTree]
    update: Callable[[Given, Array, PyTree], PyTree]


class Turns(NamedTuple):
    """How a balancer takes its tasks in turn, with one gradient per step.

    Attributes:
      inner: the balancer that computes the weights.
      around: makes the same turns around another balancer.
      due: ``state -> index`` of the task whose turn it is.
      take: ``(grad, losses, state, params, *, active=None, **extra) -> (updates, losses, state)``,
        from the gradient of that task. The argument ``losses`` holds its loss and a function that
        gives all losses their names, or is None; the returned ``losses`` are the (T,) losses at
        each task's last turn.
    """

    inner: Any
    around: Callable[[Any], Any]
    due: Callable[[Any], Array]
    take: Callable[..., tuple[PyTree, Array, Any]]


class BalancerState(NamedTuple):
    """State of a balancer.

    Attributes:
      task_weights: the (T,) weights of the last step whose inputs were finite, zero before the
        first such step. None if the balancer was built without ``num_tasks``: ``init`` fixes the
        shapes of an optax state and sees the parameters only.
      method: the method's own state.
      preparation: what the method keeps of the gradients, as large as T times the parameters.
      timing: the number of the step, and the weights held until the method computes new ones.
      report: what ``report_only`` records at each step.
    """

    task_weights: Any
    method: PyTree
    preparation: PyTree = ()
    timing: PyTree = ()
    report: PyTree = ()


class Balancer(optax.GradientTransformationExtraArgs):
    """An optax transformation that reduces the leading task axis of stacked gradients.

    ``init(params)`` returns a ``BalancerState``. ``update(grads, state, params=None, *,
    losses=None, active=None, **extra)`` takes gradients with leaves of shape (T, *leaf.shape) and
    returns updates of the parameters' own shapes; ``losses`` is the tree or (T,) array of losses,
    ``active`` an optional tree or (T,) array of bools: the tasks present in this batch.

    A step with a non-finite loss or gradient returns non-finite updates and leaves the state as it
    was, so that ``optax.apply_if_finite``, placed after the balancer, skips the whole step. A step
    without any active task returns zero.

    Some methods need more inputs at each step: ``independent_grads``, the stacked gradients of two
    further batches, or a named argument, such as ``ntk_traces``.

    Attributes:
      weighting: the method.
      roles: the leaves that it measures and weighs.
      preparation: what it does to the gradients before they are measured, or None.
      timing: when it computes new weights, or None for every step.
      reporting: what is recorded at each step, or None.
      skips_broken: whether a step leaves out tasks whose loss or gradient is not finite.
      turns: how it takes its tasks in turn, if ``in_turn`` made it; else None.
      state_like: type of the weights -> shapes of the T-sized part of the state.
      description: the call that made it.
    """

    weighting: Weighting
    roles: LeafRoles
    preparation: Preparation | None
    timing: Timing | None
    reporting: Reporting | None
    skips_broken: bool
    turns: Turns | None
    state_like: Callable[[Any], BalancerState]
    description: str

    def __repr__(self) -> str:
        return self.description


def known_num_tasks(balancer: Balancer, reason: str) -> int:
    """The number of tasks a balancer was built with; ``reason`` is the start of the message."""
    num_tasks = balancer.weighting.num_tasks
    if num_tasks is None:
        raise ValueError(
            f"{reason} for each task, and so needs their number: build the method with it, such as"
            " jaxmtl.mgda(num_tasks=3)."
        )
    return num_tasks


def check_balancer(balancer: Any) -> Balancer:
    """Raise unless ``balancer`` is a balancer itself, not something that contains one."""
    if not (isinstance(balancer, Balancer) and hasattr(balancer, "weighting")):
        cure = "pass the balancer alone; what follows it in a chain takes the gradient it returns"
        if callable(balancer):
            cure = "call it, since jaxmtl.mgda is the function that makes a balancer"
        raise ValueError(
            "balancer must be a jaxmtl.Balancer, such as jaxmtl.mgda(), but it is a"
            f" {type(balancer).__name__}: {cure}."
        )
    return balancer


def check_reads_gramian(combinator: str, weighting: Weighting) -> None:
    """Raise unless the weights come from the Gramian, which this combinator changes."""
    if "gramian" not in weighting.reads:
        raise ValueError(
            f"{combinator} is for methods that read the Gramian, but this balancer reads"
            f" {', '.join(sorted(weighting.reads)) or 'nothing'}: leave {combinator} out."
        )
