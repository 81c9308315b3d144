"""Published tables, run again: the protocol, the file, what is stored."""

import json
import signal
import sys
from subprocess import PIPE, Popen

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from jaxmtl.reproductions import PUBLISHED, __main__, _runs, load
from jaxmtl.reproductions._contestants import CONFIG, DCGD, Contestant, annealed_as_coded
from jaxmtl.reproductions._equations import trainer
from jaxmtl.reproductions._experiments import EXPERIMENTS
from jaxmtl.reproductions._runs import TABLES, Experiment, Run, missing, plan

pytestmark = pytest.mark.usefixtures("quick_compiler")


def residuals(params, batch):
    u = jnp.tanh(batch["inside"] @ params["trunk"])[:, 0]
    error = u - jnp.sum(batch["inside"], axis=1)
    return {"boundary": 3 * error[:4], "residual": error}


def tiny(inside=8):
    """Two parameters, and residuals as of an equation."""
    grid = np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)
    return jaxmtl.Problem(
        init=lambda key: {"trunk": jax.random.normal(key, (2, 1))},
        losses=lambda params, batch: {
            task: jnp.mean(r**2) for task, r in residuals(params, batch).items()
        },
        metrics=lambda params, split: {
            "boundary": jnp.float32(0),
            "residual": jnp.sqrt(jnp.mean(residuals(params, split)["residual"] ** 2)),
        },
        sample=lambda key: {"inside": jax.random.uniform(key, (inside, 2))},
        test={"inside": grid},
        tasks=("boundary", "residual"),
    )


SMALL = Experiment(
    problems={"tiny": 8},
    rows=dict.fromkeys(("equal", "conflict_free"), ()),
    rates=(0.1, 0.01),
    seeds=2,
    steps=6,
    block=lambda size: 2,
    trainer=lambda problem, size, row, block: trainer(tiny(size), residuals, DCGD[row], 0.9, block),
)


