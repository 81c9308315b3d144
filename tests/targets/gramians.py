"""What a Gramian of leaves that lie in different ways sends, by the kind of the mesh's axes.

``python -m tests.targets.gramians h100 fsdp_tensor`` prints one line of JSON.
"""

import json
import sys

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmtl.balancing._gram import gramian
from tests.targets.collectives import NUM_TASKS, Place
from tests.targets.machines import compiled, in_environment
from tests.targets.programs import read


def main() -> None:
    """Print the programs' numbers as JSON."""
    in_environment()
    place, found = Place(*sys.argv[1:]), {}
    for kind in (AxisType.Auto, AxisType.Explicit):
        names = place.mesh.axis_names
        mesh = Mesh(place.mesh.devices, names, axis_types=(kind,) * len(names))
        leaves = [
            jax.ShapeDtypeStruct(
                (NUM_TASKS, *leaf.shape),
                leaf.dtype,
                sharding=NamedSharding(mesh, PartitionSpec(None, *leaf.sharding.spec)),
            )
            for leaf in jax.tree.leaves(place.params)
        ]
        found[kind.name] = read(compiled(gramian, leaves))._asdict()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
