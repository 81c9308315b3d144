"""Which parameters the tasks share, read off the program of the losses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

from jaxmtl._checks import leaf_path
from jaxmtl._typing import PyTree


def shared_leaves(fun: Callable[..., Any], params: PyTree, *args: Any, **kwargs: Any) -> PyTree:
    """Find the leaves on which more than one loss depends, for ``on_shared``.

    A loss depends on a leaf where its derivative is not zero by the structure of the program: what
    stands behind ``jax.lax.stop_gradient`` or a switched-off branch does not count, a product with
    a zero does. Nothing is computed; the arguments may be shapes (``jax.ShapeDtypeStruct``).

    Args:
      fun: ``(params, *args, **kwargs) -> losses``, a tree of scalars: from one (T,) array nobody
        can tell which of its parts depends on what.
      params: the parameters, a tree of floating-point arrays.
      *args: further arguments of ``fun``.
      **kwargs: its keyword arguments.

    Returns:
      A tree of bools like ``params``: True where two losses or more depend on the leaf. A leaf that
      one loss alone depends on is its head; one that none depends on is frozen.

    Raises:
      ValueError: where ``fun`` returns anything but a tree of scalars, or only one.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> def losses_fn(params, x):
      ...     h = jnp.tanh(params["trunk"] * x)
      ...     return {"a": jnp.sum(h * params["head_a"]), "b": jnp.sum(h * params["head_b"])}
      >>> params = {"trunk": jnp.ones(2), "head_a": jnp.ones(2), "head_b": jnp.ones(2)}
      >>> jaxmtl.shared_leaves(losses_fn, params, jnp.ones(2))
      {'head_a': False, 'head_b': False, 'trunk': True}
    """
    counts = [0] * len(jax.tree.leaves(params))

    def derivatives(params: PyTree, tangents: PyTree, args: Any, kwargs: Any) -> list[Any]:
        def losses(params: PyTree) -> PyTree:
            return jax.tree.map(jnp.asarray, fun(params, *args, **kwargs))

        values, slopes = jax.jvp(losses, (params,), (tangents,))
        for path, value in jax.tree.leaves_with_path(values):
            if value.ndim:
                raise ValueError(
                    f"The loss {leaf_path(path)!r} has shape {value.shape}, but to see what each"
                    " loss depends on, the function must return a tree of scalars, such as a dict."
                )
        return jax.tree.leaves(slopes)

    jaxpr = jax.make_jaxpr(derivatives)(params, params, args, kwargs).jaxpr
    num_losses = len(jaxpr.outvars)
    if num_losses < 2:
        raise ValueError(f"Nothing can be shared: the function returned {num_losses} losses.")
    for i in range(num_losses):
        wanted = [j == i for j in range(num_losses)]
        # What is left after dropping all that this derivative does not need.
        _, used = partial_eval.dce_jaxpr(jaxpr, wanted)
        of_tangents = used[len(counts) : 2 * len(counts)]
        counts = [count + u for count, u in zip(counts, of_tangents, strict=True)]
    treedef = jax.tree.structure(params)
    return jax.tree.unflatten(treedef, [count > 1 for count in counts])
