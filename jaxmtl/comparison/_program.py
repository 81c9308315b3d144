"""The program that trains a network for some steps: balanced gradient, optimizer, records."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmtl._task_values import task_vector
from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._routes import value_and_balanced_grad
from jaxmtl.balancing._base import Balancer
from jaxmtl.combinators._shared import on_shared
from jaxmtl.comparison._batches import Batches
from jaxmtl.comparison._completed import Completed
from jaxmtl.comparison._contestants import constant_weights


def training(
    completed: Completed, batches: Batches, steps: int, make: Callable[[Array, Array], Balancer]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Write the training of one seed as two functions.

    Args:
      completed: the problem.
      batches: the batches of the training.
      steps: the number of steps of the whole training, over which the learning rate decays.
      make: ``(constants, key) -> Balancer``.

    Returns:
      ``start(constants, rate, key, params)``, the states of balancer and optimizer; and
      ``run(constants, rate, key, carry, chosen, begin, length, data) -> (carry, records)``, the
      first ``length`` steps of a chunk whose first step is number ``begin``. A carry holds
      parameters, the network's state, and those two; the records are losses and task weights,
      (chunk, T).
    """
    problem = completed.problem
    tasks = len(problem.tasks or ())

    def balancer_of(constants: Array, key: Array) -> Balancer:
        return on_shared(make(constants, key), completed.shared, heads="own")

    def optimizer_of(rate: Array) -> optax.GradientTransformation:
        if isinstance(problem.optimizer, optax.GradientTransformation):
            return problem.optimizer
        return problem.optimizer(optax.cosine_decay_schedule(rate, steps))

    def losses_fn(*arguments: Any) -> Any:
        losses, state = completed.losses(*arguments)
        # Constants are given by position, in the sorted order that dicts have here.
        return (jax.tree.map(lambda x: x, losses) if make is constant_weights else losses), state

    def start(constants: Array, rate: Array, key: Array, params: PyTree) -> PyTree:
        return balancer_of(constants, key).init(params), optimizer_of(rate).init(params)

    def run(
        constants: Array,
        rate: Array,
        key: Array,
        carry: PyTree,
        chosen: PyTree,
        begin: Array,
        length: Array,
        data: PyTree,
    ) -> Any:
        balanced_grad = value_and_balanced_grad(
            losses_fn, balancer_of(constants, key), has_aux=True
        )
        optimizer = optimizer_of(rate)

        def step(number: Array, carry: Any) -> Any:
            (params, state, (balancer_state, opt_state)), records = carry
            batch = batches.pick(jax.tree.map(lambda x: x[number], chosen), data)
            active = None if problem.active is None else problem.active(batch)
            (losses, state), grad, balancer_state = balanced_grad(
                balancer_state,
                params,
                state,
                batch,
                jax.random.fold_in(key, begin + number),
                active=active,
            )
            updates, opt_state = optimizer.update(grad, opt_state, params)
            params = optax.apply_updates(params, updates)
            found = task_vector("losses", losses), balancer_state.task_weights
            records = [record.at[number].set(x) for record, x in zip(records, found, strict=True)]
            return (params, state, (balancer_state, opt_state)), records

        # A loop of any length, so that one program serves every chunk.
        records = [jnp.zeros((batches.chunk, tasks), jnp.float32) for _ in range(2)]
        return jax.lax.fori_loop(0, length, step, (carry, records))

    return start, run
