"""What a step costs an H100 between the Gramian (or the losses) and the weights, by method.

``python -m tests.targets.weights 8 mgda upgrad`` prints one line of JSON; all methods if none is
named.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp

from jaxmtl.balancing._base import Balancer, BalancerState, Given
from jaxmtl.balancing._state import init_state
from jaxmtl.balancing._step import take_step
from jaxmtl.methods import METHODS, make
from tests.targets.machines import compiled, gpus, in_environment, on_one
from tests.targets.programs import Program, read


def program_of(balancer: Balancer, num_tasks: int, device: object) -> Program:
    """The T-sized part of a step, compiled for a device: the checks and the state included."""
    weighting = balancer.weighting
    vector = jax.ShapeDtypeStruct((num_tasks,), jnp.float32)
    square = jax.ShapeDtypeStruct((num_tasks, num_tasks), jnp.float32)
    arrays = dict.fromkeys(("losses", *sorted(weighting.extra)), vector)
    squares = {name: square for name in ("gramian", "cross_gramian") if name in weighting.reads}
    active = jax.ShapeDtypeStruct((num_tasks,), bool)
    state = jax.eval_shape(lambda: init_state(balancer, jnp.float32))

    def step(
        arrays: dict[str, jax.Array],
        squares: dict[str, jax.Array],
        active: jax.Array,
        state: BalancerState,
    ) -> tuple[list[jax.Array], BalancerState]:
        losses = arrays["losses"]
        extra = {name: arrays[name] for name in weighting.extra}
        finite = jnp.ones(num_tasks, bool)
        given = Given(losses, None, active, extra=extra, finite_losses=finite)
        return take_step(
            balancer,
            given,
            state,
            jnp.float32,
            measure=lambda given: given._replace(**squares),
            combine=lambda weights, plain: ([weights], []),
            preparation=(),
        )

    return read(compiled(step, *on_one(device, (arrays, squares, active, state))))


def programs(num_tasks: int, *names: str) -> dict[str, Program]:
    """The programs of methods, by name."""
    (device,) = gpus()
    found = {}
    for name in names or METHODS:
        start = time.monotonic()
        found[name] = program_of(make(name, num_tasks), num_tasks, device)
        print(f"{name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    return found


def main() -> None:
    """Print the programs' numbers as JSON."""
    in_environment()
    found = programs(int(sys.argv[1]), *sys.argv[2:])
    print(json.dumps({name: program._asdict() for name, program in found.items()}))


if __name__ == "__main__":
    main()
