"""Which way of balancing suits my losses? ``python -m jaxmtl`` compares them on a small problem."""

import argparse
import io
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
    names = list(dict.fromkeys(options.methods))
    if names == ["all"]:
        names = [name for name, method in METHODS.items() if not method.needs]
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        print(
            f"jaxmtl: unknown method {', '.join(unknown)}; the methods are {', '.join(METHODS)}",
            file=sys.stderr,
        )
        return 2
    for name in names:
        if METHODS[name].needs:
            print(
                f"jaxmtl: {name} needs {' and '.join(METHODS[name].needs)} at every step, which"
                " this comparison does not have",
                file=sys.stderr,
            )
            return 2
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"jaxmtl: --out must be a folder, but {error}", file=sys.stderr)
        return 2
    use_safe_cpu_compiler()
    try:
        return _compare(names, options)
    except ImportError as error:
        print(f'jaxmtl: {error}; in a clone, pip install -e ".[demo]"', file=sys.stderr)
        return 1


def _compare(names: list[str], options: argparse.Namespace) -> int:
    """Train, show and save; whatever happens, what was finished is saved first."""
    from rich.console import Console

    from jaxmtl._compare import Comparison, contestants, references
    from jaxmtl._report import Report
    from jaxmtl.problems.digits import digits

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal or pipe that knows ASCII only
    console = Console()
    problem = digits()
    runs = references(problem) + contestants(problem, names)
    report = Report(problem, [run.name for run in runs], steps=options.steps, seeds=options.seeds)
    status = 0
    try:
        with _progress(console) as progress:
            bar = progress.add_task("preparing", total=len(runs) * options.steps)
            comparison = Comparison(problem, steps=options.steps, seeds=options.seeds)
            for number, run in enumerate(runs, start=1):
                progress.update(bar, description=f"{number}/{len(runs)} {run.name}")
                report.add(run.name, comparison.train(run, lambda n: progress.advance(bar, n)))
                if not console.is_terminal:
                    print(f"finished {number}/{len(runs)} {run.name}", flush=True)
            progress.update(bar, description="done")
    except KeyboardInterrupt:
        console.print(f"Interrupted: {report.finished} of {len(runs)} runs finished.")
        status = 130
    finally:
        written = report.save(options.out)
    console.print(report.table())
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxmtl",
        description=(
            "Train MultiDigits-4 (left digit, right digit, their sum, reconstruction) with each"
            " method, and compare with training each task alone. All runs share the network, the"
            " batches and Adam with one learning rate; methods have their default arguments. The"
            " task weights come from the gradients of the shared trunk and apply to it; each head"
            " receives its own task's gradient. 'static' divides the squared errors by the variance"
            " of their targets."
        ),
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=DEFAULT,
        metavar="NAME",
        help=f"which, or 'all' that need no further inputs (default: {', '.join(DEFAULT)})",
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
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 1, but it is {text!r}"
        )
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
        TextColumn("{task.description:24}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("remaining"),
        TimeRemainingColumn(),
        console=console,
    )


if __name__ == "__main__":
    sys.exit(main())
