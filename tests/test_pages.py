"""What the code on the pages of the site computes; tests/test_site.py runs the rest of it."""

import importlib.util
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.references import as_vector, relative_error

SOURCES = Path(__file__).parent.parent / "notebooks"


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


COSTS = python_blocks(SOURCES / "guides" / "costs.md")


def after(mark):
    """The names after the block of the page on costs that has this mark."""
    names = {}
    (block,) = [block for block in COSTS if mark in block]
    for code in dict.fromkeys([COSTS[0], block]):
        exec(code, names)
    return names


def grad_of(names, task):
    return jax.grad(lambda p: names["losses_fn"](p, names["batch"])[task])(names["params"])


def test_the_lean_route_of_the_page_is_a_weighted_sum_of_the_gradients():
    names = after('memory="lean"')
    weights = np.asarray(names["state"].task_weights)
    assert np.all(weights > 0)
    expected = weights @ [as_vector(grad_of(names, task)) for task in ("depth", "labels")]
    assert relative_error(as_vector(names["grad"]), expected) < 1e-5


def test_batches_in_pieces_have_the_gradients_of_the_whole():
    names = after("optax.microbatch(")
    for i, task in enumerate(("depth", "labels")):
        grad = as_vector(jax.tree.map(lambda leaf, i=i: leaf[i], names["grads"]))
        assert relative_error(grad, as_vector(grad_of(names, task))) < 1e-5


def test_one_loss_an_example_pays_for_no_other():
    names = after("jaxmtl.per_example(")
    x, y = (np.asarray(names[name], np.float64) for name in "xy")
    rows = -2 * y[:, None] * x  # at w = 0
    assert np.any(rows @ rows.T < 0)
    assert np.all(rows @ np.asarray(names["grad"]) > -1e-5)


@pytest.mark.slow
def test_the_comparison_of_one_s_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in python_blocks(SOURCES / "compare.md"):
        exec(code, names)
    printed = capsys.readouterr().out
    assert "upgrad, every 10" in printed
    assert str(names["again"]) in printed
    assert json.loads((tmp_path / "results" / "comparison.json").read_text("utf-8"))


def module_of_the_site(name):
    spec = importlib.util.spec_from_file_location(f"site_{name}", SOURCES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_how_fast_it_is_shows_the_tables_of_the_page(tmp_path):
    speed = module_of_the_site("_speed")
    peers, plain = speed.tables(SOURCES / "speed.md")[:2]
    assert [speed.numbers(row[1]) for row in peers] == [[17], [4], [6.5], [1.3], [0.9], [1.5]]
    assert plain[0][0] == "`gls`, reads the losses only"
    assert [speed.numbers(cell) for cell in plain[-1][1:]] == [[3.4, 2.6], [10, 7.7]]
    speed.draw_speed(SOURCES / "speed.md", tmp_path / "speed.svg")
    assert (tmp_path / "speed.svg").stat().st_size > 10_000


@pytest.mark.slow
def test_the_picture_of_the_readme_shows_what_is_said_below_it():
    """Equal weights: one end in a valley, the others at one point of the front."""
    toy = module_of_the_site("_toy")
    for name, balancer in toy.METHODS.items():
        ends = toy.paths(balancer)[:, -1]
        front = toy.pareto_set(2001)
        away = np.linalg.norm(ends[:, None] - front, axis=-1).min(axis=1)
        if name == "equal weights":
            assert np.sum(away > 10) == 1
            assert np.ptp(ends[away < 0.1], axis=0).max() < 0.01
            assert np.sum(away < 0.1) == 4
        else:
            assert np.all(away < 0.1), name
            assert np.ptp(ends[:, 0]) > 5
