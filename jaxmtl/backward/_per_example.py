"""One loss per example, from a function of one example."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_callable, shown


def per_example(
    loss_of_one: Callable[..., Any], in_axes: tuple[Any, ...] = (None, 0)
) -> Callable[..., Any]:
    """Turn the loss of one example into a function of a batch that returns one loss per example.

    Every example is then a task, as in instance-wise risk minimisation or for losses at the points
    of a differential equation. Any function that returns one loss per example, (N,), will do; this
    one cannot mix examples by mistake.

    Under ``jit``, ``value_and_balanced_grad`` computes the Gramian of such losses from one backward
    pass, layer by layer, for methods that need only the Gramian of the gradients: for a dense layer
    with inputs x and cotangents d, <g_i, g_j> = (x_i . x_j) (d_i . d_j). One more backward pass
    makes the update. If it takes fewer operations, as for convolutions with many positions, the
    gradients are written out from that one pass; ``value_and_task_grads`` always does this. If
    examples do not stay separate, as in batch normalisation during training, each loss has a
    backward pass of its own as usual, and ``logging.getLogger("jaxmtl")`` says why at level INFO.

    Args:
      loss_of_one: ``(params, example) -> loss``, a scalar, or with ``has_aux`` a pair of that and
        auxiliary data.
      in_axes: as for ``jax.vmap``, one entry for each positional argument: the axis of the
        examples, or None for an argument that all examples share, such as the parameters.

    Returns:
      A function of the same arguments, with batches in place of examples. All examples share the
      keyword arguments.

    Raises:
      ValueError: if an argument has the wrong type; when called, if the number of arguments differs
        from that of ``in_axes``, or the loss is not a scalar.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxmtl
      >>> def squared_error(params, x, y):
      ...     return (x @ params - y) ** 2
      >>> losses_fn = jaxmtl.per_example(squared_error, in_axes=(None, 0, 0))
      >>> x, y = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), jnp.array([1.0, 2.0, 0.0])
      >>> balancer, params = jaxmtl.upgrad(num_tasks=3), jnp.zeros(2)
      >>> step = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
      >>> losses, grad, state = step(balancer.init(params), params, x, y)
      >>> print(losses, (3 * grad).round(3))
      [1. 4. 0.] [-2. -8.]

    References:
      Pierre Quinton and Valérian Rey (2024), Jacobian Descent for Multi-Objective Optimization.
      Ian Goodfellow (2015), Efficient Per-Example Gradient Computations.
    """
    check_callable("loss_of_one", loss_of_one, "(params, example) -> loss")
    if not isinstance(in_axes, tuple):
        raise ValueError(
            "in_axes must be a tuple of one axis for each argument, None for what all examples"
            f" share, but it is {shown(in_axes)}."
        )
    axes = jax.tree.leaves(in_axes)
    if wrong := [axis for axis in axes if type(axis) is not int]:
        raise ValueError(
            f"in_axes must hold whole numbers and None, but it holds {shown(wrong[0])}: give the"
            " axis of the examples, such as 0, or None for what all examples share."
        )
    if not axes:
        raise ValueError(
            "in_axes says that no argument runs over the examples: give the axis of the examples"
            f" for at least one, such as (None, 0), but it is {in_axes}."
        )

    def losses(*args: Any, **kwargs: Any) -> Any:
        if len(args) != len(in_axes):
            raise ValueError(
                f"in_axes is {in_axes}, for {len(in_axes)} positional arguments, but {len(args)}"
                " were passed: pass one for each entry of in_axes."
            )
        return jax.vmap(functools.partial(_scalar, loss_of_one, kwargs), in_axes)(*args)

    return losses


def _scalar(loss_of_one: Callable[..., Any], kwargs: dict[str, Any], *args: Any) -> Any:
    value = loss_of_one(*args, **kwargs)
    loss = value[0] if isinstance(value, tuple) else value
    if jnp.shape(loss) != ():
        raise ValueError(
            "loss_of_one must return one scalar, the loss of a single example, but its shape is"
            f" {jnp.shape(loss)}: sum or average it."
        )
    return value
