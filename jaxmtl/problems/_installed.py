"""The place of data files inside installed packages."""

from importlib.util import find_spec
from pathlib import Path


def package_file(problem: str, package: str, path: str, *, cure: str) -> Path:
    """Find a file inside an installed package, without importing the package.

    Args:
      problem: the name of the problem that reads the file.
      package: the package's name.
      path: the path of the file inside the package.
      cure: a command that installs the package with the file in it.

    Returns:
      The path.

    Raises:
      ImportError: if the package is not installed.
      FileNotFoundError: if it is installed without the file.
    """
    reads = f"The {problem} problem reads data that the package {package} carries, but {package}"
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{reads} is not installed: {cure}.")
    found = Path(spec.submodule_search_locations[0]) / path
    if not found.is_file():
        raise FileNotFoundError(f"{reads} has no {path} in {found.parent}: {cure}.")
    return found
