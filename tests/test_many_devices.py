"""Sharded parameters and data give the numbers of one device, and move little else."""

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests import references
from tests.devices import problem
from tests.devices.sharded import LAYOUTS, SHARDED

# One worker, which runs each process once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("many_devices")]

ROOT = Path(__file__).parent.parent
SECONDS = 300
SECONDS_OF_TWO_PROCESSES = 120
FLAG = {"auto": "pred[]", "explicit": "s32[]"}
SQUARE = f"f32[{problem.NUM_TASKS},{problem.NUM_TASKS}]"
# The smallest stacked leaf but for a scalar's.
SMALLEST_STACK = problem.NUM_TASKS * min(p.size for p in problem.leaves() if p.ndim)

layouts = pytest.mark.parametrize("layout", LAYOUTS)
sharded_layouts = pytest.mark.parametrize("layout", SHARDED)
methods = pytest.mark.parametrize("name", problem.UPDATED)


def start(module, *arguments, devices=1, **options):
    # Without LLVM's optimisations, which take half of the time and move nothing between devices.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    # Waiting devices hold threads of a pool that has NPROC of them.
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "NPROC": "16", "XLA_FLAGS": flags}
    command = [sys.executable, "-m", f"tests.devices.{module}", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **options)


def run_sharded(kind):
    return run_program("sharded", kind, devices=1 if kind == "alone" else 8)


def run_program(module, *arguments, devices):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(module, *arguments, devices=devices, **pipes)
    try:
        out, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    return json.loads(out)


