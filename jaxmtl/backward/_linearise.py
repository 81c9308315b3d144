"""Backward passes of a function of several losses: one, or one for each loss."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import check_floating
from jaxmtl._platform import by_target
from jaxmtl._task_names import in_written_order
from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._cpu_layouts import laid_out, largest_result
from jaxmtl.backward._losses import count_losses, like_losses, losses_and_aux
from jaxmtl.backward._programs import is_staged, operations, read_program, rewritten_or_plain
from jaxmtl.backward._task_rows import task_rows
from jaxmtl.backward._xla_cpu import warn_if_miscompiled
from jaxmtl.solvers.scaling import reciprocal

# In bytes. If an array between the layers, times T, is larger, simultaneous backward passes
# displace each other from a CPU's cache; if it is smaller, the turns of a loop cost more than that.
CACHE = 4 * 2**20


class Linearised(NamedTuple):
    """A function of several losses at one point.

    Attributes:
      value: what it returned, ``losses`` or ``(losses, aux)``.
      losses: the losses alone.
      num_tasks: T.
      pull_back: cotangents, a tree like ``losses`` -> the gradient of the weighted sum.
      push_forward: a direction, a tree like the gradient -> (T,) derivatives of the losses; only
        if it was requested.
      is_linear: tells whether ``pull_back`` is linear for certain. The backward rules of
        ``jax.custom_vjp`` need not be: they may clip a gradient, or add to it.
    """

    value: Any
    losses: PyTree
    num_tasks: int
    pull_back: Callable[[PyTree], PyTree]
    push_forward: Callable[[PyTree], Array]
    is_linear: Callable[[], bool]


def linearise(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    has_aux: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    forward: bool = False,
) -> Linearised:
    """Evaluate ``fun`` once, ready for derivatives in the chosen arguments.

    Args:
      fun: a function that returns losses or ``(losses, aux)``.
      argnums: the chosen arguments.
      has_aux: whether ``fun`` returns ``aux``.
      args: positional arguments of ``fun``.
      kwargs: its keyword arguments.
      forward: whether directional derivatives are needed too; functions with a
        ``jax.custom_vjp`` have none.
    """
    params = warn_if_miscompiled(chosen(args, argnums))
    numbers, primals = ((argnums,), (params,)) if isinstance(argnums, int) else (argnums, params)

    returned: list[Any] = []

    def of_chosen(*chosen: Any) -> Any:
        full = list(args)
        for number, argument in zip(numbers, chosen, strict=True):
            full[number] = argument
        # A loss may be a Python number if a task does not depend on the parameters.
        value = fun(*full, **kwargs)
        losses, aux = losses_and_aux(value, has_aux)
        returned[:] = [losses, count_losses(losses)]
        return jax.tree.map(jnp.asarray, losses), aux

    push: Any = None
    pull: Any
    if forward:
        losses, push, aux = jax.linearize(of_chosen, *primals, has_aux=True)
        _check_directional(push, primals)
        pull = jax.linear_transpose(push, *primals)
    else:
        losses, pull, aux = jax.vjp(of_chosen, *primals, has_aux=True)
    written, num_tasks = returned
    # JAX has sorted the names; their written order shows which values were given by position.
    losses = in_written_order(losses, written)

    def pull_back(cotangents: PyTree) -> PyTree:
        grads = pull(cotangents)
        return grads[0] if isinstance(argnums, int) else tuple(grads)

    def push_forward(direction: PyTree) -> Array:
        slopes = push(*([direction] if isinstance(argnums, int) else direction))
        return jnp.concatenate([jnp.atleast_1d(slope) for slope in jax.tree.leaves(slopes)])

    def is_linear() -> bool:
        return forward or not _has_own_rule(pull.jaxpr)

    value = (losses, aux) if has_aux else losses
    return Linearised(value, losses, num_tasks, pull_back, push_forward, is_linear)


def chosen(args: tuple[Any, ...], argnums: int | Sequence[int]) -> PyTree:
    """The argument, or the tuple of arguments, to differentiate."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not all(-len(args) <= number < len(args) for number in numbers):
        raise ValueError(
            f"argnums is {argnums}, but {len(args)} positional arguments were passed: pass every"
            " argument to be differentiated by position."
        )
    if len({number % len(args) for number in numbers}) < len(numbers):
        raise ValueError(
            f"argnums is {argnums}, and names one of {len(args)} arguments twice: name each once."
        )
    params = args[argnums] if isinstance(argnums, int) else tuple(args[n] for n in numbers)
    check_floating("parameter", params)
    return params


