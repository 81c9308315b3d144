"""The vocabulary: what a method is given, what it returns, and the optax transformation around it.

A method is a ``Weighting``: T-sized pure functions that know nothing of parameters. A ``Balancer``
is the optax transformation made from one (in ``_balancer.py``).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from jaxmtl._task_names import TaskNames
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._gram import equal_shares
from jaxmtl.balancing._leaf_roles import LeafRoles


class Given(NamedTuple):
    """What a method is given at a step; what it does not read may be None.

    Attributes:
      losses: (T,) losses; one at absent tasks.
      gramian: (T, T) inner products of the gradients; zero rows and columns at absent tasks.
      active: (T,) bool, the tasks present in this batch.
      cross_gramian: (T, T) inner products <g_i, h_j> of the gradients of two further batches.
      extra: the (T,) arguments of ``update`` that the method asks for by name; one at absent tasks.
      finite_losses: (T,) bool, also of the tasks that ``skip_broken`` has left out; True at absent
        ones.
      finite_gradients: the same of the gradients, where a report or ``skip_broken`` asks for it.
      named: (T,) bool, by the argument's name: where the one task is that the user gave by name.
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
      init: ``dtype -> state``; what is kept per task has shape (T,) and this type.
      update: ``(Given, state) -> ((T,) weights, state)``. The weights of absent tasks are ignored;
        the state must not move for them.
      reads: which of "losses", "gramian" and "cross_gramian" the method reads.
      num_tasks: T where the method knows it, else None.
      names: the tasks' names where the user gave something by name; the losses must then bear the
        same ones. None where nothing was given for each task.
      extra: names of further arguments of ``update``, one number per task, that the method needs.
      named: arguments of the method, each with the name of one task: ``("reference", "residual")``.
      roundings: below how many roundings of the longest gradient a task is left out of the question
        (``skip_rounding``); None where that was not asked for.
      fixed: (T,) bool, the tasks with weights of their own, which no question is about
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

    It tracks them over the steps, or masks coordinates: the part of a method that is not T-sized.

    Attributes:
      init: ``params -> state``, with None at the leaves that receive no task weights.
      update: ``(grads, Given, state) -> (measured, combined, state)``: of the stacked gradients,
        trees of the same structure and shapes; ``measured`` makes the Gramian, ``combined`` the
        update. The state must not move for absent tasks.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, Given, PyTree], tuple[PyTree, PyTree, PyTree]]


class Timing(NamedTuple):
    """When a method is asked for weights, and what holds before.

    At step t the method is asked if t >= start and (t - start) is a multiple of ``period``; else
    its last weights hold. The weights applied go from ``before`` to the method's over the ``ramp``
    steps from ``start`` on.

    Attributes:
      period: steps from one question to the next; None where this step is known to ask.
      start: the first step that asks.
      ramp: steps on the way.
      before: ``(active, dtype) -> (T,) weights``; equal shares of the tasks present.
      held: (T,) weights that hold for a task that was absent whenever the method was asked.
    """

    period: Any = 1
    start: Any = 0
    ramp: Any = 0
    before: Callable[[Array, Any], Array] = equal_shares
    held: Any = 0


class Reporting(NamedTuple):
    """What is written down of each step at which the method is asked, of broken ones too.

    Attributes:
      init: ``(T, dtype) -> report``.
      update: ``(Given, (T,) weights, report) -> report``.
    """

    init: Callable[[int, Any], PyTree]
    update: Callable[[Given, Array, PyTree], PyTree]


class Turns(NamedTuple):
    """How a balancer goes through its tasks, one gradient a step.

    Attributes:
      inner: the balancer that is asked.
      around: the same around another balancer.
      due: ``state -> index`` of the task whose turn it is.
      take: ``(grad, losses, state, params, *, active=None, **extra) -> (updates, losses, state)``,
        from the gradient of that task; ``losses`` its loss, and what gives all of them their names,
        or None; what comes back are the (T,) losses at each task's last turn.
    """

    inner: Any
    around: Callable[[Any], Any]
    due: Callable[[Any], Array]
    take: Callable[..., tuple[PyTree, Array, Any]]


class BalancerState(NamedTuple):
    """State of a balancer.

    Attributes:
      task_weights: the (T,) weights of the last step whose inputs were finite, zero before the
        first. None where the balancer was not told ``num_tasks``: the shapes of an optax state are
        fixed by ``init``, which sees the parameters only.
      method: the method's own state.
      preparation: what the method keeps of the gradients, as large as T times the parameters.
      timing: the step, and the weights held until the method is asked again.
      report: what ``report_only`` writes down of each step.
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
    was, so that ``optax.apply_if_finite`` after the balancer skips the step as a whole. A step
    without any active task returns zero.

    Some methods need more at each step: ``independent_grads``, the stacked gradients of two further
    batches, or an argument of their own, such as ``ntk_traces``.

    Attributes:
      weighting: the method.
      roles: the leaves that it measures and weighs.
      preparation: what it does to the gradients beforehand, if anything.
      timing: when it is asked, if not at every step.
      reporting: what is written down of each step, if anything.
      skips_broken: whether tasks whose loss or gradient is not finite are left out of a step.
      turns: how it goes through its tasks, where ``in_turn`` has it take one a step.
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
    """The number of tasks that a balancer was told, for ``reason``, the start of the message."""
    num_tasks = balancer.weighting.num_tasks
    if num_tasks is None:
        raise ValueError(
            f"{reason} for each task, and so needs their number: build the method with it, such as"
            " jaxmtl.mgda(num_tasks=3)."
        )
    return num_tasks


def check_balancer(balancer: Any) -> Balancer:
    """Raise unless a balancer came, and nothing that merely contains one."""
    if not (isinstance(balancer, Balancer) and hasattr(balancer, "weighting")):
        cure = "pass the balancer alone; what follows it in a chain takes the gradient it returns"
        if callable(balancer):
            cure = "call it, since jaxmtl.mgda is the function that makes a balancer"
        raise ValueError(
            "balancer must be a jaxmtl.Balancer, such as jaxmtl.mgda(), but it is a"
            f" {type(balancer).__name__}: {cure}."
        )
    return balancer
