"""Times of several functions, taken in turn, so that a busy moment hits all of them."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Ratio(NamedTuple):
    """One figure: how many times slower ``theirs`` is than ``ours``.

    Attributes:
      what: the section.
      case: what was run.
      ours: median time of ours, in milliseconds.
      theirs: median time of what it is compared with, in milliseconds.
      ratio: median over the rounds of theirs / ours.
      low: a quarter of the rounds have less.
      high: a quarter have more.
      note: what else was found.
    """

    what: str
    case: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    note: str = ""


def compare(
    what: str,
    case: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    *,
    seconds: float = 0.6,
) -> Ratio:
    """Run both in turn, in at least seven rounds and until the time is up.

    A measurement is of calls one after the other, a twentieth of the time, as in a training loop:
    the first call after the other library's finds cold caches and sleeping threads.
    """
    calls = [_repeats(function, seconds / 20) for function in (ours, theirs)]
    times: list[tuple[float, float]] = []
    deadline = time.perf_counter() + seconds
    while len(times) < 7 or time.perf_counter() < deadline:
        times.append(tuple(_time(f, n) for f, n in zip((ours, theirs), calls, strict=True)))
    ratios = [theirs / ours for ours, theirs in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    medians = [1e3 * statistics.median(column) for column in zip(*times, strict=True)]
    return Ratio(what, case, *medians, middle, low, high)


def _repeats(function: Callable[[], Any], seconds: float) -> int:
    """How many calls make a measurement of about so many seconds; compiles on the way."""
    _time(function, 2)
    return max(1, min(1000, round(seconds / max(_time(function, 3), 1e-7))))


def _time(function: Callable[[], Any], calls: int) -> float:
    time.sleep(2e-3)  # the threads of the function before spin on for a while
    start = time.perf_counter()
    for _ in range(calls):
        result = function()
    _wait_for(result)
    return (time.perf_counter() - start) / calls


def _wait_for(result: Any) -> None:
    jax.block_until_ready(result)
    torch = sys.modules.get("torch")  # only where it is what we compare with
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
