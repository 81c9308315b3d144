"""The one place where a program's target decides about its code.

What a program is lowered for is known when it is lowered, and not before: ahead of time, exported,
or placed by its arguments, it need not be for the machine on which it is written.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType

from jaxmtl._typing import Array, PyTree


def by_target(*args: Any, default: Callable[..., Any], **ways: Callable[..., Any]) -> Any:
    """What the way for the target makes of arrays: ``by_target(x, cpu=f, default=g)``.

    All ways are traced, and must return the like. The program lowered for one platform holds only
    its own, as a choice of one from one, of which XLA leaves nothing.
    """
    return lax.platform_dependent(*args, default=default, **ways)


def barrier(*arrays: Array, targets: Sequence[str]) -> tuple[Array, ...]:
    """The same arrays; programs for these targets compute them as one step, before what follows."""
    if not any(isinstance(array, jax.core.Tracer) for array in arrays):
        return arrays
    ways = dict.fromkeys(targets, lambda *arrays: lax.optimization_barrier(arrays))
    return by_target(*arrays, default=lambda *arrays: arrays, **ways)


def made_once(tree: PyTree) -> PyTree:
    """The same arrays, of which a GPU makes the large ones once for all that read them.

    XLA would make gradients anew for each reader, from a product that is laid out in another way:
    a launch each time, and memory for what they are made from until the last has read them. Small
    ones are written together.
    """

    def once(leaf: Array) -> Array:
        is_large = leaf.size > 2**16 * len(leaf)
        return barrier(leaf, targets=("cuda", "rocm"))[0] if is_large else leaf

    return jax.tree.map(once, tree)


def may_be_sharded(arrays: Sequence[Array]) -> bool:
    """Whether arrays may be spread over devices, as their types and the mesh of the context tell.

    Arguments of ``jit`` with a ``NamedSharding`` bear its mesh, and so does what is computed from
    them; inside ``shard_map`` each device has arrays of its own. What cannot be seen: shardings
    that only ``jit(..., in_shardings=...)`` gives, to arrays that have none.
    """
    meshes = [jax.typeof(array).sharding.mesh for array in arrays]
    return any(
        size > 1 and kind != AxisType.Manual
        for mesh in (*meshes, jax.sharding.get_abstract_mesh())
        for size, kind in zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    )
