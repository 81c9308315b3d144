"""The code on the pages of the site runs, block after block; .ci/run builds the site itself."""

import doctest
import pathlib
import re

import pytest

SOURCES = pathlib.Path(__file__).parents[1] / "notebooks"
WRITTEN = [*SOURCES.glob("*.md"), *SOURCES.glob("guides/*.md"), *SOURCES.glob("theory/*.md")]
BLOCK = re.compile(r"^```(python|pycon)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = sorted(page for page in WRITTEN if BLOCK.search(page.read_text(encoding="utf-8")))


def test_there_are_pages_with_code():
    assert len(PAGES) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # what a page writes
    names = {}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for kind, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(code, page.name, "exec"), names)
            continue
        example = doctest.DocTestParser().get_doctest(code, names, page.name, page.name, 0)
        result = runner.run(example, clear_globs=False)
        names |= example.globs
        assert result.failed == 0, capsys.readouterr().out
        assert result.attempted > 0, code
