"""Run a published table again: ``python -m jaxmtl.reproductions dcgd``."""

import argparse
import functools
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import jax

from jaxmtl.backward._xla_cpu import use_safe_cpu_compiler
from jaxmtl.comparison._progress import showing
from jaxmtl.comparison._terminal import positive, positive_float, status_of, stoppable
from jaxmtl.reproductions._experiments import EXPERIMENTS
from jaxmtl.reproductions._runs import Experiment, Record, Run, Train, add, missing, plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    out = options.out or Path("jaxmtl-results", f"{options.table}.json")
    with stoppable():
        try:
            _train_missing(parser, options, out)
        except KeyboardInterrupt as stop:
            print(f"Interrupted: what has finished is in {out}, and the same command goes on.")
            return status_of(stop)
    return 0


def _train_missing(parser: argparse.ArgumentParser, options: argparse.Namespace, out: Path) -> None:
    """Report everything that cannot work before any training; otherwise train."""
    use_safe_cpu_compiler()
    experiment = EXPERIMENTS[options.table]
    # What is compiled for one learning rate serves the next.
    make = functools.cache(experiment.trainer)
    try:
        runs = _wanted(options, experiment)
        left = missing(runs, _stored(out))
        print(f"{len(runs) - len(left)} of {len(runs)} runs are in {out}", flush=True)
        trainers = [
            make(run.problem, run.size, run.row, experiment.block(run.size)) for run in left
        ]
    except (ImportError, FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    with showing(len(left), runs[0].steps * runs[0].seeds, True) as show:
        for run, train_all in zip(left, trainers, strict=True):
            advance = show(f"{run.problem} {run.row} {run.rate:g}")
            add(out, [train(train_all, run, advance)])


def _wanted(options: argparse.Namespace, experiment: Experiment) -> list[Run]:
    """Plan what the options name, each once."""

    def chosen(argument: str, known: Collection[str]) -> list[str]:
        wanted = list(dict.fromkeys(getattr(options, argument) or known))
        if unknown := [name for name in wanted if name not in known]:
            raise ValueError(
                f"unknown {argument} {', '.join(unknown)}: there are {', '.join(known)}"
            )
        return wanted

    rows = chosen("rows", experiment.rows)
    rates = list(dict.fromkeys(options.rates or experiment.rates))
    runs = plan(
        experiment,
        problems=chosen("problems", experiment.problems),
        rows=rows,
        rates=rates,
        seeds=options.seeds or experiment.seeds,
        steps=options.steps or experiment.steps,
        size=options.size,
    )
    idle = [row for row in rows if all(run.row != row for run in runs)]
    if idle and (options.rows or not runs):
        own = [f"{row} has {_listed(experiment.rows[row])}" for row in idle]
        raise ValueError(
            f"--rates must include one of each row's own, but they are {_listed(rates)}:"
            f" {'; '.join(own)}"
        )
    for run in runs:
        if run.steps % (block := experiment.block(run.size)):
            raise ValueError(f"--steps must be a multiple of {block}, but it is {run.steps}")
    return runs


def _listed(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)


def _stored(out: Path) -> list[Record]:
    """Read what the file holds, and write it as after a run; raises ValueError where that fails."""
    try:
        if out.is_dir():
            raise ValueError(f"--out must name a file, but {out} is a folder")
        return add(out, [])
    except ValueError as error:
        raise ValueError(f"{error}: move it away, or name another with --out") from error
    except (OSError, sqlite3.Error) as error:
        raise ValueError(
            f"--out must be a file that can be written to, but {out} is not ({error}): name"
            " another, or change the permissions of its folder"
        ) from error


def train(train_all: Train, run: Run, advance: Callable[[int], None]) -> Record:
    """Train one run; returns what is kept of it."""
    start = time.perf_counter()
    # A GPU's matrix products in TensorFloat-32 would end a residual's fall at 1e-3.
    with jax.default_matmul_precision("highest"):
        found = train_all(run.rate, run.seeds, run.steps, advance)
    return run._asdict() | found | {"seconds": round(time.perf_counter() - start, 1)}


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
    parser.add_argument(
        "--rates", type=positive_float, nargs="+", metavar="RATE", help="learning rates"
    )
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
