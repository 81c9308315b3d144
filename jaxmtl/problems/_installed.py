"""Where installed packages keep the data that they carry."""

from importlib.util import find_spec
from pathlib import Path


def package_file(problem: str, package: str, path: str, *, cure: str) -> Path:
    """Find a file inside an installed package, without importing the package.

    Args:
      problem: what wants it.
      package: the package's name.
      path: of the file inside the package.
      cure: a command that installs the package with the file in it.

    Returns:
      The path.

    Raises:
      ImportError: where the package is not installed.
      FileNotFoundError: where it is, and does not carry the file.
    """
    reads = f"The {problem} problem reads data that the package {package} carries, but {package}"
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{reads} is not installed: {cure}.")
    found = Path(spec.submodule_search_locations[0]) / path
    if not found.is_file():
        raise FileNotFoundError(f"{reads} has no {path} in {found.parent}: {cure}.")
    return found
