"""Outside of the solvers' loops, a step is a plain one, T backward passes and 12 launches."""

import pytest

from jaxmtl.methods import METHODS
from tests.targets.machines import missing, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("targets"),
    pytest.mark.skipif(bool(missing("cuda")), reason=missing("cuda")),
]
# Their T-sized parts alone are more, and counted in test_weights.
LARGER = {"epo"}


@pytest.fixture(scope="module")
def programs():
    return run("steps")


def test_the_backward_passes_are_more_than_a_plain_step(programs):
    """Else the sum below would allow for less than it says."""
    assert programs["plain"]["launches"] < programs["T backward"]["launches"] < 100


@pytest.mark.parametrize("name", sorted(set(METHODS) - LARGER))
def test_a_step_costs_few_launches_more(programs, name):
    assert programs[name]["outside"] <= programs["T backward"]["launches"] + 12


@pytest.mark.parametrize("name", sorted(set(METHODS)))
def test_a_step_calls_no_library_for_each_leaf(programs, name):
    """Beside the products of the backward passes: four large leaves, and one for all small."""
    extra = programs[name]["library"].get("__cublas$lt$matmul", 0)
    assert extra <= programs["T backward"]["library"]["__cublas$lt$matmul"] + 2 * (LARGE + 1)


LARGE = 4
