"""A step is that of T backward passes and their mean, and at most 12 launches more."""

import pytest

from jaxmtl.methods import METHODS
from tests.targets import stored
from tests.targets.machines import missing, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("targets-steps"),
    pytest.mark.skipif(bool(missing("cuda")), reason=missing("cuda")),
]
MOST = 12


@pytest.fixture(scope="module")
def programs():
    return run("steps", timeout=1800)


def test_t_backward_passes_are_more_than_a_plain_step(programs):
    """Else the sum below would allow for less than it says; 17 when it was written."""
    own = programs["T backward"]["launches"] - programs["plain"]["launches"]
    assert 0 < own <= 20


@pytest.mark.parametrize("name", METHODS)
def test_a_step_costs_few_launches_more(programs, name):
    more = programs[name]["launches"] - programs["T backward"]["launches"]
    assert more <= MOST


@pytest.mark.skipif(stored.read()["jaxlib"] != stored.JAXLIB, reason=stored.OF_ANOTHER)
def test_the_site_says_how_many(programs):
    assert stored.of_steps(programs) == stored.stored("step")


@pytest.mark.parametrize("name", METHODS)
def test_the_host_waits_nowhere_in_a_step(programs, name):
    assert programs[name]["waits"] == 0


@pytest.mark.parametrize("name", METHODS)
def test_a_gramian_is_a_product_for_each_large_leaf_and_one_for_the_small(programs, name):
    """Beside those of the backward passes; four of the 16 leaves are large.

    One of upgrad's own is not of parameters' size.
    """

    def products(program):
        return program["library"].get("__cublas$lt$matmul", 0)

    assert products(programs[name]) <= products(programs["T backward"]) + 5 + (name == "upgrad")
