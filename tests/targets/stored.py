"""Store for the site how many launches each method takes: ``python -m tests.targets.stored``.

The pages of the methods print ``notebooks/launches.json``; the tests beside this file compare it
with the programs that they compile.
"""

import importlib.metadata
import json
from typing import Any

from tests.targets.machines import ROOT, run

FILE = ROOT / "notebooks" / "launches.json"
JAXLIB = importlib.metadata.version("jaxlib")
OF_ANOTHER = (
    "notebooks/launches.json is of another jaxlib: python -m tests.targets.stored renews it"
)


def stored(what: str) -> dict[str, int]:
    """What the site says of "8" or "32" tasks, or of a "step", by method."""
    return {name: numbers[what] for name, numbers in read()["launches"].items()}


def read() -> Any:
    """The file: the version of jaxlib, and launches by method."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def of_weights(programs: dict[str, Any]) -> dict[str, int]:
    """Launches between the Gramian, or the losses, and the weights."""
    return {name: program["launches"] for name, program in programs.items()}


def of_steps(programs: dict[str, Any]) -> dict[str, int]:
    """Launches of a step beside those of T backward passes, their mean and Adam."""
    alone = programs["T backward"]["launches"]
    methods = programs.keys() - {"plain", "T backward"}
    return {name: programs[name]["launches"] - alone for name in programs if name in methods}


def main() -> None:
    """Compile all methods, about ten minutes, and write the file."""
    write(run("weights", "8"), run("weights", "32"), run("steps", timeout=1800))


def write(eight: dict[str, Any], many: dict[str, Any], steps: dict[str, Any]) -> None:
    """Write the file, a line for each method."""
    found = {"8": of_weights(eight), "32": of_weights(many), "step": of_steps(steps)}
    launches = {name: {what: found[what][name] for what in found} for name in found["step"]}
    lines = [f"    {json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in launches.items()]
    text = ",\n".join(lines)
    FILE.write_text(
        f'{{\n  "jaxlib": {json.dumps(JAXLIB)},\n  "launches": {{\n{text}\n  }}\n}}\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
