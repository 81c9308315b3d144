"""Solvers in programs for sixteen H100s, as one line of JSON: under jit, and under shard_map."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmtl.solvers import dual_cone, min_norm
from tests.targets.machines import compiled, gpus, in_environment
from tests.targets.programs import read


def combined(stack: jax.Array, gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A point found in one launch or two, and one of a problem for each task."""
    projected = dual_cone(gram, jnp.eye(len(gram))).z
    return min_norm(gram).weights @ stack, jnp.sum(projected, axis=0) @ stack


def main() -> None:
    """Stacked gradients spread over the devices by their columns."""
    in_environment()
    mesh, spec = Mesh(np.array(gpus(16)), ("data",)), PartitionSpec(None, "data")

    def gram(stack: jax.Array) -> jax.Array:
        return jnp.matmul(stack, stack.T, precision="highest")

    ways = {
        "jit": lambda j: combined(j, gram(j)),
        "shard_map": jax.shard_map(
            lambda j: combined(j, jax.lax.psum(gram(j), "data")),
            mesh=mesh,
            in_specs=spec,
            out_specs=PartitionSpec("data"),
        ),
    }
    shape = jax.ShapeDtypeStruct((8, 1600), jnp.float32, sharding=NamedSharding(mesh, spec))
    print(json.dumps({way: read(compiled(f, shape))._asdict() for way, f in ways.items()}))


if __name__ == "__main__":
    main()
