"""What of the measurements on a GPU runs without one."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxmtl.solvers import _one_launch
from tests.speed import on_gpu

pytestmark = pytest.mark.slow


def test_the_loops_are_what_a_kernel_is_compared_with(monkeypatch):
    """Interpreted, the kernel of a host without a GPU: other programs, the same results."""
    monkeypatch.setattr(_one_launch, "INTERPRETED", True)
    argument = on_gpu.gram(4)
    for solve in on_gpu.SOLVERS.values():
        one, many = (on_gpu.compiled(solve, argument, loops) for loops in (False, True))
        assert one.as_text() != many.as_text()
        for found, expected in zip(one(argument)[:1], many(argument)[:1], strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_sections_run():
    rows = list(on_gpu.kernels((2,)))
    assert [row.case for row in rows] == [f"{name}, T = 2" for name in on_gpu.SOLVERS]
    assert all(row.ours > 0 and row.theirs > 0 for row in rows)
    (row,) = on_gpu.floor((2,), (10**5,))
    assert row.theirs > 0
    assert row.ours > 0
    names = ["equal", "modo", "ntk", "upgrad"]
    assert [row.ours for row in on_gpu.waits((3,), names)] == [0] * len(names)


def test_the_profile_is_read():
    called = on_gpu.events(jax.jit(lambda x: x + 1), {"x": 1.0})
    assert any("PjitFunction" in name for name in called)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_a_gpu_is_asked_for():
    command = [sys.executable, "-m", "tests.speed", "--gpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "JAX runs on cpu here: --gpu needs a GPU" in done.stderr
