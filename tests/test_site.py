"""The code on the pages of the site runs, block after block; .ci/run builds the site itself."""

import doctest
import json
import pathlib
import re

import jax
import pytest

from jaxmtl.methods import METHODS

SOURCES = pathlib.Path(__file__).parents[1] / "notebooks"
WRITTEN = [*SOURCES.glob("*.md"), *SOURCES.glob("guides/*.md"), *SOURCES.glob("theory/*.md")]
BLOCK = re.compile(r"^```(python|pycon)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = sorted(page for page in WRITTEN if BLOCK.search(page.read_text(encoding="utf-8")))


# Whole blocks, each of which runs in a file of its own.
FRAMEWORKS = SOURCES / "guides" / "frameworks.md"
PAGES.remove(FRAMEWORKS)
ALONE = re.findall(
    r"^## (.*?)$.*?^```python\n(.*?)^```", FRAMEWORKS.read_text("utf-8"), re.S | re.M
)


def test_there_are_pages_with_code():
    assert len(PAGES) >= 6
    assert len(ALONE) >= 6


def test_the_launches_of_every_method_are_stored():
    """Those beside which tests/targets compiles them anew."""
    stored = json.loads((SOURCES / "launches.json").read_text(encoding="utf-8"))
    assert list(stored["launches"]) == list(METHODS)


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "block"), ALONE, ids=[title for title, _ in ALONE])
def test_a_block_for_a_framework_runs_as_pasted_and_trains(framework, block, monkeypatch):
    promotion = "raise"
    if "Keras" in framework:
        monkeypatch.setenv("KERAS_BACKEND", "jax")  # and back, since the block sets it
        pytest.importorskip("keras")
        promotion = "allow"  # its layers add their biases so
    names = {}
    with jax.numpy_rank_promotion(promotion):
        exec(compile(block, framework, "exec"), names)
    if "losses" in names:
        assert names["losses"]["depth"] < 20  # about 100 at the start
        assert names["losses"]["labels"] < 0.3  # about 0.7


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
