"""The one place where a program's target decides about its code.

What a program is lowered for is known when it is lowered, and not before: ahead of time, exported,
or placed by its arguments, it need not be for the machine on which it is written.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType

from jaxmtl._typing import Array


def by_target(*args: Any, default: Callable[..., Any], **ways: Callable[..., Any]) -> Any:
    """What the way for the target makes of arrays: ``by_target(x, cpu=f, default=g)``.

    All ways are traced, and must return the like. The program lowered for one platform holds only
    its own, as a choice of one from one, of which XLA leaves nothing.
    """
    return lax.platform_dependent(*args, default=default, **ways)


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
