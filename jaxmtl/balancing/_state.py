"""The state of a balancer: its start, the check that it fits, and its replacement at a step."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._base import Balancer, BalancerState
from jaxmtl.balancing._gram import rows
from jaxmtl.balancing._timing import init_timing


def init_state(balancer: Balancer, dtype: Any) -> BalancerState:
    """The T-sized part of the state at the start."""
    weighting, num_tasks = balancer.weighting, balancer.weighting.num_tasks
    reporting = balancer.reporting
    return BalancerState(
        None if num_tasks is None else jnp.zeros(num_tasks, dtype),
        weighting.init(dtype),
        timing=init_timing(balancer.timing, num_tasks, dtype),
        report=reporting.init(num_tasks, dtype) if reporting and num_tasks else (),
    )


def check_is_state(state: Any) -> None:
    """Raise unless ``state`` is the state of a balancer."""
    if not isinstance(state, BalancerState):
        raise ValueError(
            "The balancer's state must be what balancer.init(params) or update returned, but it is"
            f" a {type(state).__name__}. (value_and_balanced_grad and value_and_features_grad take"
            " it as their first argument.)"
        )


def check_state(balancer: Balancer, state: Any, dtype: Any) -> None:
    """Raise unless the T-sized part of a state belongs to this balancer.

    Raises:
      ValueError: if it belongs to another method or another number of tasks, or is not a state.
    """
    cure = "A state comes from balancer.init(params), and from update, of the same balancer."
    check_is_state(state)
    came, wanted = state._replace(preparation=()), balancer.state_like(dtype)
    structures: tuple[Any, Any] = jax.tree.structure(came), jax.tree.structure(wanted)
    kept = balancer.preparation is None and jax.tree.leaves(state.preparation)
    if kept or structures[0] != structures[1]:
        raise ValueError(
            f"The state was made by another method: it holds {_outline(state)}, but this balancer"
            f" keeps {_outline(wanted)}. {cure}"
        )
    entries = zip(jax.tree.leaves_with_path(came), jax.tree.leaves(wanted), strict=True)
    for (path, leaf), like in entries:
        if jnp.shape(leaf) != like.shape:
            where = jax.tree_util.keystr(path)
            kind = "kind of random key" if where.endswith("key_data") else "number of tasks"
            raise ValueError(
                f"The state was made for another {kind}: state{where} has shape {jnp.shape(leaf)},"
                f" but this balancer keeps {like.shape} there. {cure}"
            )


def _outline(state: BalancerState) -> str:
    """The names of what a state holds."""
    paths = (path for path, _ in jax.tree.leaves_with_path(state))
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    return ", ".join(names) or "nothing"


def find_nodes(kind: type, tree: PyTree) -> list[tuple[Any, Any]]:
    """The paths and nodes of one kind in a tree, such as a balancer's state in an optimizer's."""
    entries = jax.tree.leaves_with_path(tree, is_leaf=lambda node: isinstance(node, kind))
    return [(path, node) for path, node in entries if isinstance(node, kind)]


def after_step(finite: Array, new: BalancerState, old: BalancerState) -> BalancerState:
    """The new state, or the old one if the step was not finite; the report is always new.

    Args:
      finite: whether the step was finite: one flag, or one equal flag for each task. On a GPU, XLA
        writes many arrays in one launch if they share an array, but not if they share a scalar.
      new: the state after the step.
      old: the state before it.
    """
    flags = jnp.atleast_1d(finite)

    def choose(new: Array, old: Array) -> Array:
        is_per_task = jnp.shape(old)[:1] == flags.shape
        return keep(rows(flags, old) if is_per_task else flags[0], new, old)

    kept = jax.tree.map(choose, new._replace(report=()), old._replace(report=()))
    return kept._replace(report=new.report)


def keep(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """Take the new tree where the condition holds, in the types of the old one."""

    def choose(new: Array, old: Array) -> Array:
        new, old = jnp.asarray(new), jnp.asarray(old)
        return jnp.where(condition, new if new.dtype == old.dtype else new.astype(old.dtype), old)

    return jax.tree.map(choose, new, old)
