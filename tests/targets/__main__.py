"""Print what an H100 is given to do: ``python -m tests.targets`` (extra: targets)."""

import argparse

from tests.targets.machines import in_environment, missing


def main() -> None:
    """Print the table of the T-sized parts."""
    parser = argparse.ArgumentParser(prog="python -m tests.targets", description=__doc__)
    parser.add_argument("--methods", nargs="+", default=[], help="all if none is named")
    parser.add_argument("--tasks", nargs="+", type=int, default=[8, 32], metavar="T")
    options = parser.parse_args()
    if reason := missing("cuda"):
        parser.error(reason)
    in_environment()

    from tests.targets import weights  # JAX only in the environment

    for num_tasks in options.tasks:
        print(f"\nFrom the Gramian or the losses to the weights, T = {num_tasks}, on an H100")
        print(f"{'method':16}{'launches':>9}{'solvers':>9}{'waits':>7}  loops; library calls")
        for name, program in weights.programs(num_tasks, *options.methods).items():
            loops = [f"{each} x {turns or '?'}" for each, turns in program.loops]
            calls = [f"{target} {count}" for target, count in program.library.items()]
            print(
                f"{name:16}{program.launches:9}{program.kernels:9}{program.waits:7}"
                f"  {', '.join(loops + calls)}"
            )


if __name__ == "__main__":
    main()
