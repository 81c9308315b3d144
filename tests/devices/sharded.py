"""Updates and training on one device, or sharded over eight, as one line of JSON.

``python -m tests.devices.sharded alone``, or ``auto`` or ``explicit``, the type of the mesh. The
number of devices is fixed when JAX starts, so ``test_many_devices`` runs it in its own process.
"""

import json
import math
import re
import sys

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmtl
from tests.devices import problem

COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast"
    r"|ragged-all-to-all|reduce-scatter|send|recv)(?:-start)?\("
)
RESHAPE = re.compile(r":\w+\[([^\]]*)\][^=\n]*= reshape\[")


def shard_first(shape, axis, size):
    """Shard the first axis that the devices divide."""
    dims = [axis if n % size == 0 else None for n in shape]
    return [dim if axis not in dims[:i] else None for i, dim in enumerate(dims)]


def shard_last(shape, axis, size, taken=None):
    """Shard the last axis, if it is neither the first nor taken and the devices divide it."""
    dims = list(taken or [None] * len(shape))
    if len(shape) > 1 and dims[-1] is None and shape[-1] % size == 0:
        dims[-1] = axis
    return dims


# The mesh, the axis of it that shards the batch, and those that shard a parameter.
LAYOUTS = {
    "data": ({"data": 8}, "data", lambda shape: [None] * len(shape)),
    "fsdp": ({"data": 8}, "data", lambda shape: shard_first(shape, "data", 8)),
    "tensor": ({"model": 8}, None, lambda shape: shard_last(shape, "model", 8)),
    "fsdp_tensor": (
        {"data": 4, "model": 2},
        "data",
        lambda shape: shard_last(shape, "model", 2, shard_first(shape, "data", 4)),
    ),
}
SHARDED = ("fsdp", "tensor", "fsdp_tensor")
ONCE = ("mgda", "uncertainty")


class Alone:
    """One device."""

    losses_fn = staticmethod(problem.make_losses_fn())

    def put(self, tree, leading=0):
        del leading
        return jax.tree.map(jnp.asarray, tree)

    put_batch = put

    def moved(self, tree, leading=0):
        del tree, leading
        return []


class Sharded:
    """Parameters and batch over eight devices."""

    def __init__(self, layout, explicit):
        sizes, self.batch_axis, self.dims_of = LAYOUTS[layout]
        types = (AxisType.Explicit if explicit else AxisType.Auto,) * len(sizes)
        self.mesh = jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types)
        self.losses_fn = problem.make_losses_fn()
        if explicit:
            self.losses_fn = problem.make_losses_fn(self._dense, self._gather)

    def put(self, tree, leading=0):
        """Lay out a tree of parameters, or of arrays with further axes before theirs."""
        return jax.tree.map(lambda x: jax.device_put(x, self._sharding(x.shape, leading)), tree)

    def put_batch(self, tree):
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec(self.batch_axis)))

    def moved(self, tree, leading=0):
        """The leaves that do not lie where ``put`` would have put them."""
        return [
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, leaf in jax.tree.leaves_with_path(tree)
            if not leaf.sharding.is_equivalent_to(self._sharding(leaf.shape, leading), leaf.ndim)
        ]

    def pinned(self, x, w):
        """A product whose result stays on the batch's devices, whatever the compiler likes."""
        return jax.lax.with_sharding_constraint(x @ w, PartitionSpec(self.batch_axis))

    def _sharding(self, shape, leading):
        dims = [None] * leading + self.dims_of(shape[leading:])
        return NamedSharding(self.mesh, PartitionSpec(*dims))

    def _dense(self, x, w):
        return jnp.einsum("bi,io->bo", x, w, out_sharding=PartitionSpec(self.batch_axis))

    def _gather(self, params):
        def gather(leaf):
            dims = [None if dim == self.batch_axis else dim for dim in self.dims_of(leaf.shape)]
            return jax.sharding.reshard(leaf, PartitionSpec(*dims))

        return jax.tree.map(gather, params)


def collectives(compiled):
    """Kind and shapes, without layouts, of every collective in a compiled function."""
    found = COLLECTIVE.findall(compiled.as_text())
    return [[kind, re.findall(r"\w+\[[\d,]*\]", shapes)] for shapes, kind in found]


