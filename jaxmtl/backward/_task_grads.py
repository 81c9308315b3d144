"""From a function of several losses to stacked per-task gradients."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxmtl._checks import check_argnums, check_callable, check_flag, static_count
from jaxmtl.backward._instances import stack_gradients
from jaxmtl.backward._linearise import linearise


def value_and_task_grads(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """Evaluate several losses and the gradient of each, with one forward pass.

    This is ``jax.value_and_grad`` for a function that returns T losses. The gradients come stacked:
    each leaf has shape (T, *leaf.shape), and row i is the gradient of loss i in ``jax.tree.leaves``
    order (for a dict, the sorted names). The backward pass through operations that belong to one
    loss alone (a head, a batch of its own) runs once; only through operations that several losses
    share does it run T times.

    Args:
      fun: function of arrays that returns the losses, a tree of real scalars such as
        ``{"depth": ..., "labels": ...}`` or one (T,) array; with ``has_aux`` a pair
        ``(losses, aux)``.
      argnums: which positional argument, or arguments, to differentiate.
      has_aux: whether ``fun`` returns auxiliary data beside the losses. Since there is one forward
        pass, such data (running averages, for example) are computed once, not once per task.
      chunk_size: how many backward passes run side by side; the chunks run one after the other,
        which saves memory for the arrays between the layers. With 1 the passes are not vmapped, so
        operations without a batching rule work. If None, all run side by side, except that on a
        CPU large ones run one by one, which is faster there.

    Returns:
      A function of the same arguments that returns ``(losses, grads)``, or
      ``((losses, aux), grads)``; ``losses`` keeps the structure in which ``fun`` returns it. A loss
      or gradient that is not finite stays in its own row, even if the non-finite operation is one
      that several losses share. But losses that one operation computes together, such as one
      ``jax.vmap`` over the tasks, also have a common backward pass, and there zero times NaN is NaN
      in every row. In that case replace missing labels before they are compared with a prediction:
      ``jnp.where(mask, labels, 0.0)``.

    Raises:
      ValueError: if an argument has the wrong type; when called, if ``fun`` returns anything but
        real scalars or one (T,) array (with ``has_aux``, a pair of losses and auxiliary data), or a
        parameter is not a real floating-point array.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxmtl
      >>> def losses_fn(x):
      ...     return {"near": jnp.sum(x**2), "sum": jnp.sum(x)}
      >>> losses, grads = jax.jit(jaxmtl.value_and_task_grads(losses_fn))(jnp.array([1.0, 2.0]))
      >>> {name: float(loss) for name, loss in losses.items()}
      {'near': 5.0, 'sum': 3.0}
      >>> print(grads)
      [[2. 4.]
       [1. 1.]]
    """
    check_callable("fun", fun, "of arrays that returns the losses")
    argnums = check_argnums(argnums)
    check_flag("has_aux", has_aux)
    if chunk_size is not None:
        chunk_size = static_count("chunk_size", chunk_size)

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        at = linearise(fun, argnums, has_aux, args, kwargs)
        return at.value, stack_gradients(at, chunk_size)

    return evaluate
