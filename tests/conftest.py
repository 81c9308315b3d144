"""Strict modes, set before the first computation, and a memory of what was compiled."""

import os
import shutil

import jax
import pytest

import jaxmtl

jaxmtl.use_safe_cpu_compiler()
jax.config.update("jax_numpy_rank_promotion", "raise")

MOST_REMEMBERED = 2 * 2**30  # bytes


def pytest_configure(config):
    """Share what is compiled between the workers, and with the next run."""
    folder = config.cache.mkdir("compiled")
    size = sum(file.stat().st_size for file in folder.iterdir())
    if size > MOST_REMEMBERED and not hasattr(config, "workerinput"):
        shutil.rmtree(folder)
    for name, value in {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)  # for the processes that tests start


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What a file compiles and keeps is needed by one worker, not by each that has a test of it.

    What takes long goes to whichever worker is free.
    """
    for item in items:
        if not any(item.get_closest_marker(name) for name in ("slow", "xdist_group")):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture
def quick_compiler():
    """For laws that are about algebra, not about the compiler: half of the time is LLVM's."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
