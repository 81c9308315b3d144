"""Print ratios and save them: ``python -m tests.speed --out speed`` (extra: bench).

With ``--gpu`` on a GPU, TorchJD on the same one, and what there is to measure of kernels.
"""

import argparse
import importlib
import importlib.util
import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import jax
import matplotlib
import numpy as np

import jaxmtl
from tests.speed.measure import Ratio

# Fresh memory costs a page fault for every 4096 bytes, at each step anew: half the time of a step
# whose stack is large, in either library. With these, freed memory stays with the process, and what
# is fresh comes in large pages.
KEEP_MEMORY = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296"
    ":glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456"
)
SECTIONS = [
    "weights",
    "stacks",
    "peer_steps",
    "own_steps",
    "instances",
    "turns",
    "floor",
    "compile",
]
GPU_SECTIONS = ["weights", "stacks", "peer_steps", "own_steps", "kernels", "gpu_floor", "waits"]


def main() -> None:
    """Measure section after section; what was measured is saved as it comes."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("speed-results"), help="folder")
    parser.add_argument("--gpu", action="store_true", help="on the GPU that JAX finds")
    choices = list(dict.fromkeys(SECTIONS + GPU_SECTIONS))
    parser.add_argument("--sections", nargs="+", choices=choices, help="all if none is named")
    options = parser.parse_args()
    if os.environ.get("GLIBC_TUNABLES") != KEEP_MEMORY:
        command = [sys.executable, "-m", "tests.speed", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {"GLIBC_TUNABLES": KEEP_MEMORY})
    jaxmtl.use_safe_cpu_compiler()
    platform = jax.default_backend()
    if (platform == "gpu") != options.gpu:
        parser.error(
            f"JAX runs on {platform} here: "
            + ("--gpu needs a GPU" if options.gpu else "pass --gpu, or set JAX_PLATFORMS=cpu")
        )
    if options.gpu and importlib.util.find_spec("torch"):
        importlib.import_module("torch").set_default_device("cuda")
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Ratio] = []
    for section in options.sections or (GPU_SECTIONS if options.gpu else SECTIONS):
        for row in _section(section):
            rows.append(row)
            spread = f"({row.low:.2f} to {row.high:.2f})"
            print(f"{row.what}: {row.case:48} {row.ratio:8.2f} {spread} {row.note}", flush=True)
            numbers = [row._asdict() for row in rows]
            (options.out / "speed.json").write_text(json.dumps(numbers, indent=1))
    _summarise(rows)
    _draw(rows, options.out / "speed.png")


def _section(name: str) -> Iterator[Ratio]:
    if name in ("weights", "stacks", "peer_steps"):
        from tests.speed import against_torchjd  # torch only where it is needed

        return {
            "weights": against_torchjd.weights,
            "stacks": against_torchjd.aggregation_of_stacks,
            "peer_steps": against_torchjd.steps,
        }[name]()
    from tests.speed import against_ourselves, of_instances, of_turns, on_gpu

    return {
        "instances": of_instances.instances,
        "turns": of_turns.turns,
        "kernels": on_gpu.kernels,
        "gpu_floor": on_gpu.floor,
        "waits": on_gpu.waits,
        "own_steps": against_ourselves.steps,
        "floor": against_ourselves.floor,
        "compile": against_ourselves.compile_times,
    }[name]()


def _summarise(rows: list[Ratio]) -> None:
    """Geometric means; of our own steps by what was run, since each has a bar of its own."""
    groups = defaultdict(list)
    for row in rows:
        _, _, kind = row.case.partition(", ")
        own = row.what.endswith("a plain one")
        groups[f"{row.what}: {kind}" if own else row.what].append(row.ratio)
    print("\nTime of the other / time of jaxmtl:")
    for group, ratios in groups.items():
        mean = math.exp(np.mean(np.log(ratios)))
        print(f"{group:70} geometric mean {mean:6.2f}, least {min(ratios):6.2f}")


def _draw(rows: list[Ratio], path: Path) -> None:
    """A panel for each section, on an axis of its own; a mark for each case."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = defaultdict(list)
    for row in rows:
        groups[row.what].append(row)
    figure, axes = plt.subplots(
        len(groups), figsize=(7, 1.3 * len(groups) + 0.5), layout="constrained", squeeze=False
    )
    for axis, (what, members) in zip(axes.flat, groups.items(), strict=True):
        ratios = np.array([row.ratio for row in members])
        mean = np.exp(np.mean(np.log(ratios)))
        axis.plot(ratios, np.linspace(-1, 1, len(ratios)), "o", color="#0072B2", alpha=0.6)
        axis.axvline(mean, color="#D55E00", linewidth=2.5)
        axis.axvline(1, color="black")
        axis.set_title(f"{what}: {len(members)} cases, mean {mean:.2g}", loc="left")
        low, high = min(ratios.min(), 1) / 1.3, max(ratios.max(), 1) * 1.3
        axis.set(xscale="log", xlim=(low, high), ylim=(-1.4, 1.4), yticks=[])
        ticks = [a * 10.0**b for b in range(-3, 5) for a in (1, 2, 5)]
        ticks = [tick for tick in ticks if low < tick < high]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
    axes[-1, 0].set_xlabel("time of the other / time of jaxmtl; red: geometric mean")
    figure.savefig(path, dpi=160)
    plt.close(figure)


if __name__ == "__main__":
    main()
