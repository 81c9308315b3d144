"""Train all seeds of one row at one learning rate on an equation, as the papers did."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._task_grads import value_and_task_grads
from jaxmtl.gradients.ntk import ntk_traces
from jaxmtl.problems._problem import Batch, Problem
from jaxmtl.reproductions._contestants import Contestant
from jaxmtl.reproductions._runs import as_json
from jaxmtl.reproductions._seeds import for_each

POINTS_OF_CURVE = 50


def trainer(
    problem: Problem,
    residuals: Callable[[PyTree, Batch], dict[str, Array]],
    contestant: Contestant,
    decay: float,
    block: int,
) -> Callable[..., dict[str, Any]]:
    """Write the training, which is compiled once for all learning rates.

    Args:
      problem: with ``sample``; the error is the metric of its task "residual".
      residuals: those of the problem, for the traces.
      contestant: what it is trained with.
      decay: what the learning rate is multiplied by after every thousand steps.
      block: after so many steps the error is measured.

    Returns:
      ``train(rate, seeds, steps, advance)``, which calls ``advance(n)`` after every n steps of a
      seed, and returns the errors of each seed: "at_smallest_loss", by the parameters after the
      step of the smallest sum of training losses, as in the code published with DCGD; "at_last";
      "smallest", of those measured; and the "curve" of some of them, at the steps "of_curve".
    """

    def optimizer_of(rate: Array, key: Array) -> optax.GradientTransformationExtraArgs:
        adam = optax.adam(lambda count: rate * decay ** (count // 1000))
        return optax.with_extra_args_support(contestant.make(key, adam))

    def start(rate: Array, key: Array) -> PyTree:
        params = problem.init(key)
        state = optimizer_of(rate, key).init(params)
        return params, state, (jnp.float32(jnp.inf), params), jnp.ones(len(problem.tasks or ()))

    def some_steps(rate: Array, key: Array, carry: PyTree, begin: Array) -> Any:
        optimizer, grads_of = optimizer_of(rate, key), value_and_task_grads(problem.losses)

        def points_of(step: Array) -> Batch:
            return problem.sample(jax.random.fold_in(key, step))  # type: ignore[misc]

        def one_step(number: Array, carry: PyTree) -> PyTree:
            params, state, (smallest, best), traces = carry
            losses, grads = grads_of(params, points_of(begin + number))
            extra = {"ntk_traces": traces} if contestant.traces else {}
            updates, state = optimizer.update(grads, state, params, losses=losses, **extra)
            params = optax.apply_updates(params, updates)
            total = sum(losses.values())
            best = jax.tree.map(
                lambda new, old: jnp.where(total < smallest, new, old), params, best
            )
            return params, state, (jnp.minimum(total, smallest), best), traces

        if contestant.traces:
            params, *rest, traces = carry

            def estimated() -> Array:
                found = ntk_traces(lambda p: residuals(p, points_of(begin)), params, key)
                return jnp.stack(jax.tree.leaves(found.traces))

            carry = params, *rest, jax.lax.cond(begin % 1000 == 0, estimated, lambda: traces)
        carry = jax.lax.fori_loop(0, block, one_step, carry)
        return carry, error_of(carry[0])

    def error_of(params: PyTree) -> Array:
        return problem.metrics(params, problem.test)["residual"]  # type: ignore[misc]

    def run_all(rate: Array, keys: Array, carry: PyTree, begin: Array) -> Any:
        def of_seed(given: tuple[Array, PyTree]) -> Any:
            return some_steps(rate, *given, begin)

        return for_each(of_seed, (keys, carry))

    begun = jax.jit(jax.vmap(start, (None, 0)))
    run = jax.jit(run_all, donate_argnums=2)
    errors_of = jax.jit(jax.vmap(error_of))

    def train(
        rate: float, seeds: int, steps: int, advance: Callable[[int], None]
    ) -> dict[str, Any]:
        keys, speed = jax.random.split(jax.random.key(0), seeds), jnp.float32(rate)
        carry, errors = begun(speed, keys), []
        for begin in range(0, steps, block):
            carry, error = run(speed, keys, carry, jnp.int32(begin))
            errors.append(np.asarray(error, np.float64))
            advance(block * seeds)
        shown = np.unique(np.linspace(0, len(errors) - 1, POINTS_OF_CURVE).astype(int))
        measured = np.stack(errors)
        return {
            "at_smallest_loss": as_json(errors_of(carry[2][1])),
            "at_last": as_json(measured[-1]),
            "smallest": as_json(measured.min(axis=0)),
            "of_curve": [int(block * (i + 1)) for i in shown],
            "curve": [as_json(measured[i], 4) for i in shown],
        }

    return train
