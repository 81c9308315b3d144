"""The main job, in short form, as a user calls it."""

import io
import json
import re
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

from jaxmtl import Problem, __main__, comparison
from jaxmtl.__main__ import main
from jaxmtl.comparison import Comparison, _saved, _training
from jaxmtl.comparison._completed import complete
from jaxmtl.comparison._contestants import DEFAULT, contestants
from jaxmtl.comparison._report import Setting
from jaxmtl.comparison._table import Column, lay_out
from jaxmtl.methods import METHODS
from jaxmtl.problems import PROBLEMS


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
    lines, around = capsys.readouterr().out.split("\n\n")
    assert [line.split()[0] for line in lines.splitlines()] == list(METHODS)
    assert "in_turn" in around


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
    assert "unknown method 'mdga' (did you mean mgda?). The methods are equal, static" in out.stderr


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
    assert "unknown problem 'yeats' (did you mean yeast?). The problems are digits" in error


OWN = """
import numpy as np, jax.numpy as jnp, jaxmtl

def losses(params, batch):
    return {"near": jnp.sum(params**2), "far": jnp.sum((params - 1) ** 2)}

problem = jaxmtl.Problem(
    init=lambda key: jnp.zeros(2), losses=losses, train=np.zeros(8), batch=2, name="My own"
)
make = lambda: problem
number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_problem.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(_saved, "_as_png", lambda comparison: b"")
    yield
    sys.modules.pop("own_problem", None)


@pytest.mark.parametrize("where", ["own_problem.py:problem", "own_problem:make"])
def test_a_problem_of_one_s_own(where, own, capsys):
    arguments = ["--problem", where, "--methods", "equal", "--seeds", "1", "--steps", "4"]
    assert main(arguments) == 0
    assert "My own: 4 steps, seeds: 1, Adam 0.001" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("own_problem.py:nothing", "own_problem.py has no 'nothing'; it has problem"),
        ("other.py:problem", "there is no file"),
        ("other_module:problem", "No module named 'other_module'"),
        ("own_problem:losses", "a function without arguments that makes one"),
        ("own_problem:number", "must be a jaxmtl.Problem"),
    ],
)
def test_a_problem_that_is_not_there_is_one_clear_line(where, message, own, capsys):
    assert main(["--problem", where, "--methods", "equal"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


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
    assert numbers["settings"]["steps"] == 60
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
    train = _training.Trainer.train

    def diverging(self, contestant, rate, advance):
        return train(self, contestant, rate, advance)._replace(metrics=np.array([[np.nan, 1.0]]))

    monkeypatch.setattr(__main__, "load", lambda name: paraboloids(2))
    monkeypatch.setattr(_training.Trainer, "train", diverging)
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
    train, calls = _training.Trainer.train, []

    def interrupted(self, contestant, rate, advance):
        if len(calls) == finished:
            raise KeyboardInterrupt
        calls.append(contestant.name)
        return train(self, contestant, rate, advance)

    monkeypatch.setattr(_training.Trainer, "train", interrupted)
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
    train = _training.Trainer.train

    def failing(self, contestant, rate, advance):
        if contestant.name == "static":
            raise RuntimeError("no")
        return train(self, contestant, rate, advance)

    monkeypatch.setattr(_training.Trainer, "train", failing)
    arguments = ["--methods", "equal", "static", "--seeds", "1", "--steps", "4"]
    with pytest.raises(RuntimeError):
        main([*arguments, "--out", str(tmp_path)])
    assert "equal" in json.loads((tmp_path / "comparison-partial.json").read_text())["methods"]


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Arguments of a comparison that takes a second."""
    monkeypatch.setattr(__main__, "load", lambda name: paraboloids(2))
    monkeypatch.setattr(_saved, "_as_png", lambda comparison: b"")
    folder = ["--out", str(tmp_path / "out")]
    return ["--methods", "equal", "--seeds", "1", "--steps", "4", *folder]


def untrained(self, contestant, rate, advance):
    raise AssertionError("training has begun")


