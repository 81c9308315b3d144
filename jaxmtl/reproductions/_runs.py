"""The runs of an experiment: which there are, which are done, and the file that keeps them."""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmtl._checks import check_choice
from jaxmtl.comparison._saved import check_writable, write_whole

TABLES = ("dcgd", "config", "iwrm", "qm9")
Record = dict[str, Any]
Train = Callable[[float, int, int, Callable[[int], None]], Record]


class Experiment(NamedTuple):
    """A published table.

    Attributes:
      problems: the problems' names, and the size of each: points drawn inside at each step, or
        images or molecules to train on.
      rows: the names of the rows, and the learning rates of each; all of ``rates`` if empty.
      rates: the learning rates, of which each row has its best.
      seeds: how many the paper has.
      steps: of training.
      block: ``size -> steps`` after which the network is measured.
      trainer: ``(problem, size, row, block) -> train``. ``train(rate, seeds, steps, advance)``
        trains, calls ``advance(n)`` after every n steps of a seed, and returns what is stored.
    """

    problems: dict[str, int]
    rows: dict[str, tuple[float, ...]]
    rates: tuple[float, ...]
    seeds: int
    steps: int
    block: Callable[[int], int]
    trainer: Callable[[str, int, str, int], Train]


class Run(NamedTuple):
    """All seeds of one row at one learning rate."""

    problem: str
    size: int
    row: str
    rate: float
    seeds: int
    steps: int


def plan(
    experiment: Experiment,
    *,
    problems: Sequence[str],
    rows: Sequence[str],
    rates: Sequence[float],
    seeds: int,
    steps: int,
    size: int | None,
) -> list[Run]:
    """List the runs, all rows of a learning rate and problem before the next."""
    return [
        Run(problem, size or experiment.problems[problem], row, rate, seeds, steps)
        for rate in rates
        for problem in problems
        for row in rows
        if rate in (experiment.rows[row] or rates)
    ]


def missing(runs: Sequence[Run], records: Sequence[Record]) -> list[Run]:
    """The runs that are not among the records."""
    done = [tuple(record[field] for field in Run._fields) for record in records]
    return [run for run in runs if run not in done]


def load(name: str) -> list[Record]:
    """Read the stored runs of a table.

    Args:
      name: "dcgd", "config", "iwrm" or "qm9".

    Returns:
      A dict for each run. It says what was trained ("problem", "size", "row", "rate", "seeds",
      "steps") and holds what was measured. Of "dcgd" and "config" these are errors, one for each
      seed: "at_smallest_loss", "at_last", "smallest", and "curve" at the steps "of_curve". Of
      "qm9" they are "mae", mean absolute errors of the test molecules after the last step, in the
      order of ``jaxmtl.problems.qm9.TASKS`` and the papers' units (meV, D, bohr^3, bohr^2, cal/(mol
      K)), and "losses", means over the last block of steps, both (seeds, 11); and "curve", the
      validation molecules' mean error in standard deviations.

    Raises:
      ValueError: where there is no such table.

    Examples:
      >>> import jaxmtl
      >>> runs = jaxmtl.reproductions.load("dcgd")
      >>> runs[0]["problem"], runs[0]["row"]
      ('klein_gordon', 'equal')
    """
    check_choice("name", name, TABLES)
    return read(Path(__file__).parent / f"{name}.json")


def read(file: Path) -> list[Record]:
    """Read the runs of a file; none where there is none. Raises ValueError for anything else."""
    if not file.exists():
        return []
    wrong = f"{file} does not hold runs as this command writes them"
    try:
        found: list[Record] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # of the JSON or of the bytes
        raise ValueError(f"{wrong} ({type(error).__name__}: {error})") from error
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise ValueError(f"{wrong} (it is not a list of runs)")
    for record in found:
        if lacking := [field for field in Run._fields if field not in record]:
            raise ValueError(f"{wrong} (a run lacks {', '.join(lacking)})")
    return found


def add(file: Path, records: Sequence[Record]) -> list[Record]:
    """Add runs to a file, as other processes may do at the same time; returns all that are in it.

    The lock is SQLite's on an empty file beside it, which stays: every system has it, and ends it
    with the process that held it.
    """
    check_writable(file.parent)
    lock = file.with_name(f".{file.name}.lock")
    with contextlib.closing(sqlite3.connect(lock, timeout=600, isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")
        records = [*read(file), *records]
        text = "[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n"  # a line for each
        write_whole(file, text.encode())
    return records


def as_json(values: Any, digits: int = 8) -> Any:
    """Numbers as nested lists, null for what is not finite."""
    values = np.asarray(values)
    if values.ndim:
        return [as_json(value, digits) for value in values]
    return float(f"{values:.{digits}g}") if np.isfinite(values) else None
