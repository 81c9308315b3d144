"""The file of a comparison's numbers, and its picture: written whole or not at all, read again."""

import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

import jaxmtl
from jaxmtl.comparison._outcome import Outcome, Setting
from jaxmtl.comparison._report import Comparison


def save(comparison: Comparison, folder: Path) -> Iterator[Path]:
    """Write the numbers, and the picture if a method has finished; yield the path of each file."""
    if not comparison.finished:
        return
    folder.mkdir(parents=True, exist_ok=True)
    stem = "comparison" if comparison.complete else "comparison-partial"
    text = json.dumps(_numbers(comparison), ensure_ascii=False)
    yield write_whole(folder / f"{stem}.json", text.encode())
    if comparison.outcomes and (picture := _as_png(comparison)) is not None:
        yield write_whole(folder / f"{stem}.png", picture)


def load(file: str | Path) -> Comparison:
    """Read a comparison from the file of numbers that ``Comparison.save`` wrote.

    Args:
      file: the path of ``comparison.json``.

    Returns:
      A ``Comparison``, with table, verdict and picture.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file does not hold a comparison.
    """
    try:
        numbers = json.loads(Path(file).read_text(encoding="utf-8"))
        settings = numbers["settings"]
        setting = Setting(
            numbers["problem"],
            tuple(numbers["metrics"]),
            numbers["higher_is_better"],
            numbers["metrics"],
            settings["steps"],
            settings["seeds"],
            settings["training"],
            tuple(numbers["runs"]),
            tuple(settings["learning_rates"]),
            tuple(settings["balanced"]),
            tuple(settings["own_gradient_only"]),
        )
        comparison = Comparison(setting)
        alone = numbers["single_task_metrics_per_seed"]
        comparison.alone = {task: _array(values) for task, values in alone.items()}
        comparison.outcomes = {n: _outcome(setting, m) for n, m in numbers["methods"].items()}
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} does not hold the numbers of a comparison, as Comparison.save writes them:"
            f" {type(error).__name__} {error}."
        ) from error
    return comparison


def check_writable(folder: Path) -> None:
    """Make the folder, and briefly a file in it; raises OSError if that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".jaxmtl-"):
        pass


def _as_png(comparison: Comparison) -> bytes | None:
    """The picture; None if matplotlib is missing."""
    try:
        from jaxmtl.comparison._picture import as_png
    except ImportError:
        return None
    return as_png(comparison)


def write_whole(path: Path, content: bytes) -> Path:
    """Write all of a file or nothing: the old content stays until the new file is complete."""
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        new.write_bytes(content)
        return new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _numbers(comparison: Comparison) -> dict[str, Any]:
    """All numbers behind table and picture, under descriptive names."""
    setting, gains = comparison.setting, comparison.delta_m

    def method(name: str, outcome: Outcome) -> dict[str, Any]:
        times = comparison.relative_time(name)
        return {
            "test_metrics_per_seed": _by_task(setting, outcome.metrics, digits=17),
            "delta_m_percent_per_seed": _or_null(gains[name]) if name in gains else None,
            "seconds_per_step_all_seeds": outcome.seconds_per_step,
            "time_per_step_relative_to_equal": None if times is None else times[1],
            "times_per_step_relative_to_equal": _or_null(outcome.relative_times),
            "training_losses_mean": _by_task(setting, outcome.losses),
            "task_weights_mean": _by_task(setting, outcome.weights),
            "task_weight_shares_mean": _by_task(setting, outcome.shares),
            "conflicting_pairs_share": _or_null([outcome.conflicts])[0],
            "longest_over_shortest_gradient": _or_null([outcome.norm_ratio])[0],
            "temporary_bytes": outcome.memory,
            "learning_rate": outcome.learning_rate,
            "broken": outcome.broken,
        }

    return {
        "problem": setting.problem,
        "metrics": setting.metric_names,
        "higher_is_better": setting.maximize,
        "runs": list(setting.runs),
        "finished": comparison.finished,
        "settings": {
            "steps": setting.steps,
            "seeds": setting.seeds,
            "training": setting.training,
            "learning_rates": list(setting.rates),
            "balanced": list(setting.balanced),
            "own_gradient_only": list(setting.own),
        },
        "versions": {"jaxmtl": jaxmtl.__version__, "jax": jax.__version__},
        "single_task_metrics_per_seed": {t: _or_null(m) for t, m in comparison.alone.items()},
        "methods": {name: method(name, o) for name, o in comparison.outcomes.items()},
        "verdict": comparison.verdict,
    }


def _outcome(setting: Setting, numbers: dict[str, Any]) -> Outcome:
    def columns(name: str) -> np.ndarray:
        return np.stack([_array(numbers[name][task]) for task in setting.tasks], axis=1)

    return Outcome(
        columns("test_metrics_per_seed"),
        columns("training_losses_mean"),
        columns("task_weights_mean"),
        columns("task_weight_shares_mean"),
        numbers["seconds_per_step_all_seeds"],
        _array(numbers["times_per_step_relative_to_equal"]),
        float(_array([numbers["conflicting_pairs_share"]])[0]),
        float(_array([numbers["longest_over_shortest_gradient"]])[0]),
        numbers["temporary_bytes"],
        numbers["broken"],
        learning_rate=numbers["learning_rate"],
    )


def _array(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _by_task(
    setting: Setting, values: np.ndarray, digits: int = 6
) -> dict[str, list[float | None]]:
    """Columns under their tasks' names."""
    return {
        task: _or_null([float(f"{value:.{digits}g}") for value in column])
        for task, column in zip(setting.tasks, values.T, strict=True)
    }


def _or_null(values: ArrayLike) -> list[float | None]:
    """Numbers for JSON, which has no NaN: a run that diverged gives nulls."""
    return [float(value) if np.isfinite(value) else None for value in np.asarray(values)]
