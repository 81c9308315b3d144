"""What a whole training step costs an H100, by method, beside a plain step with Adam.

``python -m tests.targets.steps mgda upgrad`` prints one line of JSON: the programs of a plain step,
of one with T backward passes and their mean, and of the methods; all if none is named.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxmtl
from jaxmtl.methods import METHODS, make
from tests.targets.machines import compiled, gpus, in_environment, on_one
from tests.targets.programs import Program, read

NUM_TASKS, WIDTH, LAYERS, BATCH = 8, 512, 4, 256


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def parameters() -> Any:
    """A trunk of four layers and a head for each of eight tasks: 16 leaves."""
    layer = {"w": shape(WIDTH, WIDTH), "b": shape(WIDTH)}
    heads = {f"task {t}": shape(WIDTH) for t in range(NUM_TASKS)}
    return {"trunk": [layer] * LAYERS, "heads": heads}


def losses_fn(params: Any, x: jax.Array) -> dict[str, jax.Array]:
    for layer in params["trunk"]:
        x = jnp.tanh(x @ layer["w"] + layer["b"][None])
    return {task: jnp.mean((x @ w - 1) ** 2) for task, w in params["heads"].items()}


def plain_grad(params: Any, x: jax.Array) -> Any:
    return jax.grad(lambda p: sum(losses_fn(p, x).values()) / NUM_TASKS)(params)


def mean_of_task_grads(params: Any, x: jax.Array) -> Any:
    _, grads = jaxmtl.value_and_task_grads(losses_fn)(params, x)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), grads)


def program_of(optimizer: Any, grad_fn: Callable[..., Any], device: object) -> Program:
    """A step with Adam; ``grad_fn`` makes what the optimizer takes, and what it takes besides."""
    params = parameters()

    def step(params: Any, opt_state: Any, x: jax.Array) -> Any:
        grads, extra = grad_fn(params, x)
        updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
        return optax.apply_updates(params, updates), opt_state

    shapes = params, jax.eval_shape(optimizer.init, params), shape(BATCH, WIDTH)
    return read(compiled(step, *on_one(device, shapes), donate_argnums=(0, 1)))


def programs(*names: str) -> dict[str, Program]:
    """The programs by name; "plain" and "T backward" come first."""
    (device,), adam = gpus(), optax.adam(1e-3)
    found = {
        "plain": program_of(adam, lambda *args: (plain_grad(*args), {}), device),
        "T backward": program_of(adam, lambda *args: (mean_of_task_grads(*args), {}), device),
    }
    for name in names or METHODS:
        balancer = make(name, NUM_TASKS)

        def grad_fn(params: Any, x: jax.Array, weighting: Any = balancer.weighting) -> Any:
            losses, grads = jaxmtl.value_and_task_grads(losses_fn)(params, x)
            extra = {name: jnp.ones(NUM_TASKS) for name in weighting.extra}
            if "cross_gramian" in weighting.reads:  # the same batch thrice, for what comes after
                extra["independent_grads"] = grads, grads
            return grads, extra | {"losses": losses}

        found[name] = program_of(optax.chain(balancer, adam), grad_fn, device)
    return found


def main() -> None:
    """Print the programs' numbers as JSON."""
    in_environment()
    found = programs(*sys.argv[1:])
    print(json.dumps({name: program._asdict() for name, program in found.items()}))


if __name__ == "__main__":
    main()
