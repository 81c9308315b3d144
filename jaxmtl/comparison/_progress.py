"""How far a comparison has come: a bar where there is a terminal or a notebook, else lines."""

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def showing(
    runs: int, steps: int, wanted: bool
) -> Iterator[Callable[[str], Callable[[int], None]]]:
    """Show the progress of so many runs of so many steps, all seeds counted.

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
        yield _Lines(runs, steps)
        return
    console = Console()
    # In a notebook rich draws its bars by ipywidgets.
    in_notebook = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    if not in_notebook and (console.is_jupyter or not console.is_interactive):
        yield _Lines(runs, steps)
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


class _Lines:
    """A line for each run that has finished, and about how long the others will take."""

    def __init__(self, runs: int, steps: int):
        self.runs, self.steps, self.begun = runs, steps, 0
        self.start = time.monotonic()

    def __call__(self, name: str) -> Callable[[int], None]:
        self.begun += 1
        number, done = self.begun, 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if done >= self.steps:
                left = (time.monotonic() - self.start) / number * (self.runs - number)
                about = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
                ahead = f" (about {about} left)" if number < self.runs else ""
                print(f"finished {number}/{self.runs} {name}{ahead}", flush=True)

        return advance