def _check_directional(push: Callable[..., Any], primals: tuple[Any, ...]) -> None:
    """Raise for a function with a ``custom_vjp``, which JAX itself reports only when it runs."""

    if rewritten_or_plain(lambda: _has_own_rule(read_program(push, *primals)[0]), lambda: False):
        raise ValueError(
            'memory="lean" takes directional derivatives, which functions with a jax.custom_vjp do'
            " not have: leave memory out, or give them a jax.custom_jvp."
        )


def _has_own_rule(program: Any) -> bool:
    """Whether a linearised program has the backward rule of a ``jax.custom_vjp`` in it."""
    return any(eqn.primitive.name == "custom_lin" for eqn in operations(program))


def pull_back_weights(at: Linearised, weights: Array) -> PyTree:
    """The gradient of the weighted sum, with weights scaled to a range that 16-bit losses allow."""
    pull_back = laid_out(at.pull_back)
    if all(leaf.dtype.itemsize > 2 for leaf in jax.tree.leaves(at.losses)):
        return pull_back(like_losses(weights, at.losses))
    largest = jnp.max(jnp.abs(weights))
    grads = pull_back(like_losses(weights * reciprocal(largest), at.losses))
    return jax.tree.map(lambda g: (g.astype(weights.dtype) * largest).astype(g.dtype), grads)


def in_chunks(function: Callable[[PyTree], PyTree], rows: PyTree, size: int) -> PyTree:
    """Apply a function to each row of a tree of stacked arrays, ``size`` rows at a time."""
    if is_staged():
        # One at a time without vmap, which host callbacks and others may not support.
        return lax.map(function, rows, batch_size=None if size == 1 else size)
    # A loop would be compiled again at each call.
    count = len(jax.tree.leaves(rows)[0])
    if size == 1:
        parts = [function(jax.tree.map(lambda leaf, n=n: leaf[n], rows)) for n in range(count)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    starts = range(0, count, size)
    chunks = [jax.tree.map(lambda leaf, n=n: leaf[n : n + size], rows) for n in starts]
    parts = [jax.vmap(function)(chunk) for chunk in chunks]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def pull_back_each(at: Linearised, chunk_size: int | None) -> PyTree:
    """Stack the gradients of the single losses: all at once, or in chunks one after the other."""

    def side_by_side(function: Callable[[PyTree], PyTree], rows: PyTree) -> PyTree:
        if chunk_size is None:
            return jax.vmap(function)(rows)
        return in_chunks(function, rows, chunk_size)

    def for_each(function: Callable[[PyTree], PyTree], rows: PyTree) -> PyTree:
        def in_turn(rows: PyTree) -> PyTree:
            # Two per turn, since each alone keeps less than all cores busy.
            return lax.scan(lambda _, row: (None, function(row)), None, rows, unroll=2)[1]

        if chunk_size is None and is_staged():
            first = jax.tree.map(lambda leaf: leaf[0], rows)
            if len(jax.tree.leaves(rows)[0]) * largest_result(function, first) >= CACHE:
                return by_target(
                    rows, cpu=in_turn, default=functools.partial(side_by_side, function)
                )
        return side_by_side(function, rows)

    def by_rows() -> PyTree:
        return task_rows(at.pull_back, at.losses, for_each)

    def plain() -> PyTree:
        units = jnp.eye(at.num_tasks)
        return side_by_side(lambda unit: at.pull_back(like_losses(unit, at.losses)), units)

    return rewritten_or_plain(laid_out(by_rows), plain)
