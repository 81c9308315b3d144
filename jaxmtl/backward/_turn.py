"""The step of a balancer that takes its tasks in turn: one forward and one backward pass."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._task_names import in_written_order
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.backward._branches import one_of
from jaxmtl.backward._linearise import chosen, linearise, pull_back_weights
from jaxmtl.backward._losses import count_losses, like_losses, losses_and_aux
from jaxmtl.backward._manual_axes import check_summed
from jaxmtl.balancing._base import BalancerState, Turns, Weighting
from jaxmtl.balancing._gram import solve_dtype
from jaxmtl.balancing._step import check_built_for, read_extra


def one_task(
    fun: Callable[..., Any],
    turns: Turns,
    weighting: Weighting,
    argnums: int | Sequence[int],
    has_aux: bool,
) -> Callable[..., Any]:
    """``value_and_balanced_grad`` of a balancer made by ``in_turn``.

    The branch of each task holds the whole function; the compiler removes everything that the
    task's loss and the auxiliary data do not need.
    """

    def evaluate(
        state: BalancerState,
        /,
        *args: Any,
        active: TaskVector | None = None,
        extra: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, PyTree, BalancerState]:
        extra, turn, params = read_extra(extra), turns.due(state), chosen(args, argnums)
        dtype = solve_dtype(jax.tree.leaves(params))
        returned: list[PyTree] = []

        def take(task: int) -> tuple[Any, Array, PyTree]:
            def of_task(*args: Any, **kwargs: Any) -> tuple[Array, Any]:
                losses, aux = losses_and_aux(fun(*args, **kwargs), has_aux)
                check_built_for(weighting, count_losses(losses))
                leaves = jax.tree.leaves(losses)
                returned[:] = losses, jax.tree.map(jnp.asarray, losses)
                return jnp.asarray(leaves[0][task] if jnp.ndim(leaves[0]) else leaves[task]), aux

            at = linearise(of_task, argnums, True, args, kwargs)
            check_summed(at.pull_back, at.losses)
            return at.value[1], at.losses.astype(dtype), pull_back_weights(at, jnp.ones(1))

        tasks = [functools.partial(take, task) for task in range(weighting.num_tasks or 0)]
        aux, loss, grad = one_of(turn, *tasks)
        written, arrays = returned
        named = functools.partial(like_losses, losses=arrays)
        options = {"active": active, **extra}
        grad, known, state = turns.take(grad, (loss, named), state, params, **options)
        losses = in_written_order(named(known), written)
        return (losses, aux) if has_aux else losses, grad, state

    return evaluate
