"""What a training step sends between 4 TPUs, 16 H100s or 256 TPUs, beside a plain step with Adam.

``python -m tests.targets.collectives v5e fsdp`` prints one line of JSON: the programs of a plain
step and of ``value_and_balanced_grad`` by its routes; activations and parameters are pinned, as the
page on many devices advises.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxmtl
from tests.targets.machines import compiled, gpus, in_environment, tpus
from tests.targets.programs import Program, read

NUM_TASKS, WIDTH, LAYERS, OUTPUTS, EXAMPLES = 8, 1024, 3, 16, 128  # examples on a device
# The devices, and how many of them share a layer where tensors are parallel.
MACHINES: dict[str, tuple[Callable[[], list[Any]], int]] = {
    "v5e": (lambda: tpus("v5e:2x2"), 2),
    "h100": (lambda: gpus(16), 4),
    "v5p": (lambda: tpus("v5p:4x4x16"), 8),
}
# Where the axes of a layer's weights, by turns, of its biases and of a head lie.
LAYOUTS: dict[str, tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], tuple[Any, ...]]] = {
    "data": ([(), ()], [(), ()], ()),
    "fsdp": ([("data",), ("data",)], [(), ()], ("data",)),
    "fsdp_tensor": ([("data", "model"), ("model", "data")], [("model",), ()], ("data",)),
}
BALANCERS = {
    "stacked": lambda: jaxmtl.upgrad(num_tasks=NUM_TASKS),
    "lean": lambda: jaxmtl.upgrad(num_tasks=NUM_TASKS),
    "every 10": lambda: jaxmtl.every(jaxmtl.upgrad(num_tasks=NUM_TASKS), 10),
    "losses only": lambda: jaxmtl.real_time_loss(num_tasks=NUM_TASKS),
}


class Place:
    """A mesh, and parameters and losses laid out on it."""

    def __init__(self, machine: str, layout: str) -> None:
        devices, tensor = MACHINES[machine][0](), MACHINES[machine][1]
        shape, names = (len(devices),), ("data",)
        if layout == "fsdp_tensor":
            shape, names = (len(devices) // tensor, tensor), ("data", "model")
        self.mesh = Mesh(np.array(devices).reshape(shape), names)
        weights, biases, head = LAYOUTS[layout]
        self.params = {
            "trunk": [
                {
                    "w": self.shape(*weights[i % 2], sizes=(WIDTH, WIDTH)),
                    "b": self.shape(*biases[i % 2], sizes=(WIDTH,)),
                }
                for i in range(LAYERS)
            ],
            "heads": [self.shape(*head, sizes=(WIDTH, OUTPUTS)) for _ in range(NUM_TASKS)],
        }
        self.batch = self.shape("data", sizes=(EXAMPLES * self.mesh.shape["data"], WIDTH))
        self.pins = [self.at("data", *bias) for bias in biases]

    def at(self, *axes: Any) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def shape(self, *axes: Any, sizes: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=self.at(*axes))

    def losses_fn(self, params: Any, x: jax.Array) -> list[jax.Array]:
        pin = jax.lax.with_sharding_constraint
        params = pin(params, jax.tree.map(lambda leaf: leaf.sharding, self.params))
        for i, layer in enumerate(params["trunk"]):
            x = pin(jnp.tanh(x @ layer["w"] + layer["b"][None]), self.pins[i % 2])
        return [jnp.mean((x @ head - 1) ** 2) for head in params["heads"]]

    def like_params(self, state: Any) -> Any:
        """A state of the optimizer's: what has the shape of a parameter lies where that lies."""
        leaves = jax.tree.leaves_with_path(self.params)
        known = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}

        def place(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
            name = jax.tree_util.keystr(path)
            found = [p.sharding for end, p in known.items() if name.endswith(end)]
            where = found[0] if found else self.at()
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

        return jax.tree_util.tree_map_with_path(place, state)


def program_of(place: Place, route: str) -> Program:
    """A step with Adam by one route."""
    adam = optax.adam(1e-3)
    if route == "plain":
        balancer_state: Any = ()

        def grad_fn(state: Any, params: Any, x: jax.Array) -> Any:
            return jax.grad(lambda p: sum(place.losses_fn(p, x)) / NUM_TASKS)(params), state
    else:
        balancer = BALANCERS[route]()
        memory = "lean" if route == "lean" else "stacked"
        balanced = jaxmtl.value_and_balanced_grad(place.losses_fn, balancer, memory=memory)
        balancer_state = place.like_params(jax.eval_shape(balancer.init, place.params))

        def grad_fn(state: Any, params: Any, x: jax.Array) -> Any:
            return balanced(state, params, x)[1:]

    def step(params: Any, states: Any, x: jax.Array) -> Any:
        grads, state = grad_fn(states[0], params, x)
        updates, opt_state = adam.update(grads, states[1], params)
        return optax.apply_updates(params, updates), (state, opt_state)

    opt_state = place.like_params(jax.eval_shape(adam.init, place.params))
    kept = place.params, (balancer_state, opt_state)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, kept)
    options = {"donate_argnums": (0, 1), "out_shardings": shardings}
    return read(compiled(step, *kept, place.batch, **options))


def programs(machine: str, layout: str, *routes: str) -> dict[str, Program]:
    """The programs by route; all if none is named."""
    place = Place(machine, layout)
    return {route: program_of(place, route) for route in routes or ("plain", *BALANCERS)}


def main() -> None:
    """Print the programs' numbers as JSON."""
    in_environment()
    machine, layout, *routes = sys.argv[1:]
    found = programs(machine, layout, *routes)
    print(json.dumps({route: program._asdict() for route, program in found.items()}))


if __name__ == "__main__":
    main()
