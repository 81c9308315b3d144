"""Steps inside ``shard_map`` on eight devices, as JSON: ``python -m tests.devices.manual``."""

import json
import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

import jaxmtl

NUM_TASKS = 3
WEIGHTS = np.random.default_rng(0).normal(size=(4, NUM_TASKS)).astype(np.float32)
EXAMPLES = np.random.default_rng(1).normal(size=(32, 4)).astype(np.float32)
TARGETS = np.array([1, -1, 0.5], np.float32)
# jax 0.8 cannot map what is summed over devices: jax.jacrev fails with the same words.
MAPS_SUMS = jax.__version_info__ >= (0, 9)
OF_LOSSES = ("array", "dict")


def exact():
    """Losses and gradients in float64, (T,) and (T, 4, T)."""
    w, x = WEIGHTS.astype(np.float64), EXAMPLES.astype(np.float64)
    errors = np.tanh(x @ w) - TARGETS
    slopes = 2 * x.T @ (errors * (1 - np.tanh(x @ w) ** 2)) / len(x)
    return np.mean(errors**2, axis=0), np.stack([slopes * row for row in np.eye(NUM_TASKS)])


def losses_of(kind):
    def as_array(w, x):
        return jnp.mean((jnp.tanh(x @ w) - TARGETS[None]) ** 2, axis=0)

    def as_dict(w, x):
        errors = (jnp.tanh(x @ w[:, t]) - TARGETS[t] for t in range(NUM_TASKS))
        return {f"loss {t}": jnp.mean(error**2) for t, error in enumerate(errors)}

    return as_array if kind == "array" else as_dict


def over_devices(losses_fn):
    return lambda w, x: jax.lax.pmean(losses_fn(w, x), "data")


def inside(step, check_vma):
    """Run a step of (w, x) on eight devices that share w, or say why it cannot be."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    every, shared = PartitionSpec("data"), PartitionSpec()
    specs = {"in_specs": (shared, every), "out_specs": (every, every), "check_vma": check_vma}

    def stacked(w, x):  # what each device has, one below the other
        return jax.tree.map(lambda leaf: leaf[None], step(w, x))

    try:
        found = jax.jit(jax.shard_map(stacked, mesh=mesh, **specs))(WEIGHTS, EXAMPLES)
    except (TypeError, ValueError) as error:
        return str(error)
    losses, grads = found
    return {
        "losses": jnp.stack(jax.tree.leaves(losses)).reshape(NUM_TASKS, 8).T.tolist()
        if isinstance(losses, dict)
        else losses.tolist(),
        "grads": grads.tolist(),
    }


def task_grads(kind, check_vma, **options):
    """Gradients of losses that are means over all examples."""

    def step(w, x):
        losses, grads = jaxmtl.value_and_task_grads(over_devices(losses_of(kind)), **options)(w, x)
        return losses, grads if check_vma else jax.lax.pmean(grads, "data")

    return inside(step, check_vma)


def own_task_grads(kind):
    """Gradients of the devices' own losses, which are summed over the devices."""
    return inside(jaxmtl.value_and_task_grads(losses_of(kind)), check_vma=True)


def balanced(kind, check_vma, name="mgda", **options):
    balancer = jaxmtl.methods.make(name, NUM_TASKS)
    route = jaxmtl.value_and_balanced_grad(over_devices(losses_of(kind)), balancer, **options)
    return inside(lambda w, x: route(balancer.init(w), w, x)[:2], check_vma)


def steps_of_the_page():
    """How parameters move in the steps of the page on devices: inside shard_map, and under jit."""
    page = Path(__file__).parents[2] / "notebooks" / "guides" / "many_devices.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["mesh"].size == 8
    moved = [names["new_params"], names["same_params"]]
    moved = [jax.tree.map(jnp.subtract, params, names["params"]) for params in moved]
    return [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(m)]).tolist() for m in moved]


def main():
    jaxmtl.use_safe_cpu_compiler()
    warnings.simplefilter("error")
    results = {"page": steps_of_the_page()} if MAPS_SUMS else {}
    for kind in OF_LOSSES:
        results[kind] = {
            "checked": task_grads(kind, True),
            "checked, one by one": task_grads(kind, True, chunk_size=1),
            "unchecked, means": task_grads(kind, False),
            "own": own_task_grads(kind),
            "lean": balanced(kind, True, memory="lean"),
            "stacked": balanced(kind, True),
            "stacked, one by one": balanced(kind, True, chunk_size=1),
            "unchecked, stacked": balanced(kind, False),
            "unchecked, lean": balanced(kind, False, memory="lean"),
            "unchecked, losses only": balanced(kind, False, name="real_time_loss"),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
