"""The examples of the docstrings run, and every public name is documented in full."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import jaxmtl

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(jaxmtl.__path__, "jaxmtl.")
    if module.name != "jaxmtl.__main__"
)
FUNCTIONS = {
    f"{owner.__name__}.{name}": getattr(owner, name)
    for owner in (jaxmtl, jaxmtl.pareto, jaxmtl.solvers, jaxmtl.theory)
    for name in getattr(owner, "__all__", dir(owner))
    if inspect.isfunction(getattr(owner, name)) and not name.startswith("_")
}
METHODS = [
    name
    for name, function in FUNCTIONS.items()
    if inspect.signature(function).return_annotation is jaxmtl.Balancer
    and not {"balancer", "weighting"} & set(inspect.signature(function).parameters)
]


class Finder(doctest.DocTestFinder):
    """Finds the examples of decorated functions too."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object))


def examples_of(name):
    return [test for test in Finder().find(importlib.import_module(name)) if test.examples]


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    runner = doctest.DocTestRunner()
    assert [runner.run(test).failed for test in examples_of(name)] == [0] * len(examples_of(name))


def test_the_examples_are_found():
    assert len([test for name in MODULES for test in examples_of(name)]) >= len(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_documented(name):
    doc = inspect.getdoc(FUNCTIONS[name])
    for heading in ("Returns:", "Raises:", "Examples:"):
        assert heading in doc or name.endswith(("make_balancer", "use_safe_cpu_compiler")), heading
    for parameter in inspect.signature(FUNCTIONS[name]).parameters:
        assert f"{parameter}:" in doc, parameter


@pytest.mark.parametrize("name", METHODS)
def test_methods_state_scale_and_degree(name):
    doc = inspect.getdoc(FUNCTIONS[name])
    assert "Scale:" in doc
    assert "Degree" in doc
