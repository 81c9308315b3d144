"""Balancing sends a Gramian and flags, and nothing of the parameters' or activations' size."""

from collections import Counter

import pytest

from tests.targets.collectives import LAYOUTS, NUM_TASKS
from tests.targets.machines import missing, run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("targets-collectives")]

# All-reduces beside the plain step's: of a Gramian, and of flags, one for each set of axes over
# which leaves are spread; the TPU's compiler splits them once more.
GRAMIANS = {"data": 0, "fsdp": 1, "fsdp_tensor": 3}
FLAGS = {"data": 0, "fsdp": 1, "fsdp_tensor": 4}
SMALL = 4096  # bytes


def machine(name, platform):
    skip = pytest.mark.skipif(bool(missing(platform)), reason=missing(platform))
    return pytest.param(name, marks=skip)


MACHINES = [machine("v5e", "tpu"), machine("v5p", "tpu"), machine("h100", "cuda")]


@pytest.fixture(scope="module", params=MACHINES)
def on_machine(request):
    return request.param


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture(scope="module")
def programs(on_machine, layout):
    return run("collectives", on_machine, layout, "plain", "stacked", "losses only")


def kinds(program):
    """How many there are of each kind, but for sums of a few numbers and signs between devices."""
    counts = Counter()
    for kind, _, size, turns in program["collectives"]:
        is_small = size <= SMALL and kind in ("all-reduce", "collective-permute")
        counts[kind] += turns * (not is_small)
    return +counts


@pytest.mark.parametrize("route", ["stacked", "losses only"])
def test_no_kind_of_exchange_is_new(programs, route):
    plain, found = kinds(programs["plain"]), kinds(programs[route])
    assert plain["all-reduce"] > 0
    assert set(found) <= set(plain)
    for kind in set(found) - {"all-reduce"}:
        assert found[kind] <= plain[kind], kind


def test_parameters_are_gathered_once_for_all_tasks(programs):
    gathered = {
        name: sum(size * turns for kind, _, size, turns in p["collectives"] if kind == "all-gather")
        for name, p in programs.items()
    }
    assert gathered["stacked"] <= 1.01 * gathered["plain"]


def small_sums(program):
    """All-reduces that carry nothing beside Gramians, losses and flags."""
    found = [c for c in program["collectives"] if c[0] == "all-reduce" and c[2] <= SMALL]
    return sum(turns for *_, turns in found)


def test_a_gramian_is_few_sums(programs, layout):
    assert small_sums(programs["stacked"]) <= small_sums(programs["plain"]) + GRAMIANS[layout]


def test_all_that_is_sent_is_sent_once_for_each_task_at_most(programs):
    plain, found = (
        sum(size * turns for _, _, size, turns in programs[name]["collectives"])
        for name in ("plain", "stacked")
    )
    assert plain < found <= NUM_TASKS * plain


def test_what_reads_the_losses_only_sends_them_and_flags(programs, layout):
    plain, found = programs["plain"], programs["losses only"]
    assert small_sums(found) <= small_sums(plain) + 1 + FLAGS[layout]
    large = [
        sum(size * turns for _, _, size, turns in p["collectives"] if size > SMALL)
        for p in (plain, found)
    ]
    assert large[1] <= 1.01 * large[0]
    if plain["temporary"]:  # which not every TPU program tells
        assert found["temporary"] <= 1.25 * plain["temporary"]


def test_on_explicit_axes_a_gramian_is_one_sum(on_machine, layout):
    """Of T x T numbers, and none where no leaf is spread."""
    program = run("gramians", on_machine, layout)["Explicit"]
    size = NUM_TASKS**2 * 4
    sums = [["all-reduce", [f"f32[{NUM_TASKS},{NUM_TASKS}]"], size, 1]]
    assert program["collectives"] == (sums if layout != "data" else [])
