"""From a function of several losses to stacked per-task gradients, or straight to their balance."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._base import Balancer, BalancerState, check_balancer
from jaxmtl._checks import leaf_path
from jaxmtl._gram import reciprocal, solve_dtype
from jaxmtl._leaf_roles import select_leaves
from jaxmtl._step import keep_if_finite, read_inputs, weigh
from jaxmtl._timing import is_due
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl._xla_cpu import warn_if_miscompiled


def value_and_task_grads(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Evaluate several losses and the gradient of each, with one forward pass.

    The counterpart of ``jax.value_and_grad`` for a function that returns T losses: the gradients
    come stacked, each leaf of shape (T, *leaf.shape), row i being the gradient of loss i in
    ``jax.tree.leaves`` order (for a dict, the sorted names).

    Args:
      fun: function of arrays that returns the losses, a tree of real scalars such as
        ``{"depth": ..., "labels": ...}`` or one (T,) array; with ``has_aux`` a pair
        ``(losses, aux)``.
      argnums: which positional argument, or arguments, to differentiate.
      has_aux: whether ``fun`` returns auxiliary data beside the losses. Since there is one forward
        pass, such data (running averages, say) are made once, not once per task.

    Returns:
      A function of the same arguments that returns ``(losses, grads)``, or
      ``((losses, aux), grads)``; ``losses`` keeps the structure in which ``fun`` returns it.

    Raises:
      ValueError: when called, where ``fun`` returns anything but real scalars or one (T,) array.

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

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        value, pull_back = _vjp(fun, argnums, has_aux, args, kwargs)
        losses = value[0] if has_aux else value
        leaves, treedef = jax.tree.flatten(losses)
        num_tasks = _count_losses(losses)
        return value, jax.vmap(pull_back)(_rows_like(jnp.eye(num_tasks), leaves, treedef))

    return evaluate


def value_and_balanced_grad(
    fun: Callable[..., Any],
    balancer: Balancer,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Evaluate several losses and their balanced gradient by the cheapest route the method allows.

    The same losses, gradient and state as ``value_and_task_grads`` followed by
    ``balancer.update``. A method that reads only the losses costs one forward and one backward
    pass, whatever T is (two backward passes where ``on_shared`` leaves heads their own gradient);
    so do the steps of ``every`` and ``warm_up`` at which the method is not asked.

    Args:
      fun: as for ``value_and_task_grads``.
      balancer: any balancer of this package, alone: what follows it in a chain takes the result.
      argnums: which positional argument, or arguments, to differentiate.
      has_aux: whether ``fun`` returns ``(losses, aux)``.

    Returns:
      A function ``(balancer_state, *args, active=None, extra=None, **kwargs) -> (losses, grad,
      balancer_state)``, or ``((losses, aux), grad, balancer_state)``, with ``balancer_state =
      balancer.init(params)`` at the start. ``active`` is the optional mask of the tasks present;
      where the loss of an absent task is NaN for want of examples, mask the examples inside
      ``fun``, since zero times its derivative is NaN in a single backward pass. ``extra`` is a dict
      of what else the method needs in ``update``, such as ``{"ntk_traces": ...}``. (Keywords
      ``active`` and ``extra`` of ``fun``'s own do not reach it.) A single backward pass carries the
      weights in the type of the losses: 8 bits of them for bfloat16.

    Raises:
      ValueError: where ``balancer`` is none; when called, where the state is none, and as
        ``value_and_task_grads`` and ``balancer.update`` do.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxmtl
      >>> def losses_fn(x):
      ...     return {"near": jnp.sum(x**2), "sum": jnp.sum(x)}
      >>> balancer = jaxmtl.real_time_loss()
      >>> x = jnp.array([1.0, 2.0])
      >>> step = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
      >>> losses, grad, state = step(balancer.init(x), x)
      >>> print(grad.round(4))  # [2, 4] / 5 + [1, 1] / 3
      [0.7333 1.1333]
    """

    check_balancer(balancer)

    weighting, timing = balancer.weighting, balancer.timing

    def stacked(
        state: BalancerState, options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, PyTree, BalancerState]:
        value, grads = value_and_task_grads(fun, argnums, has_aux)(*args, **kwargs)
        losses = value[0] if has_aux else value
        params = _arguments(args, argnums)
        grad, state = balancer.update(grads, state, params, losses=losses, **options)
        return value, grad, state

    def single_backward(
        state: BalancerState,
        options: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        ask: bool,
    ) -> tuple[Any, PyTree, BalancerState]:
        value, pull_back = _vjp(fun, argnums, has_aux, args, kwargs)
        losses = value[0] if has_aux else value
        leaves, treedef = jax.tree.flatten(losses)
        params = _arguments(args, argnums)
        dtype = solve_dtype(jax.tree.leaves(params))
        given = read_inputs(weighting, _count_losses(losses), dtype, losses=losses, **options)
        measure = (lambda given: given) if ask else None
        weights, new_state = weigh(weighting, timing, given, state, dtype, measure)
        weighted = select_leaves(balancer.roles.weighted, params)
        grads = [_pull_back_scaled(pull_back, weights, leaves, treedef)]
        if not all(weighted):
            grads.append(pull_back(_rows_like(given.active.astype(dtype), leaves, treedef)))
        flat = zip(*map(jax.tree.leaves, grads), strict=True)
        chosen = [g[0] if w else g[-1] for g, w in zip(flat, weighted, strict=True)]
        grad = jax.tree.unflatten(jax.tree.structure(grads[0]), chosen)
        return value, grad, keep_if_finite(chosen, new_state, state)

    def evaluate(
        state: BalancerState,
        /,
        *args: Any,
        active: TaskVector | None = None,
        extra: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, PyTree, BalancerState]:
        if not isinstance(state, BalancerState):
            raise ValueError(
                "The first argument must be the balancer's state, balancer.init(params), and the"
                f" function's own arguments follow it; but it is a {type(state).__name__}."
            )
        options = {"active": active, **(extra or {})}
        if balancer.preparation is not None:
            return stacked(state, options, args, kwargs)
        if not weighting.reads & {"gramian", "cross_gramian"}:
            return single_backward(state, options, args, kwargs, ask=True)
        if timing is None:
            return stacked(state, options, args, kwargs)
        return jax.lax.cond(
            is_due(timing, state.timing),
            lambda state: stacked(state, options, args, kwargs),
            lambda state: single_backward(state, options, args, kwargs, ask=False),
            state,
        )

    return evaluate


