"""Run a published table again: ``python -m jaxmtl.reproductions dcgd``."""

import argparse
import functools
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import jax

from jaxmtl.backward._xla_cpu import use_safe_cpu_compiler
from jaxmtl.comparison._progress import showing
from jaxmtl.comparison._terminal import positive
from jaxmtl.reproductions._experiments import EXPERIMENTS
from jaxmtl.reproductions._runs import Experiment, Record, Run, Train, missing, plan, read, write


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    experiment = EXPERIMENTS[options.table]

    def chosen(argument: str, known: Collection[str]) -> list[str]:
        wanted = getattr(options, argument) or list(known)
        if unknown := [name for name in wanted if name not in known]:
            parser.error(f"unknown {argument} {', '.join(unknown)}: there are {', '.join(known)}")
        return wanted

    seeds, steps = options.seeds or experiment.seeds, options.steps or experiment.steps
    if steps % experiment.block:
        parser.error(f"--steps must be a multiple of {experiment.block}, but it is {steps}")
    runs = plan(
        experiment,
        problems=chosen("problems", experiment.problems),
        rows=chosen("rows", experiment.rows),
        rates=options.rates or experiment.rates,
        seeds=seeds,
        steps=steps,
        size=options.size,
    )
    out = options.out or Path("jaxmtl-results", f"{options.table}.json")
    left = missing(runs, read(out))
    print(f"{len(runs) - len(left)} of {len(runs)} runs are in {out}", flush=True)
    use_safe_cpu_compiler()
    try:
        with showing(len(left), steps * seeds, True) as show:
            for run in left:
                advance = show(f"{run.problem} {run.row} {run.rate:g}")
                record = train(experiment, run, advance)
                write(out, [*read(out), record])  # another process may have added its own
    except KeyboardInterrupt:
        print(f"Interrupted: what has finished is in {out}, and the same command goes on.")
        return 128 + signal.SIGINT
    return 0


def train(experiment: Experiment, run: Run, advance: Callable[[int], None]) -> Record:
    """Train one run; returns what is kept of it."""
    start = time.perf_counter()
    train_all = _trainer(experiment.trainer, run.problem, run.size, run.row, experiment.block)
    # A GPU's matrix products in TensorFloat-32 would end a residual's fall at 1e-3.
    with jax.default_matmul_precision("highest"):
        found = train_all(run.rate, run.seeds, run.steps, advance)
    return run._asdict() | found | {"seconds": round(time.perf_counter() - start, 1)}


@functools.cache
def _trainer(make: Callable[..., Train], *settings: str | int) -> Train:
    """What is compiled for one learning rate serves the next."""
    return make(*settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxmtl.reproductions",
        description=(
            "Run a published table again. What is not told is as published. Every run is saved as"
            " it ends, and one that is in the file is not run again. Processes with other problems"
            " or rows may share the file."
        ),
    )
    parser.add_argument("table", choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=positive, metavar="NUMBER", help="how many")
    parser.add_argument("--steps", type=positive, metavar="NUMBER", help="of training")
    parser.add_argument("--rates", type=float, nargs="+", metavar="RATE", help="learning rates")
    parser.add_argument("--problems", nargs="+", metavar="NAME")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="the methods")
    parser.add_argument(
        "--size",
        type=positive,
        metavar="NUMBER",
        help="points drawn inside at each step; images or molecules to train on",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the file (default: jaxmtl-results/TABLE.json)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
