"""The main job, in short form, as a user calls it."""

import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

from jaxmtl import __main__
from jaxmtl.__main__ import DEFAULT, main
from jaxmtl.comparison import _training as _compare
from jaxmtl.methods import METHODS
from jaxmtl.problems import PROBLEMS
from jaxmtl.problems._problem import Problem


@pytest.mark.slow
def test_a_short_comparison(tmp_path, capsys):
    out = tmp_path / "deep" / "results"
    names = ["equal", "normalize", "initial_loss"]
    assert main(["--methods", *names, "--seeds", "2", "--steps", "40", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "single-task" in shown
    assert all(name in shown for name in names)
    assert "of this problem in these units" in shown.replace("\n", " ")  # no universal ranking
    numbers = json.loads((out / "comparison.json").read_text())
    assert list(numbers["methods"]) == names
    assert numbers["settings"]["steps"] == 40
    equal = numbers["methods"]["equal"]
    assert equal["time_per_step_relative_to_equal"] == 1
    assert np.all(np.array(equal["task_weights_mean"]["left"]) == 0.25)
    assert len(equal["training_losses_mean"]["sum"]) == 40
    # The first losses of all methods are the same: one start, one order of batches.
    first = {n: m["training_losses_mean"]["sum"][0] for n, m in numbers["methods"].items()}
    assert len(set(first.values())) == 1
    # What the table says can be worked out again from the file.
    alone, changes = numbers["single_task_metrics_per_seed"], []
    for task, per_seed in equal["test_metrics_per_seed"].items():
        sign = 1 if numbers["higher_is_better"][task] else -1
        reference = np.mean(alone[task])
        changes.append(sign * (np.array(per_seed) - reference) / reference)
    np.testing.assert_allclose(
        100 * np.mean(changes, axis=0), equal["delta_m_percent_per_seed"], rtol=1e-3
    )
    assert imread(out / "comparison.png").shape[0] > 500


@pytest.mark.slow
def test_training_learns_and_balancing_matters(tmp_path):
    """The large effect that the problem is there to show, on two seeds and 200 steps."""
    arguments = ["--methods", "equal", "normalize", "--seeds", "2", "--steps", "200"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    numbers = json.loads((tmp_path / "comparison.json").read_text())
    equal, normalize = (numbers["methods"][name] for name in ("equal", "normalize"))
    assert np.mean(numbers["single_task_metrics_per_seed"]["left"]) > 0.9
    gain = np.mean(normalize["delta_m_percent_per_seed"]) - np.mean(
        equal["delta_m_percent_per_seed"]
    )
    assert gain > 5


def test_list(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(METHODS)


def test_a_wrong_name_is_one_clear_line_and_status_2():
    out = subprocess.run(
        [sys.executable, "-m", "jaxmtl", "--methods", "equal", "mdga"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 2
    assert out.stdout == ""
    assert len(out.stderr.splitlines()) == 1
    assert "unknown method mdga; did you mean mgda? The methods are equal, static" in out.stderr


def test_methods_with_further_inputs_are_refused(capsys):
    assert main(["--methods", "equal", "modo"]) == 2
    assert "modo needs independent_grads at every step" in capsys.readouterr().err


def test_help_names_the_problems(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"{name}:" in shown for name in PROBLEMS)


def test_a_wrong_problem_is_one_clear_line_and_status_2(capsys):
    assert main(["--problem", "yeats"]) == 2
    error = capsys.readouterr().err
    assert "unknown problem yeats; did you mean yeast? The problems are digits" in error


@pytest.mark.parametrize("error", [ImportError, FileNotFoundError])
def test_missing_data_are_one_clear_line_and_status_1(error, tmp_path, capsys, monkeypatch):
    def missing(name):
        raise error(f"{name} is not there: pip install it.")

    monkeypatch.setattr(__main__, "load", missing)
    assert main(["--problem", "yeast", "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "jaxmtl: yeast is not there: pip install it.\n")


def paraboloids(num_tasks):
    """A point and its squared distances from others, less a constant: without heads or theory."""
    tasks = tuple(f"task_{i:02}" for i in range(num_tasks))
    centres = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (num_tasks, 2)), jnp.float32)

    def losses(params, batch):
        del batch
        squares = jnp.sum((params["trunk"]["point"][None, :] - centres) ** 2, axis=1)
        return dict(zip(tasks, squares - 20, strict=True))

    index = {"index": np.arange(4)}
    return Problem(
        name="Paraboloids",
        tasks=tasks,
        init=lambda key: {"trunk": {"point": jnp.zeros(2)}, "heads": {}},
        losses=losses,
        metrics=losses,
        maximize=dict.fromkeys(tasks, False),
        metric_names=dict.fromkeys(tasks, "value"),
        train=index,
        validation=index,
        test=index,
        learning_rate=0.1,
        batch=2,
        steps=60,
    )


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [2, 7])
def test_a_problem_without_heads_and_without_theory(num_tasks, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(__main__, "load", lambda name: paraboloids(num_tasks))
    assert main(["--problem", "toy", "--seeds", "1", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    title = "Paraboloids: 60 steps, seeds: 1, Adam 0.1 with cosine decay, batch 2"
    assert title in " ".join(shown.split())
    numbers = json.loads((tmp_path / "comparison.json").read_text())
    assert list(numbers["methods"]) == [n for n in DEFAULT if n not in ("static", "prior_loss")]
    settings = numbers["settings"]
    assert (settings["steps"], settings["batch"], settings["learning_rate"]) == (60, 2, 0.1)
    # Alone, a task reaches its own centre, -20; together they cannot, and losses below zero do not
    # turn the sign of what is worse.
    for values in numbers["single_task_metrics_per_seed"].values():
        np.testing.assert_allclose(values, -20, atol=0.05)
    assert -100 < numbers["methods"]["mgda"]["delta_m_percent_per_seed"][0] < 0
    assert imread(tmp_path / "comparison.png").shape[1] > 500
    assert ("gains most" in shown) == (num_tasks > 5)


@pytest.mark.parametrize(
    ("method", "lacks"),
    [("static", "targets that can be standardised"), ("prior_loss", "the best constant output")],
)
def test_methods_that_need_what_the_problem_lacks(method, lacks, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(__main__, "load", lambda name: paraboloids(2))
    assert main(["--methods", "equal", method, "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert f"{method} needs" in err
    assert f"{lacks}, which Paraboloids does not have" in err


def test_runs_that_diverge_leave_valid_json(tmp_path, monkeypatch):
    train = _compare.Comparison.train

    def diverging(self, contestant, advance):
        return train(self, contestant, advance)._replace(metrics=np.array([[np.nan, 1.0]]))

    monkeypatch.setattr(__main__, "load", lambda name: paraboloids(2))
    monkeypatch.setattr(_compare.Comparison, "train", diverging)
    arguments = ["--methods", "equal", "--seeds", "1", "--steps", "4", "--out", str(tmp_path)]
    assert main(arguments) == 0

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "comparison.json").read_text()
    numbers = json.loads(text, parse_constant=refuse)
    assert numbers["methods"]["equal"]["delta_m_percent_per_seed"] == [None]


@pytest.mark.parametrize("option", ["--steps", "--seeds"])
@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_numbers_that_are_none_are_refused(option, value, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([option, value])
    assert exit_.value.code == 2
    assert "must be a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("finished", [0, 2, 5])
def test_interruption_keeps_what_was_finished(finished, tmp_path, capsys, monkeypatch):
    train, calls = _compare.Comparison.train, []

    def interrupted(self, contestant, advance):
        if len(calls) == finished:
            raise KeyboardInterrupt
        calls.append(contestant.name)
        return train(self, contestant, advance)

    monkeypatch.setattr(_compare.Comparison, "train", interrupted)
    (tmp_path / "comparison.json").write_text("{}")
    arguments = ["--methods", "equal", "static", "--seeds", "1", "--steps", "4"]
    assert main([*arguments, "--out", str(tmp_path)]) == 130
    shown = capsys.readouterr().out
    done = max(finished - 4, 0)
    assert f"{finished} of 6 runs finished" in shown
    # What an earlier, complete comparison left stays.
    assert (tmp_path / "comparison.json").read_text() == "{}"
    partial = tmp_path / "comparison-partial.json"
    assert partial.exists() == (finished > 0)
    assert (tmp_path / "comparison-partial.png").exists() == (done > 0)
    if finished:
        numbers = json.loads(partial.read_text())
        assert len(numbers["single_task_metrics_per_seed"]) == min(finished, 4)
        assert len(numbers["methods"]) == done


@pytest.mark.slow
def test_a_failing_method_loses_nothing_of_the_others(tmp_path, monkeypatch):
    train = _compare.Comparison.train

    def failing(self, contestant, advance):
        if contestant.name == "static":
            raise RuntimeError("no")
        return train(self, contestant, advance)

    monkeypatch.setattr(_compare.Comparison, "train", failing)
    arguments = ["--methods", "equal", "static", "--seeds", "1", "--steps", "4"]
    with pytest.raises(RuntimeError):
        main([*arguments, "--out", str(tmp_path)])
    assert "equal" in json.loads((tmp_path / "comparison-partial.json").read_text())["methods"]


def test_out_must_be_a_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file")]) == 2
    assert "--out must be a folder" in capsys.readouterr().err
