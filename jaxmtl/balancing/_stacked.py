"""Checks of stacked gradients, with messages in full sentences, before anything is traced."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_floating, leaf_path
from jaxmtl._typing import PyTree


def count_stacked(grads: PyTree, params: PyTree | None) -> int:
    """Count the tasks of stacked gradients.

    Args:
      grads: the tree in which every leaf should have shape (T, *leaf.shape).
      params: the parameters, if the caller passed them; with them a leading task axis can be
        distinguished from a parameter's own first axis.

    Returns:
      T.

    Raises:
      ValueError: if the gradients are not stacked, or their leaves disagree on T.
    """
    cure = (
        "Each leaf must have shape (T, *parameter.shape), as"
        " jaxmtl.value_and_task_grads(losses_fn)(params, ...) returns it. Wrappers that expect the"
        " parameters' own shapes belong around what follows the balancer, such as"
        " optax.chain(balancer, optax.MultiSteps(optimizer, k).gradient_transformation())."
    )
    check_floating("gradient of", grads)
    named = [
        (leaf_path(path) or "grads", jnp.asarray(leaf))
        for path, leaf in jax.tree.leaves_with_path(grads)
    ]
    if not named:
        raise ValueError(f"The gradients have no leaves. {cure}")
    if params is not None and len(jax.tree.leaves(params)) == len(named):
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
        if all(leaf.shape == shape for (_, leaf), shape in zip(named, shapes, strict=True)):
            raise ValueError(
                f"The gradients were never stacked: every leaf has its parameter's own shape, such"
                f" as {named[0][0]!r} with {named[0][1].shape}. {cure}"
            )
        for (name, leaf), shape in zip(named, shapes, strict=True):
            if leaf.shape[1:] != shape:
                raise ValueError(
                    f"The gradient of {name!r} has shape {leaf.shape}, but its parameter has shape"
                    f" {shape}. {cure}"
                )
    for name, leaf in named:
        if leaf.ndim == 0:
            raise ValueError(
                f"The gradients were never stacked: the leaf {name!r} is a scalar. {cure}"
            )
    first, num_tasks = named[0][0], named[0][1].shape[0]
    for name, leaf in named:
        if leaf.shape[0] != num_tasks:
            raise ValueError(
                f"The gradients disagree on the number of tasks: {first!r} has a first axis of"
                f" {num_tasks}, {name!r} of {leaf.shape[0]}; perhaps they were never stacked."
                f" {cure}"
            )
    if num_tasks == 0:
        raise ValueError(f"The gradients have a task axis of length 0. {cure}")
    return num_tasks


def check_fits(init: Any, grads: PyTree, state: PyTree) -> None:
    """Raise unless the state is what ``init`` makes of the parameters of these gradients."""
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), grads)
    expected = jax.tree.map(jnp.shape, jax.eval_shape(init, params))
    found = jax.tree.map(jnp.shape, state)
    if expected != found:
        raise ValueError(
            "The balancer's state does not fit the gradients: their stacked leaves require"
            f" {expected}, but it holds {found}. The state must come from balancer.init(params),"
            " and each gradient have shape (T, *parameter.shape)."
        )


def independent_batches(value: Any, grads: PyTree) -> tuple[PyTree, PyTree]:
    """Read the stacked gradients of two further batches.

    Raises:
      ValueError: if they are missing, or not of the shapes of ``grads``.
    """
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(
            "This method measures the gradients of two further batches: call update(grads, state,"
            " params, independent_grads=(grads_1, grads_2)), each as value_and_task_grads returns"
            f" it; but independent_grads is {'None' if value is None else type(value).__name__}."
        )
    expected = jax.tree.map(jnp.shape, grads)
    for batch in value:
        if jax.tree.map(jnp.shape, batch) != expected:
            raise ValueError(
                "independent_grads must hold two trees of the structure and shapes of grads,"
                f" {expected}, but one is {jax.tree.map(jnp.shape, batch)}."
            )
    return value[0], value[1]
