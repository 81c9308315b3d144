"""The return values that a function of several losses may have."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import is_real, path_name, shown
from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._manual_axes import vary_like


def count_losses(losses: PyTree) -> int:
    """Count the tasks, and raise unless the losses are real scalars or one (T,) array."""
    named = jax.tree.leaves_with_path(losses)
    if not named:
        raise ValueError(
            "The function returned no losses: return a tree of scalars or a (T,) array."
        )
    for path, loss in named:
        name = f"The loss {path_name(path)!r}"
        if not is_real(loss):
            came = f"has type {loss.dtype}" if hasattr(loss, "dtype") else f"is {shown(loss)}"
            raise ValueError(
                f"{name} {came}, but a loss must be a real scalar. If it is no loss but auxiliary"
                " data, return (losses, aux) and pass has_aux=True."
            )
        shape = jnp.shape(loss)
        if shape and (len(shape) > 1 or len(named) > 1):
            raise ValueError(
                f"{name} has shape {shape}, but a loss must be a scalar (or all losses one array of"
                " shape (T,)): reduce it over the batch, for example with jnp.mean. If it is not a"
                " loss but auxiliary data, pass has_aux=True."
            )
        if not is_real(loss, (jnp.floating,)):
            raise ValueError(
                f"{name} has type {jnp.result_type(loss)}, but only real floating-point losses can"
                " be differentiated."
            )
    shape = jnp.shape(named[0][1])
    if shape == (0,):
        raise ValueError("The function returned an empty array of losses: return at least one.")
    return shape[0] if shape else len(named)


def like_losses(weights: Array, losses: PyTree) -> PyTree:
    """(T,) weights as cotangents of the losses' structure and types."""
    leaves, treedef = jax.tree.flatten(losses)
    parts = [weights] if leaves[0].ndim else [weights[i] for i in range(len(leaves))]
    typed = [
        vary_like(part.astype(leaf.dtype), jax.typeof(leaf))
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, typed)


def losses_and_aux(value: Any, has_aux: bool) -> tuple[PyTree, Any]:
    """Split the return value of a function of losses into losses and auxiliary data.

    Raises:
      ValueError: if ``has_aux`` is set and the function did not return a pair.
    """
    if has_aux and not (isinstance(value, tuple | list) and len(value) == 2):
        raise ValueError(
            "With has_aux=True the function must return a pair, (losses, aux), but it returned"
            f" a {type(value).__name__}: leave has_aux out if it returns the losses alone."
        )
    return (value[0], value[1]) if has_aux else (value, None)
