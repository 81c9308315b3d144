"""Which way of balancing suits my losses? ``python -m jaxmtl`` compares them on a small problem."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmtl._xla_cpu import use_safe_cpu_compiler
from jaxmtl.methods import METHODS

DEFAULT = [
    "equal",
    "static",
    "initial_loss",
    "prior_loss",
    "real_time_loss",
    "uncertainty",
    "gradnorm",
    "normalize",
    "pcgrad",
    "mgda",
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        _list_methods()
        return 0
    names = list(METHODS) if options.methods == ["all"] else list(dict.fromkeys(options.methods))
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        print(
            f"jaxmtl: unknown method {', '.join(unknown)}; the methods are {', '.join(METHODS)}",
            file=sys.stderr,
        )
        return 2
    use_safe_cpu_compiler()
    try:
        from rich.console import Console

        from jaxmtl._compare import Comparison, contestants, references
        from jaxmtl._report import Report
        from jaxmtl.problems.digits import digits

        problem = digits()
    except ImportError as error:
        print(f'jaxmtl: {error}; install the demo with pip install "jaxmtl[demo]"', file=sys.stderr)
        return 1

    console = Console()
    comparison = Comparison(problem, steps=options.steps, seeds=options.seeds)
    report = Report(problem, steps=options.steps, seeds=options.seeds)
    runs = references(problem) + contestants(problem, names)
    status = 0
    try:
        with _progress(console) as progress:
            everything = progress.add_task("", total=len(runs) * options.steps)
            for run in runs:
                progress.update(everything, description=run.name)
                report.add(
                    run.name, comparison.train(run, lambda n: progress.advance(everything, n))
                )
            progress.update(everything, description="done")
    except KeyboardInterrupt:
        console.print(f"Interrupted: {len(report.outcomes)} of {len(names)} methods finished.")
        status = 130
    console.print(report.table())
    for path in report.save(options.out):
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxmtl",
        description=(
            "Train MultiDigits-4 (left digit, right digit, their sum, reconstruction) with each"
            " method, and compare with training each task alone."
        ),
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=DEFAULT,
        metavar="NAME",
        help=f"which, or 'all' (default: {', '.join(DEFAULT)})",
    )
    parser.add_argument("--seeds", type=_positive, default=5, help="seeds (default: 5)")
    parser.add_argument("--steps", type=_positive, default=800, help="steps (default: 800)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("jaxmtl-results"),
        help="folder for the numbers and the picture (default: jaxmtl-results)",
    )
    parser.add_argument("--list", action="store_true", help="list the methods and stop")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, but it is {text!r}")
    return int(text)


def _list_methods() -> None:
    width = max(map(len, METHODS))
    for name, method in METHODS.items():
        print(f"{name:{width}}  {method.summary} ({method.reference})")


def _progress(console: Any) -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:22}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


if __name__ == "__main__":
    sys.exit(main())
