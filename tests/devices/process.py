"""One of two processes that train together: ``python -m tests.devices.process 0 port file``."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import jaxmtl
from tests.devices import problem


def main():
    process, port, out = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    jaxmtl.use_safe_cpu_compiler()
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    replicated, by_batch = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))

    def put(tree, sharding):
        def of_leaf(leaf):
            return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

        return jax.tree.map(of_leaf, tree)

    params, batch = put(problem.params(), replicated), put(problem.batch(), by_batch)
    optimizer, step = problem.make_training(problem.make_losses_fn())
    opt_state = jax.jit(optimizer.init, out_shardings=replicated)(params)
    step, history = jax.jit(step, out_shardings=replicated), []
    for _ in range(problem.STEPS):
        params, opt_state, losses = step(params, opt_state, batch)
        history.append(np.asarray(losses).tolist())
    results = {
        "devices": jax.device_count(),
        "local_devices": jax.local_device_count(),
        "params": problem.as_lists(params),
        "losses": history,
    }
    unfinished = out.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(results))
    unfinished.rename(out)


if __name__ == "__main__":
    main()
