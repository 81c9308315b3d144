"""A problem of the user's own, named on the command line."""

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from jaxmtl.problems._problem import Problem


def load_own(where: str) -> Problem:
    """Find a problem as "FILE.py:NAME" or "MODULE:NAME", or a function of that name that makes it.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if there is no such module, nothing of that name in it, or it is not a problem.
    """
    source, _, name = where.rpartition(":")
    if source.endswith(".py"):
        path = Path(source).resolve()
        if not path.is_file():
            raise FileNotFoundError(f"--problem {where}: there is no file {path}.")
        spec: Any = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.parent))  # as python itself does for a script
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    else:
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            module = importlib.import_module(source)
        except ModuleNotFoundError as error:
            raise ImportError(f"--problem {where}: {error}.") from error
    found = getattr(module, name, None)
    if found is None:
        names = [key for key, value in vars(module).items() if isinstance(value, Problem)]
        raise ImportError(
            f"--problem {where}: {source} has no {name!r}"
            + (f"; it has {', '.join(names)}." if names else ", and no jaxmtl.Problem either.")
        )
    problem = found
    if callable(found):
        needed = [p for p in inspect.signature(found).parameters.values() if p.default is p.empty]
        problem = None if needed else found()
    if not isinstance(problem, Problem):
        raise ImportError(
            f"--problem {where}: {name} must be a jaxmtl.Problem, or a function without arguments"
            f" that makes one, but it is a {type(found).__name__}."
        )
    return problem
