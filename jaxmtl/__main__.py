"""Compare balancing methods on small problems or your own: ``python -m jaxmtl``."""

import argparse
import contextlib
import dataclasses
import io
import os
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from jaxmtl.backward._xla_cpu import use_safe_cpu_compiler
from jaxmtl.comparison._compare import prepare
from jaxmtl.comparison._contestants import DEFAULT, lacking
from jaxmtl.comparison._saved import check_writable
from jaxmtl.comparison._terminal import positive, train_and_save
from jaxmtl.methods import METHODS, nearest
from jaxmtl.problems import PROBLEMS, load
from jaxmtl.problems._own import load_own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal or pipe that has ASCII only
    options = _parser().parse_args(arguments)
    try:
        status = _list_methods() if options.list else _prepare(options)
        print(end="", flush=True)
    except KeyboardInterrupt:  # before there was anything to save
        return 128 + signal.SIGINT
    except OSError as error:  # of standard output: a reader such as head has gone, a disk is full
        with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # for what Python writes as it ends
        return 1 if isinstance(error, BrokenPipeError) else _refuse(str(error), status=1)
    return status


def _prepare(options: argparse.Namespace) -> int:
    """Report everything that cannot work before any training; otherwise compare."""
    own = ":" in options.problem
    if not own and options.problem not in PROBLEMS:
        return _refuse(
            _unknown("problem", [options.problem], PROBLEMS)
            + "; one of your own is FILE.py:NAME or MODULE:NAME"
        )
    wanted = list(dict.fromkeys(options.methods or DEFAULT))
    if unknown := [name for name in wanted if name not in METHODS and name != "all"]:
        return _refuse(_unknown("method", unknown, METHODS))
    use_safe_cpu_compiler()
    try:
        problem = load_own(options.problem) if own else load(options.problem)
    except (ImportError, FileNotFoundError) as error:
        return _refuse(str(error), status=2 if own else 1)
    lacks = {name: lacking(problem, name) for name in METHODS}
    if options.methods and (lame := [n for n in wanted if lacks.get(n)]):
        needs = "; ".join(f"{name} needs {lacks[name]}" for name in lame)
        return _refuse(f"{needs}, which {problem.name} does not have")
    names = [name for name in (METHODS if "all" in wanted else wanted) if not lacks[name]]
    try:
        problem = dataclasses.replace(problem, steps=options.steps or problem.steps)
        prepared = prepare(problem, names, seeds=options.seeds)
    except ValueError as error:
        return _refuse(str(error))
    try:
        check_writable(options.out)
    except OSError as error:
        return _refuse(
            f"--out must be a folder that can be written to, but '{options.out}' is not"
            f" ({error.strerror}): choose another, or change its permissions"
        )
    return train_and_save(prepared, options.out)


def _unknown(kind: str, unknown: list[str], names: Collection[str]) -> str:
    """List the unknown names, with similar known names, and all known names."""

    def near(name: str) -> str:
        found = nearest(name, names)
        return f"{name!r} (did you mean {' or '.join(found)}?)" if found else repr(name)

    some = "s" if len(unknown) > 1 else ""
    return (
        f"unknown {kind}{some} {', '.join(map(near, unknown))}. The {kind}s are {', '.join(names)}"
    )


def _refuse(why: str, status: int = 2) -> int:
    print(f"jaxmtl: {why}", file=sys.stderr)
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
        help=(
            "what to train: one of those below (default: digits), or your own jaxmtl.Problem or a"
            " function that makes it, as FILE.py:NAME or MODULE:NAME"
        ),
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
    parser.add_argument(
        "--seeds", type=positive, default=5, metavar="NUMBER", help="how many (default: 5)"
    )
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="NUMBER",
        help="how many (default: the problem's own number)",
    )
    parser.add_argument(
        "--out",
        type=_folder,
        default=Path("jaxmtl-results"),
        metavar="FOLDER",
        help=(
            "folder for the numbers and the picture, made where it is not there, and never empty:"
            " '.' is the current one (default: jaxmtl-results)"
        ),
    )
    parser.add_argument("--list", action="store_true", help="list the methods and stop")
    return parser


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "must name a folder, but it is empty: leave it out for jaxmtl-results, or give '.' for"
            " the current folder"
        )
    return Path(text)


def _list_methods() -> int:
    width = max(map(len, METHODS))
    for name, method in METHODS.items():
        print(f"{name:{width}}  {method.summary} ({method.reference})")
    print(
        "\nAround any of them: on_shared, prioritise, with_fixed, every, smooth, warm_up,"
        "\nskip_broken, skip_rounding, with_ridge, report_only, and in_turn, one loss a step"
        " (M-ConFIG)."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
