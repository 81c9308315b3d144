"""The main job, in short form, as a user calls it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from jaxmtl import _compare
from jaxmtl.__main__ import main
from jaxmtl.methods import METHODS


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
    assert "unknown method mdga; the methods are equal, static" in out.stderr


def test_methods_with_further_inputs_are_refused(capsys):
    assert main(["--methods", "equal", "modo"]) == 2
    assert "modo needs independent_grads at every step" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--steps", "--seeds"])
@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_numbers_that_are_none_are_refused(option, value, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([option, value])
    assert exit_.value.code == 2
    assert "must be a whole number of at least 1" in capsys.readouterr().err


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
