"""The notebooks run from a clean kernel, and what they show is stored in them."""

import ast
import pathlib
import re

import nbformat
import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def calls(source):
    """The names of the functions that a cell calls outside its function definitions."""
    found, queue = set(), list(ast.parse(source).body)
    while queue:
        node = queue.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            found.add(ast.unparse(node.func))
        queue.extend(ast.iter_child_nodes(node))
    return found


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.slow
@every_notebook
def test_notebook_runs(path, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    # The kernel inherits the environment, and conftest has set the flag that the notebook sets.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


@every_notebook
def test_outputs_are_stored(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    pictures = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        assert cell.execution_count is not None, cell.source
        streams = [o for o in cell.outputs if o.output_type == "stream"]
        assert all(o.output_type != "error" for o in cell.outputs), cell.source
        assert all(o.name == "stdout" and "Warning" not in o.text for o in streams), cell.source
        images = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        pictures += len(images)
        called = calls(cell.source)
        assert bool(streams) == ("print" in called), cell.source
        assert bool(images) == bool({"plt.show", "comparison.plot"} & called), cell.source
    assert pictures


@every_notebook
def test_nothing_of_the_machine_is_stored(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(not cell.metadata for cell in notebook.cells)
    texts = [cell.source for cell in notebook.cells]
    for output in (o for cell in notebook.cells for o in cell.get("outputs", [])):
        texts += [
            output.get("text", ""),
            *output.get("data", {}).get("text/plain", "").splitlines(),
        ]
    for text in texts:
        assert not re.search(r"/(home|root|tmp|usr|work|Users)/|ipykernel_|\x1b", text), text
