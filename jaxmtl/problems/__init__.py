"""Problems to try methods on: data, model, losses and metrics of each."""

from importlib import import_module

from jaxmtl._checks import check_choice
from jaxmtl.problems._problem import Problem

# Each is a module of this package, with a function of the same name. A module is imported only when
# it is used, since each has its own data and packages.
PROBLEMS = {
    "digits": "two overlapping handwritten digits, four tasks in different units",
    "toy": "two losses of a point in the plane, with a valley between them",
    "yeast": "fourteen functions of a gene, each a yes-or-no label",
    "low_light": "brighten dark photographs, with several losses on one image",
    "multi_fashion": "two overlapping pieces of clothing, each to be classified",
    "helmholtz": "a differential equation in a square: residual and boundary values",
    "klein_gordon": "a wave equation: residual, and boundary and initial values",
    "burgers": "a wave that steepens into a front: residual, boundary and initial values",
    "qm9": "eleven properties of small molecules in the units of chemistry",
}


def load(name: str) -> Problem:
    """Build a problem by its name.

    Args:
      name: a key of ``PROBLEMS``.

    Returns:
      The ``Problem``.

    Raises:
      ValueError: if there is no problem of that name.
      ImportError: if a package that carries the data is not installed.
      FileNotFoundError: if the data are not found.

    Examples:
      >>> from jaxmtl import problems
      >>> problems.load("digits").tasks
      ('left', 'reconstruction', 'right', 'sum')
    """
    check_choice("name", name, tuple(PROBLEMS))
    problem: Problem = getattr(import_module(f"jaxmtl.problems.{name}"), name)()
    return problem
