"""Code that depends on a program's target platform.

The target of a program is known when it is lowered, and not before: if the program is compiled
ahead of time, exported, or placed by its arguments, it need not be this machine.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType

from jaxmtl._typing import Array, PyTree


def by_target(*args: Any, default: Callable[..., Any], **ways: Callable[..., Any]) -> Any:
    """Apply the function for the target to arrays: ``by_target(x, cpu=f, default=g)``.

    All functions are traced, and must return the same types. A program lowered for one platform
    holds only its own function, as a choice of one from one, which XLA removes.
    """
    return lax.platform_dependent(*args, default=default, **ways)


def barrier(*arrays: Array, targets: Sequence[str]) -> tuple[Array, ...]:
    """The same arrays; programs for these targets compute them as one step, before later steps."""
    if not any(isinstance(array, jax.core.Tracer) for array in arrays):
        return arrays
    ways = dict.fromkeys(targets, lambda *arrays: lax.optimization_barrier(arrays))
    return by_target(*arrays, default=lambda *arrays: arrays, **ways)


def made_once(tree: PyTree) -> PyTree:
    """The same arrays; a GPU computes the large ones once for all operations that read them.

    XLA would compute gradients again for each reader, from a product in another layout: a launch
    each time, and memory for its inputs until the last reader has finished. Small arrays are
    written together.
    """

    def once(leaf: Array) -> Array:
        is_large = leaf.size > 2**16 * len(leaf)
        return barrier(leaf, targets=("cuda", "rocm"))[0] if is_large else leaf

    return jax.tree.map(once, tree)


def may_be_sharded(arrays: Sequence[Array]) -> bool:
    """Whether arrays may be sharded, according to their types and the mesh of the context.

    Arguments of ``jit`` with a ``NamedSharding`` have its mesh, and so do the arrays computed from
    them; inside ``shard_map`` each device has arrays of its own. Not visible are shardings that
    only ``jit(..., in_shardings=...)`` gives, to arrays that have none.
    """
    meshes = [jax.typeof(array).sharding.mesh for array in arrays]
    return any(
        size > 1 and kind != AxisType.Manual
        for mesh in (*meshes, jax.sharding.get_abstract_mesh())
        for size, kind in zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    )
