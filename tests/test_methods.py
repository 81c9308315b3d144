"""The table of the site is the table in the code."""

import importlib.util
import re
from pathlib import Path

import jaxmtl
from jaxmtl.methods import METHODS, describe

ROOT = Path(__file__).parent.parent


def rows():
    """The rows of the table as the site writes it down, by method."""
    spec = importlib.util.spec_from_file_location("pages", ROOT / "notebooks" / "_methods.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    table = re.findall(r"^\| `(\w+)` \|(.*)\|$", pages.index([]), re.MULTILINE)
    return {name: [cell.strip() for cell in line.split("|")] for name, line in table}


def test_every_method_stands_in_the_table_with_its_claims():
    table = rows()
    assert list(table) == list(METHODS)
    for name, cells in table.items():
        assert cells == list(describe(name)), name


def test_the_version_is_the_same_everywhere():
    pyproject = (ROOT / "pyproject.toml").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f'version = "{jaxmtl.__version__}"' in pyproject
    assert f"## {jaxmtl.__version__}" in changelog
