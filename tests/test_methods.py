"""The README's table is the table in the code."""

import re
from pathlib import Path

import jaxmtl
from jaxmtl.methods import METHODS, describe

README = (Path(__file__).parent.parent / "README.md").read_text()


def rows():
    table = re.findall(r"^\| `(\w+)` \|(.*)\|$", README, re.MULTILINE)
    return {name: [cell.strip() for cell in line.split("|")] for name, line in table}


def test_every_method_stands_in_the_readme_with_its_claims():
    table = rows()
    assert list(table) == list(METHODS)
    for name, cells in table.items():
        assert cells == list(describe(name)), name


def test_the_version_is_the_same_everywhere():
    pyproject = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    changelog = (Path(__file__).parent.parent / "CHANGELOG.md").read_text()
    assert f'version = "{jaxmtl.__version__}"' in pyproject
    assert f"## {jaxmtl.__version__}" in changelog