@pytest.mark.slow
def test_the_protocol_is_that_of_a_loop_by_hand():
    """Equal weights and Adam over the thousandth step, where the rate falls."""
    problem, block, steps = tiny(), 60, 1080
    train = trainer(problem, residuals, DCGD["equal"], 0.5, block)
    advanced = []
    found = train(0.05, 2, steps, advanced.append)
    assert sum(advanced) == 2 * steps
    for seed, key in enumerate(jax.random.split(jax.random.key(0), 2)):
        params, errors, smallest, best = problem.init(key), [], np.inf, None
        adam = optax.inject_hyperparams(optax.adam)(0.05)
        state = adam.init(params)

        @jax.jit
        def step(params, state, number, key=key, adam=adam):
            batch = problem.sample(jax.random.fold_in(key, number))
            losses, grads = problem.losses(params, batch), jax.jacrev(problem.losses)(params, batch)
            mean = jax.tree.map(lambda a, b: (a + b) / 2, grads["boundary"], grads["residual"])
            updates, state = adam.update(mean, state, params)
            return optax.apply_updates(params, updates), state, sum(losses.values())

        for number in range(steps):
            state.hyperparams["learning_rate"] = jnp.float32(0.05 * 0.5 ** (number // 1000))
            params, state, total = step(params, state, number)
            if total < smallest:
                smallest, best = total, problem.metrics(params, problem.test)["residual"]
            if (number + 1) % block == 0:
                errors.append(problem.metrics(params, problem.test)["residual"])
        np.testing.assert_allclose(found["at_last"][seed], errors[-1], rtol=1e-3)
        np.testing.assert_allclose(found["at_smallest_loss"][seed], best, rtol=1e-3)
        np.testing.assert_allclose(found["smallest"][seed], min(errors), rtol=1e-3)
        curve = [errors[step // block - 1] for step in found["of_curve"]]
        np.testing.assert_allclose(np.array(found["curve"])[:, seed], curve, rtol=1e-3)


def test_traces_are_those_of_the_points_and_parameters_of_the_block():
    """After one step with NTK weights the parameters are those of weights made by hand."""
    weights = []

    def spy(key, optimizer):
        def update(grads, state, params=None, *, ntk_traces, **extra):
            jax.debug.callback(lambda x: weights.append(np.asarray(x)), ntk_traces)
            return jax.tree.map(lambda g: g.sum(axis=0), grads), state

        spied = optax.GradientTransformationExtraArgs(lambda params: (), update)
        return optax.chain(spied, optimizer)

    trainer(tiny(), residuals, Contestant(spy, traces=True), 1.0, 1)(0.1, 1, 2, lambda n: None)
    key = jax.random.split(jax.random.key(0), 1)[0]
    params = tiny().init(key)
    batch = tiny().sample(jax.random.fold_in(key, 0))
    jacobians = jax.jacrev(lambda p: residuals(p, batch))(params)
    expected = [np.sum(np.square(j["trunk"])) / len(j["trunk"]) for j in jacobians.values()]
    np.testing.assert_allclose(np.stack(weights).reshape(2, 2), [expected, expected], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", DCGD)
def test_every_row_trains(name):
    found = trainer(tiny(), residuals, DCGD[name], 0.9, 2)(0.03, 2, 100, lambda n: None)
    assert np.all(np.array(found["at_last"]) < np.array(found["curve"][0]))


def test_a_column_is_done_before_the_next():
    runs = plan(
        EXPERIMENTS["dcgd"],
        problems=["klein_gordon", "helmholtz"],
        rows=["equal", "mgda"],
        rates=[1e-3, 1e-4],
        seeds=3,
        steps=1000,
        size=None,
    )
    columns = [(run.problem, run.rate) for run in runs]
    assert columns == [c for c in dict.fromkeys(columns) for _ in range(2)]
    assert {run.problem: run.size for run in runs} == {"klein_gordon": 128, "helmholtz": 1280}
    assert missing(runs, [run._asdict() | {"at_last": []} for run in runs[:3]]) == runs[3:]
    only_its_own = plan(
        EXPERIMENTS["config"],
        problems=["burgers"],
        rows=list(CONFIG),
        rates=[5e-4, 1e-4],
        seeds=1,
        steps=10,
        size=20,
    )
    rows = [(run.row, run.rate) for run in only_its_own]
    fast = [("Adam", 5e-4), ("ConFIG", 5e-4), ("M-ConFIG", 5e-4)]
    assert rows == [*fast, ("Adam", 1e-4), ("ConFIG", 1e-4)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_goes_on_where_it_stopped(number, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(EXPERIMENTS, "dcgd", SMALL)
    out, ran = tmp_path / "deep" / "runs.json", []

    def interrupted(train_all, run, advance):
        ran.append((run.row, run.rate))
        if len(ran) == 1:  # another process, at the same time
            _runs.add(out, [run._asdict() | {"seeds": 77}])
        if len(ran) == 3:
            signal.raise_signal(number)
        return run._asdict() | {"at_last": [0.5, 0.25]}

    monkeypatch.setattr(__main__, "train", interrupted)
    before = signal.getsignal(number)
    assert __main__.main(["dcgd", "--out", str(out)]) == 128 + number
    assert signal.getsignal(number) == before
    assert "the same command goes on" in capsys.readouterr().out
    assert len(json.loads(out.read_text())) == 3
    assert __main__.main(["dcgd", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "2 of 4 runs are in" in shown
    assert "finished 2/2 tiny conflict_free 0.01" in shown
    names = [("equal", 0.1), ("conflict_free", 0.1), ("equal", 0.01), ("conflict_free", 0.01)]
    assert ran == [*names[:3], *names[2:]]
    other, *runs = json.loads(out.read_text())
    assert other["seeds"] == 77
    assert [(run["row"], run["rate"]) for run in runs] == names
    assert sorted(path.name for path in out.parent.iterdir()) == [".runs.json.lock", "runs.json"]


ADDS = """
import sys
from pathlib import Path
from jaxmtl.reproductions._runs import Run, add

print("ready", flush=True)
sys.stdin.readline()
for seeds in range(50):
    add(Path(sys.argv[1]), [Run("tiny", 8, "equal", 0.1, seeds, 6)._asdict()])
"""


def test_processes_share_a_file(tmp_path):
    """Everything is kept of two that add at the same time, and neither sees a part of the file."""
    out, rows = tmp_path / "runs.json", ("equal", "mgda")
    command = [sys.executable, "-c", ADDS, str(out)]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        for seeds in range(50):
            _runs.add(out, [Run("tiny", 8, "mgda", 0.1, seeds, 6)._asdict()])
    assert other.returncode == 0
    found = [(run["row"], run["seeds"]) for run in _runs.read(out)]
    assert sorted(found) == [(row, seeds) for row in rows for seeds in range(50)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".runs.json.lock", "runs.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dcgd", "--rows", "mdga"], "unknown rows mdga: there are equal, "),
        (["dcgd", "--problems", "burgers"], "unknown problems burgers: there are klein_gordon"),
        (["dcgd", "--steps", "123"], "--steps must be a multiple of 500, but it is 123"),
        (["config", "--seeds", "0"], "must be a whole number of at least 1, but it is '0'"),
        (["other"], "invalid choice: 'other'"),
        (["config", "--rates", "nan"], "must be a finite number above zero, but it is 'nan'"),
        (["config", "--rates", "0"], "must be a finite number above zero, but it is '0'"),
        (["config", "--rates", "fast"], "must be a finite number above zero, but it is 'fast'"),
        (
            ["config", "--rows", "Adam", "M-ConFIG", "--rates", "1e-4"],
            "--rates must include one of each row's own, but they are 0.0001: M-ConFIG has 0.0005",
        ),
        (["config", "--rates", "1", "2"], "but they are 1, 2: Adam has 0.0001, 0.0005; ConFIG has"),
        (["iwrm", "--size", "16"], "size must be a multiple of 32 from 32 to 60000, but it is 16"),
        (["iwrm", "--size", "60032"], "from 32 to 60000, but it is 60032"),
        (["iwrm", "--size", "2048"], "--steps must be a multiple of 64, but it is 800"),
        (["qm9", "--size", "110832"], "size must leave 20000 of the 130831 molecules"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        __main__.main(arguments)
    assert refused.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[{", "runs.json does not hold runs as this command writes them (JSONDecodeError"),
        (b"\xff", "(UnicodeDecodeError"),
        (b"{}", "(it is not a list of runs)"),
        (b'["equal"]', "(it is not a list of runs)"),
        (b'[{"row": "equal"}]', "(a run lacks problem, size, rate, seeds, steps)"),
        (None, "--out must name a file, but runs.json is a folder"),
    ],
)
def test_a_file_that_does_not_serve(content, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "runs.json"
    if content is None:
        out.mkdir()
    else:
        out.write_bytes(content)
    with pytest.raises(SystemExit) as refused:
        __main__.main(["dcgd", "--out", "runs.json"])
    assert refused.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert error.endswith("move it away, or name another with --out")
    assert content is None or out.read_bytes() == content


@pytest.mark.parametrize("out", ["file/runs.json", "file/deep/runs.json"])
def test_a_folder_that_cannot_be_written(out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as refused:
        __main__.main(["dcgd", "--out", out])
    assert refused.value.code == 2
    assert f"--out must be a file that can be written to, but {out} is not (" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize("error", [ImportError, FileNotFoundError, ValueError])
def test_data_that_are_missing_are_missed_before_the_first_training(
    error, tmp_path, monkeypatch, capsys
):
    def fails(problem, size, row, block):
        if row == "conflict_free":
            raise error("The data are not there: install them.")

    monkeypatch.setitem(EXPERIMENTS, "dcgd", SMALL._replace(trainer=fails))
    monkeypatch.setattr(__main__, "train", None)
    with pytest.raises(SystemExit) as refused:
        __main__.main(["dcgd", "--out", str(tmp_path / "runs.json")])
    assert refused.value.code == 2
    assert capsys.readouterr().err.endswith("The data are not there: install them.\n")


def test_what_is_named_twice_runs_once(tmp_path, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "dcgd", SMALL)
    monkeypatch.setattr(__main__, "train", lambda train_all, run, advance: run._asdict())
    out, rows = tmp_path / "runs.json", ["--rows", "equal", "equal"]
    twice = ["--problems", "tiny", "tiny", "--rates", "5e-4", "0.0005", *rows]
    assert __main__.main(["dcgd", "--out", str(out), *twice]) == 0
    assert len(_runs.read(out)) == 1


def test_a_run_of_the_command_line():
    run = Run("tiny", 5, "conflict_free", 0.1, 2, 6)
    train_all = SMALL.trainer("tiny", 5, "conflict_free", 2)
    record = __main__.train(train_all, run, lambda n: None)
    assert {field: record[field] for field in Run._fields} == run._asdict()
    assert record["of_curve"] == [2, 4, 6]
    assert len(record["at_last"]) == len(record["at_smallest_loss"]) == len(record["curve"][0]) == 2


def test_annealing_comes_to_rest_at_the_root():
    """By hand in float64: kernels' means of means, the weighted gradient in the denominator."""
    rng = np.random.default_rng(0)
    grads = {
        name: {"bias": rng.normal(size=(2, 3)), "kernel": rng.normal(size=(2, rows, 3))}
        for name, rows in (("layer_0", 2), ("layer_1", 5))
    }
    given = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), grads)
    balance, weight = annealed_as_coded(), 1.0
    state = balance.init(None)
    kernels = [layer["kernel"] for layer in grads.values()]
    ratio = max(abs(k[1]).max() for k in kernels) / np.mean([abs(k[0]).mean() for k in kernels])
    update = jax.jit(balance.update)
    for step in range(500):
        updates, state = update(given, state)
        expected = weight * grads["layer_0"]["bias"][0] + grads["layer_0"]["bias"][1]
        np.testing.assert_allclose(updates["layer_0"]["bias"], expected, rtol=1e-4, atol=1e-5)
        if step % 10 == 0:
            weight = 0.9 * weight + 0.1 * ratio / weight
    np.testing.assert_allclose(state[0], np.sqrt(ratio), rtol=1e-3)


def test_a_run_that_diverges_is_stored_as_null(tmp_path):
    diverges = Contestant(lambda key, optimizer: optax.chain(jaxmtl.equal(), optax.sgd(1e30)))
    found = trainer(tiny(), residuals, diverges, 0.9, 2)(1.0, 2, 4, lambda n: None)
    _runs.add(tmp_path / "runs.json", [found])
    assert found == json.loads((tmp_path / "runs.json").read_text())[0]
    assert all(error is None or np.isfinite(error) for error in found["at_last"])


@pytest.mark.parametrize("name", TABLES)
def test_each_stored_run_is_of_its_table_and_there_once(name):
    experiment, runs = EXPERIMENTS[name], load(name)
    keys = [tuple(run[field] for field in Run._fields) for run in runs]
    assert len(set(keys)) == len(keys)
    for run in runs:
        assert run["problem"] in experiment.problems
        assert run["row"] in experiment.rows
        assert run["steps"] % experiment.block(run["size"]) == 0


def test_what_is_stored():
    for name in ("dcgd", "config"):
        for run in load(name):
            for field in ("at_smallest_loss", "at_last", "smallest"):
                assert len(run[field]) == run["seeds"]
            assert run["of_curve"][-1] == run["steps"]
            np.testing.assert_allclose(run["curve"][-1], run["at_last"], rtol=1e-3)
    with pytest.raises(ValueError, match="name must be one of dcgd, config"):
        load("dcdg")
    rows = {name for problem in ("helmholtz", "klein_gordon") for name in PUBLISHED[problem]}
    assert rows <= set(DCGD)
    assert tuple(EXPERIMENTS) == TABLES
