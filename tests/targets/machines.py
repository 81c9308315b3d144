"""Programs compiled for machines that need not be there: an H100 or several, TPU topologies.

XLA compiles for a device that is described to it. That takes the vendors' compilers as wheels
(CONTRIBUTING.md says how) and an environment set before JAX is imported, and so a process of its
own: ``run`` starts a module of this package in one, ``in_environment`` restarts the present one.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several processes compile at a time
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    # The fastest of several codes would be found by running them on the device.
    "XLA_FLAGS": "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false",
    # Programs for a device that is not there cannot be kept.
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def missing(platform: str) -> str:
    """Why there is no compiler for "cuda" or "tpu"; nothing where there is one."""
    wheels = {"cuda": ["jax-cuda13-plugin", "jax-cuda13-pjrt"], "tpu": ["libtpu"]}[platform]
    jaxlib = importlib.metadata.version("jaxlib")
    for wheel in wheels:
        try:
            found = importlib.metadata.version(wheel)
        except importlib.metadata.PackageNotFoundError:
            return f"{wheel} is not installed: see CONTRIBUTING.md, Accelerators"
        if platform == "cuda" and found != jaxlib:
            return f"{wheel} is of version {found}, and jaxlib of {jaxlib}"
    return ""


def in_environment() -> None:
    """Start the present command anew in the environment that the compilers need, unless in it."""
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, sys.orig_argv, os.environ | ENVIRONMENT)


def run(module: str, *arguments: str, timeout: float = 600) -> Any:
    """What ``python -m tests.targets.<module> <arguments>`` prints as its last line, of JSON."""
    command = [sys.executable, "-m", f"tests.targets.{module}", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-10_000:]
    return json.loads(done.stdout.splitlines()[-1])


def gpus(count: int = 1) -> list[Any]:
    """H100s, eight to a host."""
    import jax
    from jax.experimental import topologies

    # Finds the plugin, which registers what calls the libraries.
    jax.devices("cpu")
    hosts = -(-count // 8)
    described = topologies.get_topology_desc(
        platform="cuda",
        topology_name="h100",
        target_config=H100,
        topology=f"1x{hosts}x{count // hosts}",
    )
    return list(described.devices)


def tpus(name: str = "v5e:2x2") -> list[Any]:
    """TPU chips: "v5e:2x2" is four of them, "v5p:4x4x16" 256."""
    from jax.experimental import topologies

    return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)


def on_one(device: Any, tree: Any) -> Any:
    """The shapes of a tree of arrays (or of shapes), all of it on one device."""
    import jax

    where = jax.sharding.SingleDeviceSharding(device)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree
    )


def compiled(function: Any, *shapes: Any, **options: Any) -> Any:
    """Compile a function for the devices that its arguments' shardings name.

    Args:
      function: to be jitted, or jitted already.
      *shapes: trees of ``jax.ShapeDtypeStruct`` with shardings on devices of one kind.
      **options: of ``jax.jit``, such as ``donate_argnums``.
    """
    import jax

    leaves = jax.tree.leaves(shapes)
    kind = next(iter(leaves[0].sharding.device_set)).platform
    platform = {"gpu": "cuda"}.get(kind, kind)
    traced = jax.jit(function, **options).trace(*shapes)
    return traced.lower(lowering_platforms=(platform,)).compile()