def moved_numbers(compiled):
    """How many floats each kind of collective has to do with."""
    numbers = {}
    for kind, shapes in collectives(compiled):
        dims = [re.search(r"\[(.*)\]", shape)[1] for shape in shapes if shape.startswith("f32")]
        sizes = [math.prod(int(n) for n in d.split(",") if n) for d in dims]
        numbers[kind] = numbers.get(kind, 0) + sum(sizes)
    return numbers


def largest_reshape(traced):
    """The size of the largest array that a traced function reshapes, at any depth."""
    shapes = RESHAPE.findall(str(traced.jaxpr))
    return max((math.prod(map(int, re.findall(r"\b\d+\b", s))) for s in shapes), default=0)


def update_all(place):
    """Some updates of every method, in one compiled scan."""
    balancers = {name: problem.make(name) for name in problem.UPDATED}
    params, losses = place.put(problem.params()), jnp.array(problem.LOSSES)
    states = {name: balancer.init(params) for name, balancer in balancers.items()}
    failed = {}

    def step(states, grads):
        new, results = dict(states), {}
        for name, balancer in balancers.items():
            try:
                update, new[name] = balancer.update(grads, states[name], losses=losses)
            except Exception as error:  # that method's failure alone
                failed[name] = repr(error)
            else:
                results[name] = update, new[name].task_weights
        return new, results

    grads = place.put(problem.stacked_grads(), leading=2)
    traced = jax.jit(lambda states, grads: jax.lax.scan(step, states, grads)).trace(states, grads)
    compiled = traced.lower().compile()
    last, results = compiled(states, grads)
    tracked = {"first": states, "last": last}
    return {
        "failed": failed,
        "updates": {name: problem.as_lists(update) for name, (update, _) in results.items()},
        "weights": {name: weights.tolist() for name, (_, weights) in results.items()},
        "moved": {name: place.moved(update, leading=1) for name, (update, _) in results.items()},
        "moved_averages": {
            when: place.moved(of["moco"].preparation.average, leading=1)
            for when, of in tracked.items()
        },
        "collectives": collectives(compiled),
        "largest_reshape": largest_reshape(traced),
    }


def update_once(place, name):
    """What one update of one method communicates."""
    balancer, losses = problem.make(name), jnp.array(problem.LOSSES)
    state = balancer.init(place.put(problem.params()))
    grads = place.put(jax.tree.map(lambda leaf: leaf[0], problem.stacked_grads()), leading=1)
    update = jax.jit(lambda grads, state: balancer.update(grads, state, losses=losses))
    return collectives(update.lower(grads, state).compile())


def train(place):
    """Some steps of a network, in one compiled scan."""
    params, batch = place.put(problem.params()), place.put_batch(problem.batch())
    optimizer, step = problem.make_training(place.losses_fn)

    @jax.jit
    def run(params, opt_state, batch):
        def scanned(carry, _):
            *carry, losses = step(*carry, batch)
            return tuple(carry), losses

        (params, _), losses = jax.lax.scan(scanned, (params, opt_state), length=problem.STEPS)
        return params, losses

    params, losses = run(params, optimizer.init(params), batch)
    return {"params": problem.as_lists(params), "losses": losses.tolist()}


def communication(place):
    """What all gradients communicate, and what one backward pass for a loss-only method does."""
    params, batch = place.put(problem.params()), place.put_batch(problem.batch())
    losses_fn = problem.make_losses_fn(place.pinned)
    balancer = problem.make("uncertainty")
    stacked = jax.jit(jaxmtl.value_and_task_grads(losses_fn))
    single = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
    return {
        "stacked": moved_numbers(stacked.lower(params, batch).compile()),
        "single": moved_numbers(single.lower(balancer.init(params), params, batch).compile()),
    }


def main():
    kind = sys.argv[1]
    jaxmtl.use_safe_cpu_compiler()
    results = {}
    for layout in ["alone"] if kind == "alone" else LAYOUTS:
        place = Alone() if kind == "alone" else Sharded(layout, kind == "explicit")
        if kind != "alone":
            jax.set_mesh(place.mesh)
        of_layout = {"all": update_all(place), "training": train(place)}
        if layout in SHARDED:
            of_layout["once"] = {name: update_once(place, name) for name in ONCE}
        if kind == "auto" and layout in ("data", "fsdp"):
            of_layout["communication"] = communication(place)
        results[layout] = of_layout
    print(json.dumps(results))


if __name__ == "__main__":
    main()
