"""The progress of a comparison: a bar in a terminal or a notebook, lines elsewhere."""

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def showing(
    runs: int, steps: int, wanted: bool
) -> Iterator[Callable[[str], Callable[[int], None]]]:
    """Show the progress of the given number of runs and steps, all seeds counted.

    Yields:
      A function to call with the name of each run as it begins. It returns the function to call
      with the number of steps done.
    """
    if not wanted:
        yield lambda name: lambda steps: None
        return
    try:
        from rich.console import Console
    except ImportError:
        yield from _in_lines(runs)
        return
    console = Console()
    # In a notebook rich draws its bars by ipywidgets.
    in_notebook = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    if not in_notebook and (console.is_jupyter or not console.is_interactive):
        yield from _in_lines(runs)
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns: list[Any] = [TextColumn("{task.description}"), TextColumn("{task.percentage:>3.0f} %")]
    if console.width >= 80:
        columns[:1] = [TextColumn("{task.description:28}"), BarColumn(bar_width=None)]
        columns += [TimeElapsedColumn(), TextColumn("remaining"), TimeRemainingColumn()]
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task("preparing", total=runs * steps)
        begun = 0

        def begin(name: str) -> Callable[[int], None]:
            nonlocal begun
            begun += 1
            bars.update(bar, description=f"{begun}/{runs} {name}")
            return lambda steps: bars.advance(bar, steps)

        yield begin
        bars.update(bar, description="done")


def _in_lines(runs: int) -> Iterator[Callable[[str], Callable[[int], None]]]:
    lines = _Lines(runs)
    yield lines
    lines.finish()


class _Lines:
    """A line for each run that has finished, with an estimate of the time left."""

    def __init__(self, runs: int):
        self.runs, self.begun, self.name = runs, 0, ""
        self.start = time.monotonic()

    def __call__(self, name: str) -> Callable[[int], None]:
        self.finish()
        self.begun, self.name = self.begun + 1, name
        return lambda steps: None

    def finish(self) -> None:
        """Report that the run that was begun last has finished."""
        if not self.begun:
            return
        left = (time.monotonic() - self.start) / self.begun * (self.runs - self.begun)
        about = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
        ahead = f" (about {about} left)" if self.begun < self.runs else ""
        print(f"finished {self.begun}/{self.runs} {self.name}{ahead}", flush=True)
