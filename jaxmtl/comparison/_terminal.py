"""A comparison in a terminal or a pipe: how signals end it, and what is then saved and shown."""

import argparse
import contextlib
import math
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxmtl.comparison._compare import Prepared, train_all
from jaxmtl.comparison._report import Comparison
from jaxmtl.comparison._saved import save

# Replacements for a terminal or a pipe that has ASCII only. The first keeps columns aligned.
PLAIN = {" ± ": "+/-", "±": "+/-", "Δ": "D", "↑": "^", "↓": "v", "–": "-"}


def positive(text: str) -> int:
    """Read a whole number of at least 1 from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 1, but it is {text!r}"
        )
    return int(text)


def positive_float(text: str) -> float:
    """Read a finite number above zero from the command line."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a finite number above zero, but it is {text!r}")


def train_and_save(prepared: Prepared, folder: Path) -> int:
    """Train, save and show; whatever happens, the finished runs are saved and shown.

    Returns:
      The exit status: 0, 1 if saving failed, or 128 plus the number of a signal that ended it.
    """
    status = 0
    with stoppable():
        try:
            train_all(*prepared, progress=True)
        except KeyboardInterrupt as stop:
            status = status_of(stop)
        finally:
            failure = _save_and_show(prepared.comparison, folder)
    return status or failure


def _save_and_show(comparison: Comparison, folder: Path) -> int:
    """Save, then show the table, even if saving fails; returns the exit status."""
    lines, status = [], 0
    try:
        paths = list(save(comparison, folder))
        lines += [f"wrote {path}" for path in paths]
        if comparison.outcomes and all(path.suffix != ".png" for path in paths):
            lines.append("No picture was made: it needs matplotlib, pip install matplotlib.")
    except OSError as error:
        print(f"jaxmtl: the results could not all be saved: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt as stop:
        lines, status = ["Interrupted while saving."], status_of(stop)
    for text in (comparison.table(shutil.get_terminal_size().columns), *lines):
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
def stoppable() -> Iterator[None]:
    """Let SIGTERM interrupt like Ctrl-C, once: a second signal ends the process at once."""

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


def status_of(stop: KeyboardInterrupt) -> int:
    """The exit status that shells give to a process that a signal ended."""
    return 128 + (stop.args[0] if stop.args else signal.SIGINT)
