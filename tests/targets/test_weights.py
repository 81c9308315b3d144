"""Balancing costs an H100 a handful of launches and no waits, whatever the method."""

import pytest

from jaxmtl.methods import METHODS
from tests.targets import stored
from tests.targets.machines import missing, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing("cuda")), reason=missing("cuda")),
]

MOST_LAUNCHES = 16
# What solves for its weights, or goes through the tasks in a loop, and how many kernels it takes.
IN_KERNELS = {
    **dict.fromkeys(("aligned_mtl", "cagrad", "mgda", "pcd"), 2),
    **dict.fromkeys(("conflict_free", "imtl", "imtl_g"), 1),
    **dict.fromkeys(("dualproj", "epo", "fairgrad", "nash_mtl", "upgrad"), 1),
    **dict.fromkeys(("excess_mtl", "gradvac", "lr_annealing", "pcgrad", "sdmgrad"), 1),
}


def tasks(number):
    """One worker for each number, which compiles all methods once."""
    return pytest.param(number, marks=pytest.mark.xdist_group(f"targets-{number}"))


# Of five tasks, a number that has to be filled up to a power of two.
@pytest.fixture(scope="module", params=map(tasks, [5, 8, 32]))
def programs(request):
    return run("weights", str(request.param))


@pytest.mark.parametrize("name", METHODS)
def test_few_launches_and_no_wait(programs, name):
    program = programs[name]
    assert program["launches"] <= MOST_LAUNCHES
    assert program["waits"] == 0
    assert program["library_in_loops"] == {}
    assert program["kernels"] == IN_KERNELS.get(name, 0)


@pytest.mark.skipif(stored.read()["jaxlib"] != stored.JAXLIB, reason=stored.OF_ANOTHER)
@pytest.mark.parametrize("programs", [tasks(8), tasks(32)], indirect=True)
def test_the_site_says_how_many(programs, request):
    number = str(request.node.callspec.params["programs"])
    assert stored.of_weights(programs) == stored.stored(number)


def test_on_sixteen_gpus_each_solves_alone():
    """Nothing goes between them but the Gramian."""
    for program in run("several").values():
        assert program["kernels"] == 3
        assert program["loops"] == []
        assert program["waits"] == 0
        assert [kind for kind, *_ in program["collectives"]] == ["all-reduce"]
