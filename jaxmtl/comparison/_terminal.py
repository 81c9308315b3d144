"""A comparison in a terminal or a pipe: progress, signals that end it, and the table."""

import contextlib
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from jaxmtl.comparison._contestants import Contestant, contestants, references
from jaxmtl.comparison._report import Report
from jaxmtl.comparison._saved import save
from jaxmtl.comparison._training import Comparison

# What a terminal or a pipe shows that knows ASCII only. The first keeps columns aligned.
PLAIN = {" ± ": "+/-", "±": "+/-", "Δ": "D", "↑": "^", "↓": "v", "–": "-"}


def compare(comparison: Comparison, names: list[str], folder: Path) -> int:
    """Train, save and show; whatever happens, what was finished is saved and shown.

    Returns:
      The exit status: 0, 1 where saving failed, 128 and the number of a signal that ended it.
    """
    runs = references(comparison.problem) + contestants(comparison.problem, names)
    report = Report(
        comparison.problem,
        [run.name for run in runs],
        steps=comparison.steps,
        seeds=comparison.seeds,
    )
    status = 0
    with _stoppable():
        try:
            _train(comparison, runs, report)
        except KeyboardInterrupt as stop:
            print(f"Interrupted: {report.finished} of {len(runs)} runs finished.")
            status = _status(stop)
        finally:
            failure = _save_and_show(report, folder)
    return status or failure


def _train(comparison: Comparison, runs: list[Contestant], report: Report) -> None:
    """Train one after the other, with a bar that moves or a line for each."""
    console = Console()
    with _progress(console) as progress:
        bar = progress.add_task("preparing", total=len(runs) * comparison.steps)
        for number, run in enumerate(runs, start=1):
            progress.update(bar, description=f"{number}/{len(runs)} {run.name}")
            report.add(run.name, comparison.train(run, lambda n: progress.advance(bar, n)))
            if progress.disable:
                print(f"finished {number}/{len(runs)} {run.name}", flush=True)
        progress.update(bar, description="done")


def _save_and_show(report: Report, folder: Path) -> int:
    """Save, then show the table, also where saving fails; returns the exit status."""
    lines, status = [], 0
    try:
        lines += [f"wrote {path}" for path in save(report, folder)]
    except OSError as error:
        print(f"jaxmtl: the results could not all be saved: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt as stop:
        lines, status = ["Interrupted while saving."], _status(stop)
    for text in (report.table(shutil.get_terminal_size().columns), *lines):
        _show(text)
    return status


def _show(text: str) -> None:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        for sign, plain in PLAIN.items():
            text = text.replace(sign, plain)
    print(text)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does, once: a second signal ends the process at once."""

    def stop(number: int, frame: Any) -> None:
        for name in before:
            signal.signal(name, signal.SIG_DFL)
        raise KeyboardInterrupt(number)

    both = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    before = {name: old for name, old in both.items() if old is not signal.SIG_IGN}
    for name in before:
        signal.signal(name, stop)
    try:
        yield
    finally:
        for name, old in before.items():
            signal.signal(name, old)


def _status(stop: KeyboardInterrupt) -> int:
    """The exit status that shells give to a process that a signal ended."""
    return 128 + (stop.args[0] if stop.args else signal.SIGINT)


def _progress(console: Console) -> Progress:
    columns: list[Any] = [
        TextColumn("{task.description}"),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("steps"),
    ]
    if console.width >= 80:
        columns[:1] = [TextColumn("{task.description:24}"), BarColumn(bar_width=None)]
        columns += [TimeElapsedColumn(), TextColumn("remaining"), TimeRemainingColumn()]
    return Progress(*columns, console=console, disable=not console.is_interactive)