def _vjp(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    has_aux: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Any, Callable[[PyTree], PyTree]]:
    """Linearise ``fun`` in the chosen arguments: its value, and cotangents -> gradients."""
    warn_if_miscompiled()
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not all(-len(args) <= number < len(args) for number in numbers):
        raise ValueError(
            f"argnums is {argnums}, but {len(args)} positional arguments came: pass what is to be"
            " differentiated by position."
        )

    def of_chosen(*chosen: Any) -> Any:
        full = list(args)
        for number, argument in zip(numbers, chosen, strict=True):
            full[number] = argument
        # A loss may be a Python number where a task has nothing to do with the parameters.
        value = fun(*full, **kwargs)
        if not has_aux:
            return jax.tree.map(jnp.asarray, value)
        losses, aux = value
        return jax.tree.map(jnp.asarray, losses), aux

    primals = [args[n] for n in numbers]
    if has_aux:
        losses, pull_back, aux = jax.vjp(of_chosen, *primals, has_aux=True)
    else:
        losses, pull_back = jax.vjp(of_chosen, *primals)

    def gradients(cotangents: PyTree) -> PyTree:
        grads = pull_back(cotangents)
        return grads[0] if isinstance(argnums, int) else grads

    return ((losses, aux) if has_aux else losses), gradients


def _pull_back_scaled(
    pull_back: Callable[[PyTree], PyTree], weights: Array, leaves: list[Array], treedef: Any
) -> PyTree:
    """Pull back the weights, in a range that 16-bit losses can hold."""
    if all(leaf.dtype.itemsize > 2 for leaf in leaves):
        return pull_back(_rows_like(weights, leaves, treedef))
    largest = jnp.max(jnp.abs(weights))
    grads = pull_back(_rows_like(weights * reciprocal(largest), leaves, treedef))
    return jax.tree.map(lambda g: (g.astype(weights.dtype) * largest).astype(g.dtype), grads)


def _arguments(args: tuple[Any, ...], argnums: int | Sequence[int]) -> PyTree:
    """Pick the differentiated arguments in the structure of their gradients."""
    return args[argnums] if isinstance(argnums, int) else tuple(args[n] for n in argnums)


def _count_losses(losses: PyTree) -> int:
    """Count the tasks, insisting on real scalars or one (T,) array."""
    named = jax.tree.leaves_with_path(losses)
    if not named:
        raise ValueError(
            "The function returned no losses: return a tree of scalars or a (T,) array."
        )
    for path, loss in named:
        if loss.ndim != 0 and not (loss.ndim == 1 and len(named) == 1):
            raise ValueError(
                f"The loss {leaf_path(path)!r} has shape {loss.shape}, but a loss must be a scalar"
                " (or all of them one array of shape (T,)): reduce it over the batch, with"
                " jnp.mean, say. If it is no loss but auxiliary data, pass has_aux=True."
            )
        if not jnp.issubdtype(loss.dtype, jnp.floating):
            raise ValueError(
                f"The loss {leaf_path(path)!r} has type {loss.dtype}, but only real floating-point"
                " losses can be differentiated."
            )
    num_tasks = len(named) if named[0][1].ndim == 0 else named[0][1].shape[0]
    if num_tasks == 0:
        raise ValueError("The function returned an empty array of losses.")
    return num_tasks


def _rows_like(rows: Array, leaves: list[Array], treedef: Any) -> PyTree:
    """Split (..., T) weights on the losses into cotangents of the losses' structure and types."""
    if len(leaves) == 1 and leaves[0].ndim == 1:
        return jax.tree.unflatten(treedef, [rows.astype(leaves[0].dtype)])
    columns = [rows[..., i].astype(leaf.dtype) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(treedef, columns)
