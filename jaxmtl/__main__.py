"""Which way of balancing suits my losses? ``python -m jaxmtl`` compares them on small problems."""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmtl.backward._xla_cpu import use_safe_cpu_compiler
from jaxmtl.methods import METHODS, suggestion
from jaxmtl.problems import PROBLEMS, load
from jaxmtl.problems._problem import Problem

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
    if options.problem not in PROBLEMS:
        rest = suggestion(options.problem, PROBLEMS, "problem")
        return _refuse(f"unknown problem {options.problem}{rest}")
    wanted = list(dict.fromkeys(options.methods or DEFAULT))
    unknown = [name for name in wanted if name not in METHODS and wanted != ["all"]]
    if unknown:
        return _refuse(f"unknown method {unknown[0]}{suggestion(unknown[0], METHODS, 'method')}")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _refuse(f"--out must be a folder, but {error}")
    use_safe_cpu_compiler()
    try:
        from jaxmtl.comparison._saved import save  # noqa: F401
        from jaxmtl.comparison._training import lacking
    except ImportError as error:
        return _refuse(f'{error}; in a clone, pip install -e ".[demo]"', status=1)
    try:
        problem = load(options.problem)
    except (ImportError, FileNotFoundError) as error:
        return _refuse(str(error), status=1)
    names = []
    for name in METHODS if wanted == ["all"] else wanted:
        if not (missing := lacking(problem, name)):
            names.append(name)
        elif options.methods and wanted != ["all"]:
            return _refuse(f"{name} needs {missing}, which {problem.name} does not have")
    return _compare(problem, names, options)


def _refuse(why: str, status: int = 2) -> int:
    print(f"jaxmtl: {why}", file=sys.stderr)
    return status


def _compare(problem: Problem, names: list[str], options: argparse.Namespace) -> int:
    """Train, show and save; whatever happens, what was finished is saved first."""
    from rich.console import Console

    from jaxmtl.comparison._report import Report
    from jaxmtl.comparison._saved import save
    from jaxmtl.comparison._training import Comparison, contestants, references

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal or pipe that knows ASCII only
    console = Console()
    steps = options.steps or problem.steps
    runs = references(problem) + contestants(problem, names)
    report = Report(problem, [run.name for run in runs], steps=steps, seeds=options.seeds)
    status = 0
    try:
        with _progress(console) as progress:
            bar = progress.add_task("preparing", total=len(runs) * steps)
            comparison = Comparison(problem, steps=steps, seeds=options.seeds)
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
        written = save(report, options.out)
    console.print(report.table())
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxmtl",
        description=(
            "Train a problem's tasks together with each method, and compare with training each task"
            " alone. All runs share the network, the batches and Adam with one learning rate;"
            " methods have their default arguments. The task weights come from the gradients of the"
            " shared trunk and apply to it; each head receives its own task's gradient. 'static'"
            " divides the squared errors by the variance of their targets."
        ),
        epilog="The problems are "
        + "; ".join(f"{name}: {summary}" for name, summary in PROBLEMS.items())
        + ".",
    )
    parser.add_argument(
        "--problem",
        default="digits",
        metavar="NAME",
        help="what to train; see below (default: digits)",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help=(
            "which, or 'all' that need no further inputs (default, where the problem has what they"
            f" need: {', '.join(DEFAULT)})"
        ),
    )
    parser.add_argument("--seeds", type=_positive, default=5, help="seeds (default: 5)")
    parser.add_argument("--steps", type=_positive, help="steps (default: the problem's own)")
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
