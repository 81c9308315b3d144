"""How far a comparison has come: a bar where there is a terminal or a notebook, else lines."""

import contextlib
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
    if not console.is_interactive and not console.is_jupyter:
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
    """A line for each run that has finished."""

    def __init__(self, runs: int, steps: int):
        self.runs, self.steps, self.begun = runs, steps, 0

    def __call__(self, name: str) -> Callable[[int], None]:
        self.begun += 1
        number, done = self.begun, 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if done >= self.steps:
                print(f"finished {number}/{self.runs} {name}", flush=True)

        return advance
