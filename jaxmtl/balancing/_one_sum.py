"""Sums over leaves on many devices, with one exchange for all leaves if their types allow it."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from jaxmtl._typing import Array


def add_up(
    part: Callable[..., Array], *stacks: Sequence[Array], otherwise: Callable[[], Array]
) -> Array:
    """Add up a function of each leaf, or of each pair of leaves with the same sharding.

    On a mesh whose axes are all ``Explicit``, each device adds up the results of its own shards,
    and the devices exchange one sum over all axes in use. Of copies along an axis, only the first
    counts.

    Args:
      part: the function of a leaf; it must be the sum of its values at the leaf's shards.
      *stacks: leaves, or several lists of them.
      otherwise: makes the sum if no leaf is sharded, or the types do not say how it is sharded.
    """
    leaves = list(zip(*stacks, strict=True))
    mesh, specs = _lying(leaves)
    spread = [set(_axes(spec)) for spec in specs]
    axes = [axis for axis in mesh.axis_names if any(axis in along for along in spread)]
    if not axes:
        return otherwise()

    def of_own(leaves: list[tuple[Array, ...]]) -> Array:
        parts = []
        for own, along in zip(leaves, spread, strict=True):
            counts = jnp.asarray(True)
            for axis in axes:
                if axis not in along:
                    counts &= lax.axis_index(axis) == 0
            parts.append(jnp.where(counts, part(*own), 0))
        return lax.psum(functools.reduce(operator.add, parts), tuple(axes))

    specs_of_all = ([(spec,) * len(stacks) for spec in specs],)
    # Unchecked, since jax 0.8 cannot map a checked sum.
    return jax.shard_map(
        of_own, mesh=mesh, in_specs=specs_of_all, out_specs=PartitionSpec(), check_vma=False
    )(leaves)


def _lying(leaves: list[tuple[Array, ...]]) -> tuple[Any, list[PartitionSpec]]:
    """The mesh and the specs of the leaves, from their types; no specs if the types lack them."""
    kinds = [[jax.typeof(leaf).sharding for leaf in each] for each in leaves]
    mesh = kinds[0][0].mesh if kinds else jax.sharding.get_abstract_mesh()
    alike = all({kind.spec for kind in each} == {each[0].spec} for each in kinds)
    on_it = all(kind.mesh == mesh for each in kinds for kind in each)
    told = alike and on_it and set(mesh.axis_types) == {AxisType.Explicit}
    return mesh, [each[0].spec for each in kinds] if told else []


def _axes(spec: PartitionSpec) -> list[str]:
    """The axes over which an array is sharded."""
    entries = [entry if isinstance(entry, tuple) else (entry,) for entry in spec]
    return [axis for entry in entries for axis in entry if axis is not None]
