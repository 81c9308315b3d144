"""The warning and the cure, each in a process of its own, since flags are read only once."""

import os
import subprocess
import sys

import pytest

from jaxmtl.backward import _xla_cpu

# A process each.
pytestmark = pytest.mark.slow
affected = pytest.mark.skipif(not _xla_cpu._is_affected(), reason="this jaxlib compiles correctly")

TRACE = """
import jax, jax.numpy as jnp, jaxmtl, warnings
{before}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        {jit}(jaxmtl.value_and_task_grads(lambda x: (x[0], x[1])))(jnp.ones(2))
print(len(caught), *(w.message for w in caught), *(w.filename for w in caught))
"""


def trace(before="", jit=""):
    return TRACE.format(before=before, jit=jit)


def run(code, flags=""):
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


@affected
@pytest.mark.parametrize("jit", ["", "jax.jit"])
def test_one_warning_names_the_cure_and_points_at_the_caller(jit):
    out = run(trace(jit=jit))
    assert out.stdout.startswith("1 jaxlib"), out.stderr
    assert "jaxmtl.use_safe_cpu_compiler()" in out.stdout
    assert out.stdout.rstrip().endswith("<string>")


def test_no_warning_after_the_cure():
    out = run(trace("jaxmtl.use_safe_cpu_compiler()"))
    assert out.stdout.strip() == "0", out.stderr


def test_no_warning_where_the_user_set_the_flag():
    flags = _xla_cpu.CURE if _xla_cpu._is_affected() else ""
    assert run(trace(), flags).stdout.strip() == "0"


@affected
def test_a_late_call_is_an_error_not_a_false_comfort():
    out = run(trace("jnp.ones(2)\njaxmtl.use_safe_cpu_compiler()"))
    assert out.returncode != 0
    assert "was called too late" in out.stderr
