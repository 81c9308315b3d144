"""What ``jax.shard_map`` needs for gradients: types that say what varies, and sums over devices.

If it checks (``check_vma=True``, its default), the type of an array says whether it varies from
device to device, and JAX sums the gradient of what all devices share over them. If it does not
check, each device has a gradient of its own.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxmtl._typing import PyTree
from jaxmtl.backward._programs import operations, read_program, rewritten_or_plain


def vary_like(array: Any, like: Any) -> Any:
    """The same numbers, in a type that varies over the same devices as that of ``like``."""
    missing = _varying(like) - _varying(jax.typeof(array))
    return jax.lax.pcast(array, tuple(missing), to="varying") if missing else array


def _varying(kind: Any) -> frozenset[str]:
    """The axes along which an array of this type varies."""
    if hasattr(kind, "manual_axis_type"):
        return kind.manual_axis_type.varying
    return getattr(kind, "vma", frozenset())  # up to jax 0.9


def check_summed(pull_back: Callable[[PyTree], PyTree], losses: PyTree) -> None:
    """Raise if losses are means over devices, but the gradients are each device's own."""
    unchecked = {
        axis
        for axis in jax.sharding.get_abstract_mesh().manual_axes
        if axis not in _varying(jax.typeof(jax.lax.axis_index(axis)))
    }

    def are_means() -> bool:
        program, _, _ = read_program(pull_back, losses)
        sums = [eqn for eqn in operations(program) if eqn.primitive.name == "psum"]
        return any(unchecked & set(eqn.params["axes"]) for eqn in sums)

    if unchecked and rewritten_or_plain(are_means, lambda: False):
        raise ValueError(
            "Inside shard_map with check_vma=False (and pmap), each device has its own gradient of"
            " losses that are means over the devices, and would compute its own weights from it."
            " Leave check_vma at True, or average the stacked gradients:"
            " grads = jax.lax.pmean(grads, axis) between value_and_task_grads and"
            " balancer.update."
        )
