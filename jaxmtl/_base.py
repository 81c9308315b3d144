"""The vocabulary: what a method is given, what it returns, and the optax transformation around it.

A method is a ``Weighting``: T-sized pure functions that know nothing of parameters. A ``Balancer``
is the optax transformation made from one (in ``_balancer.py``).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from jaxmtl._leaf_roles import LeafRoles
from jaxmtl._typing import Array, PyTree


class Given(NamedTuple):
    """What a method is given at a step; what it does not read may be None.

    Attributes:
      losses: (T,) losses; one at absent tasks.
      gramian: (T, T) inner products of the gradients; zero rows and columns at absent tasks.
      active: (T,) bool, the tasks present in this batch.
    """

    losses: Any
    gramian: Any
    active: Array


class Weighting(NamedTuple):
    """A balancing method as T-sized pure functions.

    Attributes:
      init: ``dtype -> state``; what is kept per task has shape (T,) and this type.
      update: ``(Given, state) -> ((T,) weights, state)``. The weights of absent tasks are ignored;
        the state must not move for them.
      reads: which of "losses" and "gramian" the method reads.
      num_tasks: T where the method knows it, else None.
      names: the tasks' names where the user gave something by name; the losses must then bear the
        same ones.
    """

    init: Callable[[Any], PyTree]
    update: Callable[[Given, PyTree], tuple[Array, PyTree]]
    reads: frozenset[str]
    num_tasks: int | None
    names: tuple[str, ...] | None = None


class BalancerState(NamedTuple):
    """State of a balancer.

    Attributes:
      task_weights: the (T,) weights of the last step whose inputs were finite, zero before the
        first. None where the balancer was not told ``num_tasks``: the shapes of an optax state are
        fixed by ``init``, which sees the parameters only.
      method: the method's own state.
    """

    task_weights: Any
    method: PyTree


class Balancer(optax.GradientTransformationExtraArgs):
    """An optax transformation that reduces the leading task axis of stacked gradients.

    ``init(params)`` returns a ``BalancerState``. ``update(grads, state, params=None, *,
    losses=None, active=None, **extra)`` takes gradients with leaves of shape (T, *leaf.shape) and
    returns updates of the parameters' own shapes; ``losses`` is the tree or (T,) array of losses,
    ``active`` an optional tree or (T,) array of bools: the tasks present in this batch.

    A step with a non-finite loss or gradient returns non-finite updates and leaves the state as it
    was, so that ``optax.apply_if_finite`` after the balancer skips the step as a whole. A step
    without any active task returns zero.

    Attributes:
      weighting: the method.
      roles: the leaves that it measures and weighs.
    """

    weighting: Weighting
    roles: LeafRoles


def check_balancer(balancer: Any) -> Balancer:
    """Raise unless a balancer came, and nothing that merely contains one."""
    if not (isinstance(balancer, Balancer) and hasattr(balancer, "weighting")):
        raise ValueError(
            "balancer must be a jaxmtl.Balancer, such as jaxmtl.mgda(), but it is a"
            f" {type(balancer).__name__}: pass the balancer alone; what follows it in a chain takes"
            " the gradient that it returns."
        )
    return balancer
