"""What a comparison trains with: each task alone, and the methods by their names."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxmtl._typing import Array
from jaxmtl.balancing._base import Balancer
from jaxmtl.losses.static import static
from jaxmtl.methods import METHODS
from jaxmtl.problems._problem import Problem


class Contestant(NamedTuple):
    """Something to train with.

    Attributes:
      name: the method, or "single:TASK" for a reference.
      make: ``(constants, key) -> Balancer``. Contestants with the same ``make`` share one compiled
        program.
      constants: (T,) constant task weights, for a ``make`` that wants them.
    """

    name: str
    make: Callable[[Array, Array], Balancer]
    constants: np.ndarray


def references(problem: Problem) -> list[Contestant]:
    """Each task trained alone."""
    return [
        Contestant(f"single:{task}", constant_weights, np.eye(len(problem.tasks))[i])
        for i, task in enumerate(problem.tasks)
    ]


def lacking(problem: Problem, name: str) -> str:
    """What a method needs that the problem does not have, in words; "" where nothing is missing."""
    if name == "static" and problem.standardisation is None:
        return "targets that can be standardised"
    if name == "prior_loss" and problem.prior_values is None:
        return "the losses of the best constant output"
    needs = METHODS[name].needs
    return f"{' and '.join(needs)} at every step" if needs else ""


def contestants(problem: Problem, names: Sequence[str]) -> list[Contestant]:
    """The methods by name; "static" stands for equal weights on standardised losses."""
    num = len(problem.tasks)
    constants = {"equal": [1 / num] * num}
    if problem.standardisation is not None:
        constants["static"] = [problem.standardisation[task] for task in problem.tasks]
    if problem.prior_values is not None:
        constants["prior_loss"] = [1 / problem.prior_values[task] for task in problem.tasks]

    def method(name: str) -> Contestant:
        if name in constants:
            return Contestant(name, constant_weights, np.array(constants[name]))
        make = METHODS[name].make
        return Contestant(name, lambda _, key: make(num, key), np.ones(num))

    return [method(name) for name in names]


def constant_weights(constants: Array, key: Array) -> Balancer:
    del key
    return static(constants)
