"""Constant weights from the user's domain knowledge, or scheduled weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._checks import is_real, shown
from jaxmtl._task_names import common_names
from jaxmtl._task_values import constant_vector
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described


class ScheduledState(NamedTuple):
    """The number of steps the schedules have taken: int32."""

    steps: Array


@described
def static(weights: TaskVector) -> Balancer:
    """Weigh the tasks by constants, d = sum_i w_i g_i, or by schedules, w_i(step).

    Args:
      weights: (T,) array or tree of scalars in ``jax.tree.leaves`` order of the losses, used
        unchanged: they are neither normalised nor required to be positive. In a tree, any entry may
        be a schedule: an optax schedule, or a function of the step, from 0, that returns a scalar.

    Returns:
      A balancer that reads nothing. Scale: (sum_i w_i) g on T identical gradients g. Degree 1. With
      schedules, its state counts the steps, ``method.steps``: the finite steps at which it computes
      weights.

    Raises:
      ValueError: if a weight is not finite, or their number is not the number of tasks; if a
        schedule does not return one real number.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl, optax
      >>> balancer = jaxmtl.static({"depth": 0.5, "labels": 2.0})
      >>> updates, state = balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)))
      >>> print(updates, state.task_weights)
      [0.5 2. ] [0.5 2. ]
      >>> warm_up = optax.linear_schedule(0.0, 1.0, transition_steps=2)
      >>> balancer = jaxmtl.static({"fit": 1.0, "kl": warm_up})
      >>> state = balancer.init(jnp.zeros(2))
      >>> for _ in range(3):
      ...     updates, state = balancer.update(jnp.eye(2), state)
      ...     print(updates)
      [1. 0.]
      [1.  0.5]
      [1. 1.]
    """
    leaves, treedef = jax.tree.flatten(weights)
    schedules = {n: leaf for n, leaf in enumerate(leaves) if _is_schedule(leaf)}
    if schedules and not jax.tree_util.all_leaves([weights]):
        _check_schedules(schedules)
        numbers = [1.0 if n in schedules else leaf for n, leaf in enumerate(leaves)]
        weights = jax.tree.unflatten(treedef, numbers)
    constant = constant_vector("weights", weights)
    known = constant.shape[0], common_names(weights=weights)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        del given
        return constant, state

    if not schedules:
        return make_balancer(Weighting(lambda dtype: (), update, frozenset(), *known))

    def follow(given: Given, state: ScheduledState) -> tuple[Array, ScheduledState]:
        del given
        now = [
            schedules[n](state.steps) if n in schedules else constant[n] for n in range(known[0])
        ]
        dtype = jnp.result_type(float)
        return jnp.stack([jnp.asarray(w, dtype) for w in now]), ScheduledState(state.steps + 1)

    def init(dtype: jnp.dtype) -> ScheduledState:
        del dtype
        return ScheduledState(jnp.zeros((), jnp.int32))

    return make_balancer(Weighting(init, follow, frozenset(), *known))


def _is_schedule(leaf: Any) -> bool:
    return callable(leaf) and not is_real(leaf)


def _check_schedules(schedules: dict[int, Callable[[Array], Any]]) -> None:
    """Raise unless each schedule returns one real number."""
    for number, schedule in schedules.items():
        cure = (
            f"The schedule of weights, value {number} (counted from 0, in jax.tree.leaves order),"
            " must be a function of the step that returns one real number, such as"
            " optax.linear_schedule(0.0, 1.0, 1000)"
        )
        try:
            value = jax.eval_shape(schedule, jax.ShapeDtypeStruct((), jnp.int32))
        except Exception as error:
            raise ValueError(f"{cure}, but called with a step it raised {error!r}.") from error
        if not is_real(value) or value.shape:
            raise ValueError(f"{cure}, but it returns {shown(value)}.")
