"""What ``python -m jaxmtl`` saves: a file of all numbers, and the picture."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

import jaxmtl
from jaxmtl.comparison._picture import draw
from jaxmtl.comparison._report import Report
from jaxmtl.comparison._training import Outcome
from jaxmtl.problems._problem import Problem


def save(report: Report, folder: Path) -> Iterator[Path]:
    """Write the numbers, and the picture if a method has finished; yield the path of each then.

    An incomplete comparison has names of its own, and never takes the place of a complete one.
    """
    if not report.finished:
        return
    stem = "comparison" if report.finished == len(report.runs) else "comparison-partial"
    text = json.dumps(_numbers(report), ensure_ascii=False)
    yield _write(folder / f"{stem}.json", text.encode())
    if report.outcomes:
        yield _write(folder / f"{stem}.png", draw(report))


def check_writable(folder: Path) -> None:
    """Make the folder, and a file in it that is gone at once; raises OSError where that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".jaxmtl-"):
        pass


def _write(path: Path, content: bytes) -> Path:
    """Write all of a file or nothing: what was there before stays until the new one is whole."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(content)
        return new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _numbers(report: Report) -> dict[str, Any]:
    """All numbers behind table and picture, by names that say what they are."""

    def method(name: str, outcome: Outcome) -> dict[str, Any]:
        changes, times = report.changes(name), report.relative_time(name)
        return {
            "test_metrics_per_seed": _by_task(report.problem, outcome.metrics),
            "delta_m_percent_per_seed": (
                None if changes is None else _or_null(changes.mean(axis=1))
            ),
            "seconds_per_step_all_seeds": outcome.seconds_per_step,
            "time_per_step_relative_to_equal": None if times is None else times[1],
            "time_per_step_relative_to_equal_quartiles": None if times is None else list(times),
            "training_losses_mean": _by_task(report.problem, outcome.losses.mean(axis=1)),
            "task_weights_mean": _by_task(report.problem, outcome.weights.mean(axis=1)),
        }

    return {
        "problem": report.problem.name,
        "metrics": report.problem.metric_names,
        "higher_is_better": report.problem.maximize,
        "runs": report.runs,
        "finished": report.finished,
        "settings": {
            "steps": report.steps,
            "seeds": report.seeds,
            "batch": report.problem.batch,
            "optimizer": "adam, cosine decay",
            "learning_rate": report.problem.learning_rate,
            "balanced": "the trunk; heads receive their own task's gradient",
        },
        "versions": {"jaxmtl": jaxmtl.__version__, "jax": jax.__version__},
        "single_task_metrics_per_seed": {t: _or_null(m) for t, m in report.alone.items()},
        "methods": {name: method(name, o) for name, o in report.outcomes.items()},
    }


def _by_task(problem: Problem, values: np.ndarray) -> dict[str, list[float | None]]:
    """Columns under their tasks' names, to six digits."""
    return {
        task: _or_null([float(f"{value:.6g}") for value in column])
        for task, column in zip(problem.tasks, values.T, strict=True)
    }


def _or_null(values: ArrayLike) -> list[float | None]:
    """Numbers as JSON has them, which knows no NaN: a run that diverged leaves nulls."""
    return [float(value) if np.isfinite(value) else None for value in np.asarray(values)]
