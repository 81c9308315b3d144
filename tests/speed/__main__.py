"""Print ratios and save them: ``python -m tests.speed --out speed`` (extra: bench)."""

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np

import jaxmtl
from tests.speed.measure import Ratio


def main() -> None:
    """Measure section after section; what was measured is saved as it comes."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("speed-results"), help="folder")
    parser.add_argument(
        "--sections", nargs="+", default=["weights", "stacks", "steps", "floor", "compile"]
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    jaxmtl.use_safe_cpu_compiler()
    rows: list[Ratio] = []
    for section in options.sections:
        for row in _section(section):
            rows.append(row)
            spread = f"({row.low:.2f} to {row.high:.2f})"
            print(f"{row.what:42} {row.case:46} {row.ratio:8.2f} {spread}", flush=True)
            numbers = [row._asdict() for row in rows]
            (options.out / "speed.json").write_text(json.dumps(numbers, indent=1))
    _summarise(rows)
    _draw(rows, options.out / "speed.png")


def _section(name: str):
    from tests.speed import against_ourselves

    if name in ("weights", "stacks"):
        from tests.speed import against_torchjd

        sections = {
            "weights": against_torchjd.weights,
            "stacks": against_torchjd.aggregation_of_stacks,
        }
    else:
        sections = {
            "steps": against_ourselves.steps,
            "floor": against_ourselves.floor,
            "compile": against_ourselves.compile_times,
        }
    return sections[name]()


def _summarise(rows: list[Ratio]) -> None:
    by_section = defaultdict(list)
    for row in rows:
        by_section[row.what].append(row.ratio)
    print("\nHow many times as long the other takes:")
    for what, ratios in by_section.items():
        mean = math.exp(np.mean(np.log(ratios)))
        print(f"{what:42} geometric mean {mean:6.2f}, least {min(ratios):6.2f}")


def _draw(rows: list[Ratio], path: Path) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 0.22 * len(rows) + 1.5), layout="constrained")
    positions = np.arange(len(rows))[::-1]
    middle = np.array([row.ratio for row in rows])
    spread = np.abs([[row.low, row.high] for row in rows] - middle[:, None]).T
    axis.barh(positions, middle, xerr=spread, log=True, color="tab:blue", ecolor="black")
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_yticks(positions, [f"{row.what}: {row.case}" for row in rows], fontsize=6)
    axis.set_xlabel("time of the other / time of jaxmtl (right of 1: jaxmtl is faster)")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
