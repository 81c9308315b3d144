"""The README's table is the table in the code."""

import re
from pathlib import Path

import jax

import jaxmtl
from jaxmtl.methods import METHODS

README = (Path(__file__).parent.parent / "README.md").read_text()


def rows():
    table = re.findall(r"^\| `(\w+)` \|(.*)\|$", README, re.MULTILINE)
    return {name: [cell.strip() for cell in line.split("|")] for name, line in table}


def test_every_method_stands_in_the_readme_with_what_it_reads():
    table = rows()
    assert list(table) == list(METHODS)
    for name, (summary, reads, _cost, degree, reference) in table.items():
        method = METHODS[name]
        assert summary == method.summary
        assert reference == method.reference
        assert degree == f"{method.degree:.4g}"
        weighting = method.make(3, jax.random.key(0)).weighting
        assert reads == (" and ".join(sorted(weighting.reads, reverse=True)) or "nothing"), name


def test_the_version_is_the_same_everywhere():
    pyproject = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    changelog = (Path(__file__).parent.parent / "CHANGELOG.md").read_text()
    assert f'version = "{jaxmtl.__version__}"' in pyproject
    assert f"## {jaxmtl.__version__}" in changelog
