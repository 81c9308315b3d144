"""Shared code of the methods that solve a problem for their weights."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jaxmtl._task_names import TaskNames
from jaxmtl._typing import Array
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting


class SolvedState(NamedTuple):
    """The accuracy of the last step's solution.

    Attributes:
      residual: the violation of the problem's conditions, 0 if they hold; the solver's docstring
        says in which units.
      iterations: the solver's iterations.
    """

    residual: Array
    iterations: Array


def solved(
    solve: Callable[[Given], tuple[Array, Array, Array]],
    num_tasks: int | None,
    names: TaskNames | None = None,
) -> Balancer:
    """Make a balancer of ``Given -> (weights, residual, iterations)`` on the Gramian."""

    def init(dtype: jnp.dtype) -> SolvedState:
        return SolvedState(jnp.zeros((), dtype), jnp.zeros((), jnp.int32))

    def update(given: Given, state: SolvedState) -> tuple[Array, SolvedState]:
        weights, residual, iterations = solve(given)
        return weights, SolvedState(residual, jnp.asarray(iterations, state.iterations.dtype))

    return make_balancer(Weighting(init, update, frozenset({"gramian"}), num_tasks, names))
