"""The runs of an experiment: which there are, which are done, and the file that keeps them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmtl._checks import check_choice
from jaxmtl.problems import burgers, helmholtz, klein_gordon
from jaxmtl.reproductions._contestants import CONFIG, DCGD, Contestant

Record = dict[str, Any]


class Experiment(NamedTuple):
    """A published table.

    Attributes:
      problems: module, and how many points are drawn inside, by the problems' names.
      contestants: the rows.
      rates: the learning rates, of which each row has its best.
      decay: what the rate is multiplied by after every thousand steps.
      seeds: how many the paper has.
      steps: of training.
      block: after so many steps the error is measured.
    """

    problems: dict[str, tuple[Any, int]]
    contestants: dict[str, Contestant]
    rates: tuple[float, ...]
    decay: float
    seeds: int
    steps: int
    block: int


EXPERIMENTS = {
    # As in the code published with the paper, the wave has a tenth of the points.
    "dcgd": Experiment(
        problems={"klein_gordon": (klein_gordon, 128), "helmholtz": (helmholtz, 1280)},
        contestants=DCGD,
        rates=(1e-3, 1e-4, 1e-5),
        decay=0.9,
        seeds=10,
        steps=50_000,
        block=500,
    ),
    "config": Experiment(
        problems={"burgers": (burgers, 2000)},
        contestants=CONFIG,
        rates=(5e-4, 1e-4),
        decay=1.0,
        seeds=1,
        steps=5000,
        block=10,
    ),
}


class Run(NamedTuple):
    """All seeds of one row at one learning rate."""

    problem: str
    inside: int
    contestant: str
    rate: float
    seeds: int
    steps: int


def plan(
    experiment: Experiment,
    *,
    problems: Sequence[str],
    contestants: Sequence[str],
    rates: Sequence[float],
    seeds: int,
    steps: int,
    inside: int | None,
) -> list[Run]:
    """List the runs, all rows of a learning rate and problem before the next."""
    return [
        Run(problem, inside or experiment.problems[problem][1], name, rate, seeds, steps)
        for rate in rates
        for problem in problems
        for name in contestants
        if rate in (experiment.contestants[name].rates or rates)
    ]


def missing(runs: Sequence[Run], records: Sequence[Record]) -> list[Run]:
    """The runs that are not among the records."""
    done = {tuple(record[field] for field in Run._fields) for record in records}
    return [run for run in runs if tuple(run) not in done]


def load(name: str) -> list[Record]:
    """Read the stored runs of a table.

    Args:
      name: "dcgd" or "config".

    Returns:
      A dict for each run: what was trained ("problem", "inside", "contestant", "rate", "seeds",
      "steps"), and the errors, one a seed: "at_smallest_loss", "at_last", "smallest", and "curve",
      at the steps "of_curve".

    Raises:
      ValueError: where there is no such table.

    Examples:
      >>> import jaxmtl
      >>> runs = jaxmtl.reproductions.load("dcgd")
      >>> runs[0]["problem"], runs[0]["contestant"]
      ('klein_gordon', 'equal')
    """
    check_choice("name", name, tuple(EXPERIMENTS))
    return read(Path(__file__).parent / f"{name}.json")


def read(file: Path) -> list[Record]:
    """Read the runs of a file; none where there is none."""
    if not file.exists():
        return []
    found: list[Record] = json.loads(file.read_text(encoding="utf-8"))
    return found


def write(file: Path, records: Sequence[Record]) -> None:
    """Write all runs, a line each: the file is whole at any time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    new.write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n", encoding="utf-8")
    new.replace(file)