def test_an_unusable_out_is_found_before_training(short, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_training.Trainer, "train", untrained)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main([*short, "--out", str(path)]) == 2
        error = capsys.readouterr().err
        assert f"--out must be a folder that can be written to, but '{path}' is not" in error
        assert len(error.splitlines()) == 1

    def read_only(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr(_saved.tempfile, "NamedTemporaryFile", read_only)
    (tmp_path / "there").mkdir()
    assert main([*short, "--out", str(tmp_path / "there")]) == 2
    assert "is not (Permission denied): choose another" in capsys.readouterr().err


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_out_is_refused(empty, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--out", empty])
    assert exit_.value.code == 2
    assert "argument --out: must name a folder, but it is empty" in capsys.readouterr().err


def test_what_is_refused_leaves_no_folder(short, tmp_path):
    assert main([*short, "--methods", "modo"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_shown_where_saving_fails(short, tmp_path, capsys, monkeypatch):
    train = _training.Trainer.train

    def removed(self, contestant, rate, advance):
        (tmp_path / "out").rmdir()
        (tmp_path / "out").write_text("")
        monkeypatch.setattr(_training.Trainer, "train", train)
        return train(self, contestant, rate, advance)

    monkeypatch.setattr(_training.Trainer, "train", removed)
    assert main(short) == 1
    out, error = capsys.readouterr()
    assert "single-task" in out
    assert "wrote" not in out
    assert error.startswith("jaxmtl: the results could not all be saved: ")
    assert len(error.splitlines()) == 1


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "comparison.json"
    path.write_text("earlier")

    def half(self, content):
        with open(self, "wb") as file:
            file.write(content[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_saved.Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space"):
        _saved.write_whole(path, b"later")
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_handlers_come_back(number, short, tmp_path, capsys, monkeypatch):
    train, handlers = _training.Trainer.train, []

    def stopped(self, contestant, rate, advance):
        if contestant.name == "equal":
            try:
                signal.raise_signal(number)
            finally:
                handlers.extend(map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)))
        return train(self, contestant, rate, advance)

    monkeypatch.setattr(_training.Trainer, "train", stopped)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert main(short) == 128 + number
    assert "2 of 3 runs finished" in capsys.readouterr().out
    assert (tmp_path / "out" / "comparison-partial.json").exists()
    assert handlers == [signal.SIG_DFL, signal.SIG_DFL]  # the second ends the process at once
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.slow
def test_sigterm_to_a_process_saves(tmp_path):
    arguments = ["--problem", "toy", "--methods", "equal", "gradnorm", "pcgrad", "mgda"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "jaxmtl", *arguments, "--steps", "400000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("finished 1/6 single:first (about ")
    process.terminate()
    out, error = process.communicate(timeout=120)
    assert process.returncode == 143, error
    assert "of 6 runs finished" in out
    assert "single-task" in out
    assert (tmp_path / "jaxmtl-results" / "comparison-partial.json").exists()


def test_all_unknown_methods_are_named(capsys):
    assert main(["--methods", "mdga", "equal", "PCGrad", "nash-mtl", "zzz", ""]) == 2
    assert (
        "unknown methods 'mdga' (did you mean mgda?), 'PCGrad' (did you mean pcgrad?), 'nash-mtl'"
        " (did you mean nash_mtl?), 'zzz', ''. The methods are" in capsys.readouterr().err
    )


def test_all_beside_other_methods_is_all(capsys):
    assert main(["--methods", "all", "modo", "moco"]) == 2  # all that can; modo was asked for
    assert "modo needs independent_grads" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--seeds", 10**12), ("--steps", 2 * 10**9)])
def test_more_than_memory_holds_is_refused(option, value, short, capsys):
    assert main([*short, option, str(value)]) == 2
    error = capsys.readouterr().err
    assert f"{option[2:]}={value}" in error
    assert "GiB of memory, more than the 8" in error


@pytest.mark.parametrize("package", ["matplotlib", "rich"])
def test_without_further_packages_there_is_a_table(package, short, tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(__main__, "load", lambda name: paraboloids(2))
    monkeypatch.delattr(comparison, "_picture", raising=False)
    for name in list(sys.modules):
        if name.partition(".")[0] == package or name == "jaxmtl.comparison._picture":
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(short) == 0
    shown = capsys.readouterr().out
    assert "single-task" in shown
    assert (tmp_path / "out" / "comparison.json").exists()
    if package == "matplotlib":
        assert "No picture was made: it needs matplotlib" in shown
        with pytest.raises(ImportError, match="needs matplotlib: pip install matplotlib"):
            report().plot()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_signs_that_the_output_does_not_know(encoding, short, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*short, "--seeds", "2"]) == 0
    out.seek(0)
    shown = out.read()
    assert "value v" in shown
    assert "Dm: mean" in shown
    assert "?" not in re.sub(r"\s\?\s", " ", shown.split("Dm: mean")[0])


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space")])
def test_an_output_that_takes_no_more(error, capsys, monkeypatch, tmp_path):
    class Full(io.StringIO):
        def write(self, text):
            raise error

        def fileno(self):
            raise OSError

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["--list"]) == 1
    said = capsys.readouterr().err
    assert said == ("" if isinstance(error, BrokenPipeError) else "jaxmtl: [Errno 28] No space\n")


def report(num_tasks=4):
    """A comparison of two methods with made-up metrics of four digits and a sign."""
    tasks = tuple(f"task_{i}" for i in range(num_tasks))
    words = dict.fromkeys(tasks, "mean error")
    setting = Setting("Made up", tasks, dict.fromkeys(tasks, False), words, 100, 2, "Adam", ())
    made = Comparison(setting)
    made.alone = {task: np.array([0.1, 0.2]) for task in tasks}
    for i, name in enumerate(("equal", "real_time_loss")):
        metrics = np.linspace(-1.5, 1.5, 2 * num_tasks).reshape(2, num_tasks) + i
        times, steps = np.linspace(1, 1 + i / 4, 8), np.ones((100, num_tasks))
        made.outcomes[name] = _training.Outcome(metrics, steps, steps, steps, 1.0, times)
    return made


@pytest.mark.parametrize("num_tasks", [4, 7])
def test_a_table_leaves_out_whole_columns(num_tasks):
    """At every width, each number stands as in the widest table, or not at all."""
    made = report(num_tasks)
    wide = made.table(200)
    assert "Left out" not in wide
    numbers = set(re.findall(r"[-+\d][.\d–]*", wide)) | set("0123456789")
    for width in (40, 60, 80, 120):
        table = made.table(width)
        assert max(map(len, table.splitlines())) <= width
        assert "…" not in table
        body, _, note = table.partition("Left out")
        rows = re.findall(r"^real_time_loss.*", body, re.MULTILINE)
        assert set(re.findall(r"[-+\d][.\d–]*", rows[0])) <= numbers
        note = " ".join(note.split())
        if width == 40:
            assert "memory (MiB). The saved numbers have all of them" in note
            enough = int(re.search(r"COLUMNS=(\d+)", note)[1])
            assert "Left out" in made.table(enough - 1)
            assert "Left out" not in made.table(enough)


def test_columns_go_in_the_order_that_they_can_be_spared():
    columns = [
        Column("method", "", ["equal"]),
        Column("first", "accuracy ↑", ["0.123"], spare=1),
        Column("second", "accuracy ↑", ["0.456"], spare=2),
        Column("Δm ↑", "", ["-1.2 ± 0.3"]),
    ]
    assert lay_out(columns, 80).splitlines() == [
        "             first      second",
        "method  accuracy ↑  accuracy ↑        Δm ↑",
        "equal        0.123       0.456  -1.2 ± 0.3",
    ]
    broken = lay_out(columns, 36).splitlines()
    assert broken[1:3] == ["       accuracy accuracy", "method        ↑        ↑       Δm ↑"]
    assert "second" not in lay_out(columns, 30).splitlines()[0]
    assert lay_out(columns, 5).splitlines()[1] == "equal  -1.2 ± 0.3"


@pytest.mark.parametrize("columns", [None, "40", "0", "many"])
def test_the_width_is_that_of_the_terminal_or_80(columns, short, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert main([*short, "--seeds", "2"]) == 0
    shown = capsys.readouterr().out.partition("Paraboloids")[2].partition("wrote")[0]
    longest = max(map(len, shown.splitlines()))
    assert longest <= 40 if columns == "40" else 70 <= longest <= 80


def test_times_are_ratios_of_pairs(monkeypatch):
    """A machine that becomes ten times slower midway does not change the ratio of two programs."""
    completed = complete(paraboloids(2))
    comparison = _training.Trainer(completed, steps=200, seeds=1)
    calls = []

    def timed(program, *arguments):
        calls.append(program)
        slow = 10 if len(calls) > 15 else 1
        seconds = 0.03 if program is own else 0.01
        steps = int(arguments[-2])
        return program(*arguments), steps * slow * seconds

    equal, other = contestants(completed.problem, ["equal", "initial_loss"])
    own = comparison._compile(other)[1]
    monkeypatch.setattr(_training, "_timed", timed)
    outcome = comparison.train(other, 0.1, lambda steps: None)
    np.testing.assert_allclose(outcome.relative_times, [3.0] * 10, rtol=1e-9)
    assert len(calls) == 30
    np.testing.assert_array_equal(comparison.train(equal, 0.1, lambda n: None).relative_times, 1)


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        ([1.0] * 20, "1.0"),
        ([1.9, 1.9, 2.0, 2.1, 2.1], "1.9–2.1"),
        ([0.8, 1.9, 2.0, 2.1, 9.0], "1.9–2.1"),  # outliers do not count
        ([0.8, 0.8, 2.0, 3.0, 9.0], "?"),
        ([2.0, 2.0, 2.0, 2.0], "?"),
        ([], "?"),
    ],
)
def test_times_are_shown_where_they_can_be_told(times, shown):
    made = report()
    outcome = made.outcomes["equal"]._replace(relative_times=np.array(times))
    made.outcomes["equal"] = outcome
    row = re.search(r"^equal.*", made.table(120), re.MULTILINE)[0]
    assert row.split()[-2] == shown  # before the rank