def run_two_processes(folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    deadline = time.monotonic() + SECONDS_OF_TWO_PROCESSES
    outs = [folder / f"{i}.json" for i in range(2)]
    logs = [folder / f"{i}.log" for i in range(2)]
    processes = []
    try:
        for i in range(2):
            with logs[i].open("w") as log:
                processes.append(start("process", i, port, outs[i], stdout=log, stderr=log))
        while not all(out.exists() for out in outs):
            ended = any(p.poll() not in (None, 0) for p in processes)
            if ended or time.monotonic() > deadline:
                said = "\n".join(log.read_text()[-4000:] for log in logs)
                raise AssertionError(f"{'Ended early' if ended else 'Out of time'}:\n{said}")
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()  # they would not listen to SIGTERM
            process.wait()
    return [json.loads(out.read_text()) for out in outs]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All processes, two at a time; one that fails or hangs fails its own tests."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        futures = {kind: pool.submit(run_sharded, kind) for kind in ("auto", "explicit", "alone")}
        two = pool.submit(run_two_processes, tmp_path_factory.mktemp("processes"))
        yield futures | {"processes": two}


@pytest.fixture(scope="module")
def alone(runs):
    return runs["alone"].result()["alone"]


@pytest.fixture(scope="module", params=["auto", "explicit"])
def kind(request):
    """The type of the mesh."""
    return request.param


@pytest.fixture(scope="module")
def sharded(kind, runs):
    """Results by layout."""
    return runs[kind].result()


def rows(lists, count):
    """Arrays by path, as ``count`` vectors."""
    arrays = [np.asarray(lists[path], np.float64) for path in sorted(lists)]
    return np.concatenate([array.reshape(count, -1) for array in arrays], axis=1)


def stacks():
    """The stacked gradients as float64 matrices, (T, P) for each update."""
    flat = [g.reshape(problem.UPDATES, problem.NUM_TASKS, -1) for g in problem.stacked_leaves()]
    return np.concatenate(flat, axis=2).astype(np.float64)


def assert_rows_agree(actual, expected):
    assert actual.shape == expected.shape
    for got, wanted in zip(actual, expected, strict=True):
        assert references.relative_error(got, wanted) < 1e-5


@layouts
@methods
def test_updates_and_weights_are_those_of_one_device(sharded, alone, layout, name):
    result, expected = sharded[layout]["all"], alone["all"]
    assert name not in result["failed"], result["failed"][name]
    updates, on_one = (rows(r["updates"][name], problem.UPDATES) for r in (result, expected))
    assert_rows_agree(updates, on_one)
    assert_rows_agree(np.array(result["weights"][name]), np.array(expected["weights"][name]))


@layouts
@pytest.mark.parametrize(
    ("name", "weights_of"),
    [
        ("mgda", references.min_norm_weights),
        ("normalize", lambda j: 1 / np.linalg.norm(j, axis=1)),
    ],
)
def test_updates_and_weights_are_those_of_float64(sharded, layout, name, weights_of):
    weights = np.array([weights_of(j) for j in stacks()])
    result = sharded[layout]["all"]
    assert_rows_agree(np.array(result["weights"][name]), weights)
    combined = np.einsum("st,stp->sp", weights, stacks())
    assert_rows_agree(rows(result["updates"][name], problem.UPDATES), combined)


def test_the_gradients_are_such_that_methods_differ(alone):
    """Else agreement would say little."""
    for j in stacks():
        assert np.all((j @ j.T)[~np.eye(problem.NUM_TASKS, dtype=bool)] < 0)
    weights = {name: np.array(w[-1]) for name, w in alone["all"]["weights"].items()}
    assert np.all(weights["mgda"] > 0)
    assert np.ptp(weights["pcgrad"]) > 0.1
    assert np.ptp(weights["upgrad"]) > 0.1


@layouts
@methods
def test_updates_lie_where_the_parameters_do(sharded, layout, name):
    assert name not in sharded[layout]["all"]["failed"]
    assert sharded[layout]["all"]["moved"][name] == []


@layouts
def test_averages_of_gradients_lie_where_the_parameters_do(sharded, layout):
    assert sharded[layout]["all"]["moved_averages"] == {"first": [], "last": []}


@sharded_layouts
def test_a_gramian_is_one_sum_over_the_devices(sharded, kind, layout):
    """For all leaves together."""
    found = sharded[layout]["once"]["mgda"]
    assert len(found) == sums(kind, layout)
    for kind_of_sum, shapes in found:
        assert kind_of_sum == "all-reduce"
        assert set(shapes) == {SQUARE}
        assert len(shapes) <= len(problem.leaves())


@sharded_layouts
def test_loss_only_methods_share_no_more_than_a_flag(sharded, kind, layout):
    """Whether the update is finite everywhere, on which the state depends."""
    found = sharded[layout]["once"]["uncertainty"]
    assert len(found) == sums(kind, layout)
    assert all(each == "all-reduce" and set(shapes) == {FLAG[kind]} for each, shapes in found)


def sums(kind, layout):
    """One where the types of leaves tell how they lie, else one for each set of axes in use."""
    assert axis_sets(layout) == {"fsdp": 1, "tensor": 1, "fsdp_tensor": 2}[layout]
    return axis_sets(layout) if kind == "auto" else 1


def axis_sets(layout):
    """How many different sets of mesh axes shard parameters."""
    used = {frozenset(LAYOUTS[layout][2](p.shape)) - {None} for p in problem.leaves()}
    return len(used - {frozenset()})


@layouts
def test_no_method_moves_or_reshapes_anything_of_the_parameters_size(sharded, kind, alone, layout):
    result = sharded[layout]["all"]
    for kind_of_sum, shapes in result["collectives"]:
        assert kind_of_sum == "all-reduce"
        assert set(shapes) in ({SQUARE}, {FLAG[kind]})
    # All Gramians at once, those of tracked gradients later at the worst, and all flags.
    assert len(result["collectives"]) <= 3 * axis_sets(layout)
    assert result["largest_reshape"] < SMALLEST_STACK
    # What one device does, so that the search is known to find something.
    assert alone["all"]["largest_reshape"] >= SMALLEST_STACK


@layouts
def test_training_is_that_of_one_device(sharded, alone, layout):
    assert_same_training(sharded[layout]["training"], alone["training"])


def test_training_by_two_processes_is_that_of_one(runs, alone):
    for result in runs["processes"].result():
        assert (result["devices"], result["local_devices"]) == (2, 1)
        assert_same_training(result, alone["training"])


def assert_same_training(actual, expected):
    losses = np.array(expected["losses"])
    assert losses.shape == (problem.STEPS, problem.NUM_TASKS)
    np.testing.assert_allclose(actual["losses"], losses, rtol=1e-5)
    start = rows(problem.as_lists(problem.params()), 1)
    got, wanted = (rows(training["params"], 1) - start for training in (actual, expected))
    assert_rows_agree(got, wanted)


def reduced_when_stacked():
    """One gradient for each loss that depends on a parameter: no zeros are reduced."""
    trunk, heads = problem.params()["trunk"], problem.params()["heads"]
    shared = sum(p.size for p in trunk.values())
    # The total is computed from the images; depth has no head.
    own = 2 * heads["images"].size + heads["labels"].size + heads["total"].size
    return problem.NUM_TASKS * shared + own


def test_data_parallel_gradients_cost_t_reductions_in_place_of_one(runs):
    result = runs["auto"].result()["data"]["communication"]
    size = sum(p.size for p in problem.leaves())
    single, stacked = result["single"], result["stacked"]
    assert set(single) == set(stacked) == {"all-reduce"}
    assert single["all-reduce"] == pytest.approx(size, rel=0.05)
    assert stacked["all-reduce"] == pytest.approx(reduced_when_stacked(), rel=0.05)


def test_fsdp_gathers_parameters_once_for_all_tasks(runs):
    result = runs["auto"].result()["fsdp"]["communication"]
    size = sum(p.size for p in problem.leaves())
    assert set(result["stacked"]) == {"all-gather", "all-reduce"}
    assert result["stacked"]["all-gather"] == result["single"]["all-gather"] <= size
    assert result["stacked"]["all-reduce"] == pytest.approx(reduced_when_stacked(), rel=0.05)
