"""The parameters that several tasks share, found from the backward pass of each loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxmtl._checks import check_callable, check_flag, check_floating, path_name
from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._losses import count_losses, losses_and_aux


def shared_leaves(
    fun: Callable[..., Any], params: PyTree, *args: Any, has_aux: bool = False, **kwargs: Any
) -> PyTree:
    """Find the leaves on which more than one loss depends, for ``on_shared``.

    A loss depends on a leaf if the structure of the program does not make its derivative zero: a
    path through ``jax.lax.stop_gradient`` or a switched-off branch does not count, a product with a
    zero does. Nothing is computed; the arguments may be shapes (``jax.ShapeDtypeStruct``).

    Args:
      fun: ``(params, *args, **kwargs) -> losses``, a tree of scalars. One (T,) array is refused,
        since its entries cannot be traced back separately.
      params: the parameters, a tree of floating-point arrays.
      *args: further arguments of ``fun``.
      has_aux: whether ``fun`` returns a pair, the losses and auxiliary data, as for ``jax.grad``.
      **kwargs: its keyword arguments.

    Returns:
      A tree of bools like ``params``: True if two losses or more depend on the leaf. A leaf on
      which only one loss depends belongs to that task's head; one on which none depends is frozen.

    Raises:
      ValueError: if ``fun`` returns anything but a tree of scalars, or only one scalar.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> def losses_fn(params, x):
      ...     h = jnp.tanh(params["trunk"] * x)
      ...     return {"a": jnp.sum(h * params["head_a"]), "b": jnp.sum(h * params["head_b"])}
      >>> params = {"trunk": jnp.ones(2), "head_a": jnp.ones(2), "head_b": jnp.ones(2)}
      >>> jaxmtl.shared_leaves(losses_fn, params, jnp.ones(2))
      {'head_a': False, 'head_b': False, 'trunk': True}
    """
    check_callable("fun", fun, "(params, *args, **kwargs) -> losses")
    check_flag("has_aux", has_aux)
    check_floating("parameter", params)
    leaves, treedef = jax.tree.flatten(params)

    def losses(leaves: list[Array], args: Any, kwargs: Any) -> list[Array]:
        values = fun(jax.tree.unflatten(treedef, leaves), *args, **kwargs)
        values = losses_and_aux(values, has_aux)[0]
        count_losses(values)
        values = jax.tree.map(jnp.asarray, values)
        for path, value in jax.tree.leaves_with_path(values):
            if value.ndim:
                raise ValueError(
                    f"The loss {path_name(path)!r} has shape {value.shape}, but the function must"
                    " return a tree of scalars, such as a dict, to show what each loss depends on."
                )
        return jax.tree.leaves(values)

    num_losses = len(jax.eval_shape(losses, leaves, args, kwargs))
    if num_losses < 2:
        raise ValueError(
            f"The function returned {num_losses} losses, but leaves are shared between two or more:"
            " return every loss of the training."
        )
    reached = [_reached(losses, number, leaves, args, kwargs) for number in range(num_losses)]
    counts = [sum(place in places for places in reached) for place in range(len(leaves))]
    return jax.tree.unflatten(treedef, [count > 1 for count in counts])


def _reached(losses: Callable[..., list[Array]], number: int, leaves: Any, *rest: Any) -> set[int]:
    """The places among the leaves that the backward pass of one of the losses reaches."""
    reached: set[int] = set()

    def loss(leaves: list[Array], *rest: Any) -> Array:
        watched = [_watched(leaf, reached, place) for place, leaf in enumerate(leaves)]
        return losses(watched, *rest)[number]

    jax.eval_shape(jax.grad(loss), leaves, *rest)
    return reached


def _watched(leaf: Array, reached: set[int], place: int) -> Array:
    """The same leaf; its place is recorded if a backward pass brings it more than a zero.

    JAX carries zeros that follow from the structure of the function as symbolic zeros.
    """

    @jax.custom_vjp
    def same(leaf: Array) -> Array:
        return leaf

    def arrive(_: None, cotangent: Any) -> tuple[Any]:
        if not isinstance(cotangent, SymbolicZero):
            reached.add(place)
        return (cotangent,)

    same.defvjp(lambda leaf: (leaf.value, None), arrive, symbolic_zeros=True)
    return same(leaf)
