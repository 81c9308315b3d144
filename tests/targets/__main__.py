"""Print what machines that are not there are given to do: ``python -m tests.targets``.

Compiled, not run (extra: targets): on an H100 the part of each method that is of the size of T, and
whole training steps; with ``--machines`` what devices send each other, by layout and route.
"""

import argparse
from collections import Counter
from typing import Any

from tests.targets.machines import in_environment, missing

HEADER = f"{'':16}{'launches':>9}{'solvers':>9}{'waits':>7}{'MiB':>9}  loops; library calls"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.targets", description=__doc__)
    parser.add_argument("--methods", nargs="+", default=[], help="all if none is named")
    parser.add_argument("--tasks", nargs="+", type=int, default=[8, 32], metavar="T")
    parser.add_argument("--machines", nargs="+", choices=("v5e", "h100", "v5p"), default=[])
    options = parser.parse_args()
    for platform in ("cuda", *(["tpu"] if {"v5e", "v5p"} & set(options.machines) else [])):
        if reason := missing(platform):
            parser.error(reason)
    in_environment()

    from tests.targets import collectives, steps, weights  # JAX only in the environment

    for num_tasks in options.tasks:
        print(f"\nFrom the Gramian or the losses to the weights, T = {num_tasks}, on an H100")
        print(HEADER)
        for name, program in weights.programs(num_tasks, *options.methods).items():
            print(_line(name, program))
    print(
        "\nA training step with Adam, T = 8, on an H100: the stacked gradients of an MLP\n" + HEADER
    )
    for name, program in steps.programs(*options.methods).items():
        print(_line(name, program))
    for machine in options.machines:
        for layout in collectives.LAYOUTS:
            print(f"\nA training step on {machine}, {layout}: exchanges, bytes sent, MiB")
            for route, program in collectives.programs(machine, layout).items():
                sent = Counter[str]()
                for each in program.collectives:
                    sent[each.kind] += each.turns
                kinds = ", ".join(f"{kind} {count}" for kind, count in sent.items())
                size = sum(each.size * each.turns for each in program.collectives)
                print(f"{route:16}{size:14,}{_mebibytes(program):>9}  {kinds}")


def _line(name: str, program: Any) -> str:
    loops = [f"{each} x {turns or '?'}" for each, turns in program.loops]
    calls = [f"{target} {count}" for target, count in program.library.items()]
    return (
        f"{name:16}{program.launches:9}{program.kernels:9}{program.waits:7}{_mebibytes(program):>9}"
        f"  {', '.join(loops + calls)}"
    )


def _mebibytes(program: Any) -> str:
    return "" if program.temporary is None else f"{program.temporary / 2**20:.1f}"


if __name__ == "__main__":
    main()
