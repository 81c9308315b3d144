"""The contestants of a comparison: each task alone, and the methods, by name or as functions."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmtl._typing import Array
from jaxmtl.balancing._base import Balancer
from jaxmtl.losses.static import static
from jaxmtl.methods import METHODS, suggestion
from jaxmtl.problems._problem import Problem

# The default methods, if the problem has what they need.
DEFAULT = (
    "equal",
    "static",
    "initial_loss",
    "prior_loss",
    "real_time_loss",
    "uncertainty",
    "gradnorm",
    "normalize",
    "pcgrad",
    "mgda",
)

# A method by name, or a name of your own with ``(num_tasks, key) -> Balancer``.
Method = str | tuple[str, Callable[[int, Array], Balancer]]


class Contestant(NamedTuple):
    """Something to train with.

    Attributes:
      name: the method, or "single:TASK" for a reference.
      make: ``(constants, key) -> Balancer``. Contestants with the same ``make`` share one compiled
        program.
      constants: (T,) constant task weights, for a ``make`` that uses them.
    """

    name: str
    make: Callable[[Array, Array], Balancer]
    constants: np.ndarray


def references(problem: Problem) -> list[Contestant]:
    """Each task trained alone."""
    tasks = problem.tasks or ()
    return [
        Contestant(f"single:{task}", constant_weights, np.eye(len(tasks))[i])
        for i, task in enumerate(tasks)
    ]


def lacking(problem: Problem, name: str) -> str:
    """What a method needs that the problem does not have, in words; "" if nothing is missing."""
    if name == "static" and problem.standardisation is None:
        return "targets that can be standardised"
    if name == "prior_loss" and problem.prior_values is None:
        return "the losses of the best constant output"
    needs = METHODS[name].needs
    return f"{' and '.join(needs)} at every step" if needs else ""


def contestants(problem: Problem, methods: Sequence[Method]) -> list[Contestant]:
    """The methods, checked; "static" stands for equal weights on standardised losses.

    Raises:
      ValueError: for an unknown name, a name that occurs twice, a method that needs what the
        problem lacks, or a function that returns no balancer for so many tasks.
    """
    tasks = problem.tasks or ()
    constants = {"equal": [1 / len(tasks)] * len(tasks)}
    if problem.standardisation is not None:
        constants["static"] = [problem.standardisation[task] for task in tasks]
    if problem.prior_values is not None:
        constants["prior_loss"] = [1 / problem.prior_values[task] for task in tasks]
    if isinstance(methods, str) or not isinstance(methods, Sequence) or not methods:
        raise ValueError(
            'methods must be a list of names, such as ["equal", "mgda"], or of pairs of a name and'
            f" a function (num_tasks, key) -> balancer, but it is {methods!r}."
        )
    found = [_contestant(method, constants, problem, len(tasks)) for method in methods]
    names = [contestant.name for contestant in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"methods must have different names, but {', '.join(twice)} come twice.")
    return found


def _contestant(
    method: Any, constants: dict[str, list[float]], problem: Problem, num_tasks: int
) -> Contestant:
    ones = np.ones(num_tasks)
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(
                f"unknown method {method!r}{suggestion(method, METHODS, 'method')}. For one of your"
                " own, give a pair of a name and a function (num_tasks, key) -> balancer."
            )
        if needs := lacking(problem, method):
            raise ValueError(f"{method} needs {needs}, which {problem.name} does not have.")
        if method in constants:
            return Contestant(method, constant_weights, np.array(constants[method]))
        make = METHODS[method].make
        return Contestant(method, lambda _, key: make(num_tasks, key), ones)
    pair = isinstance(method, tuple | list) and len(method) == 2
    if not (pair and isinstance(method[0], str) and callable(method[1])):
        raise ValueError(
            "A method must be a name or a pair of a name and a function (num_tasks, key) ->"
            f" balancer, but it is {method!r}."
        )
    name, factory = method
    balancer = factory(num_tasks, jax.random.key(0))
    if not isinstance(balancer, Balancer) or balancer.weighting.num_tasks != num_tasks:
        raise ValueError(
            f"The function of {name!r} must return a balancer built with the number of tasks,"
            f" such as jaxmtl.mgda(num_tasks=num_tasks), but it returned {balancer!r}."
        )
    return Contestant(name, lambda _, key: factory(num_tasks, key), ones)


def constant_weights(constants: Array, key: Array) -> Balancer:
    """Constant weights: for one task alone, or for all."""
    del key
    return static(constants)
