"""The README: short, its examples run as pasted, its links lead somewhere."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxmtl

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHOOSING = (ROOT / "notebooks" / "choosing.md").read_text(encoding="utf-8")
FIRST, COMPARISON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)]+)\)")


def pasted(code, folder):
    """What a file with this code prints, in a process of its own."""
    (folder / "example.py").write_text(code, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def lines_of(code):
    return [line for line in code.splitlines() if line.strip()]


def test_the_front_page_is_short():
    assert len(README.splitlines()) <= 130
    assert 10 <= len(lines_of(FIRST)) <= 15
    assert len(lines_of(COMPARISON)) <= 5


def test_the_first_example_runs_as_pasted_and_trains(tmp_path):
    names = {}
    exec(FIRST.partition("for _ in")[0], names)
    first = names["losses_fn"](names["params"], names["x"])
    last = re.findall(r"'(\w+)': Array\(([^,]+),", pasted(FIRST, tmp_path))
    assert [name for name, _ in last] == ["depth", "size"]
    for name, loss in last:
        assert float(loss) < 0.5 * first[name], name


@pytest.mark.slow
def test_the_comparison_runs_as_pasted_below_it(tmp_path):
    printed = pasted(FIRST + COMPARISON, tmp_path)
    for row in ("single-task", "equal", "real_time_loss", "normalize", "upgrad", "Start with"):
        assert f"\n{row} " in printed, printed


def test_links_and_pictures_are_there():
    targets = [target for _, _, target in LINK.findall(README)]
    assert len(targets) > 40
    for target in targets:
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def table(text):
    """The rows of "If ... then try", links as their words."""
    (rows,) = re.findall(r"\| If \.\.\. \| then try \|\n\|---\|---\|\n((?:\|.*\n)+)", text)
    return LINK.sub(r"\2", rows).splitlines()


def test_the_table_is_that_of_the_page_on_choosing():
    assert table(README) == table(CHOOSING)


def test_a_name_leads_to_its_source():
    links = re.findall(r"\[`(?:jaxmtl\.)?(\w+)[^`]*`\]\(([^)]+)\)", README)
    assert len(links) > 25
    for name, target in links:
        value = getattr(jaxmtl, name)
        source = inspect.getsourcefile(inspect.unwrap(value) if callable(value) else value)
        assert Path(source) == ROOT / target, name


def test_every_public_name_in_the_table_is_a_link():
    names = {name for row in table(README) for name in re.findall(r"`(\w+)", row)}
    linked = set(re.findall(r"\[`(\w+)", README))
    assert names & set(jaxmtl.__all__) <= linked


def test_the_two_commands_are_there():
    assert 'pip install -e ".[demo]" && python -m jaxmtl' in README
    assert 'pip install -e ".[test]" && pytest' in README
