"""The reference, made from the package, whose docstring has the groups."""

import importlib
import inspect
import re
from pathlib import Path

from _methods import describe, index, method_page
from _pictures import draw_dual_cone, draw_method, draw_min_norm
from _speed import draw_speed
from sphinx.util import logging

import jaxmtl

LOGGER = logging.getLogger(__name__)
MODULES = ("methods", "pareto", "solvers", "theory", "diagnostics", "problems", "plotting")


def groups():
    """The parts of the package's docstring.

    Returns:
      dict from heading to a list of pairs: words ahead of the names, and the names; a name in
      parentheses stands with the one before it, as (name, its companions).
    """
    found = {}
    blocks = re.findall(r"^(\S.*)\n((?:    .*\n?)+)", inspect.getdoc(jaxmtl), re.MULTILINE)
    for heading, text in blocks:
        parts = []
        for part in " ".join(text.split()).split(";"):
            words = part.split("``")[0].strip()
            names = re.findall(r"``(\w+)``(?: \(``(\w+)``\))?", part)
            parts.append((words, [(name, [other] if other else []) for name, other in names]))
        found[heading] = parts
    return found


def write_pages(app):
    """Write what is made at each build: pages that have changed, pictures; old pages go."""
    folder = Path(app.srcdir)
    for name in ("methods", "reference"):
        (folder / name).mkdir(exist_ok=True)
    draw_dual_cone(folder / "theory" / "dual_cone.svg")
    draw_min_norm(folder / "theory" / "min_norm.svg")
    draw_speed(folder / "speed.md", folder / "pictures" / "speed.svg")
    pages = {folder / path: text for path, text in (_methods(folder) | _reference()).items()}
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in {*folder.glob("methods/*.md"), *folder.glob("reference/*.md")} - pages.keys():
        path.unlink()


def _methods(folder):
    """The pages of the methods, and their pictures: dict from path to text."""
    pages, sections = {}, []
    for heading, parts in groups().items():
        if not heading.startswith("Methods"):
            continue
        for words, names in parts:
            title = f"### {words.capitalize()}" if words else f"## {heading}"
            sections.append((title, [name for name, _ in names]))
            for name, others in names:
                drawn = draw_method(name, folder / "methods" / f"{name}.svg")
                pages[f"methods/{name}.md"] = method_page(name, others, drawn)
    return pages | {"methods/index.md": index(sections)}


def _reference():
    """The pages of all else: dict from path to text."""
    pages = {}
    for heading, parts in groups().items():
        if heading.startswith("Methods") or heading == "Modules":
            continue
        names = [n for _, part in parts for name, others in part for n in (name, *others)]
        objects = [f"jaxmtl.{name}" for name in names]
        if "compare" in names:
            objects.append("jaxmtl.compare.load")
        page = re.sub(r"\W+", "_", heading.split(",")[0].lower()).strip("_")
        pages[page] = f"# {heading}\n{describe(objects)}"
    for name in MODULES:
        module = f"```{{eval-rst}}\n.. automodule:: jaxmtl.{name}\n```\n"
        objects = [f"jaxmtl.{name}.{public}" for public in public_names(name)]
        pages[name] = f"# `jaxmtl.{name}`\n\n{module}{describe(objects)}"
    toctree = "\n".join(["```{toctree}", ":maxdepth: 1", "", *pages, "```"])
    pages["index"] = f"# Reference\n\n{toctree}\n"
    return {f"reference/{page}.md": text for page, text in pages.items()}


def public_names(name):
    """What a module of the package offers, without what ``jaxmtl`` itself has."""
    module = importlib.import_module(f"jaxmtl.{name}")
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__.startswith(module.__name__)
    ]
    if name == "problems":  # each is a function in a module of its name
        for problem in module.PROBLEMS:
            importlib.import_module(f"jaxmtl.problems.{problem}")
            names.append(f"{problem}.{problem}")
    return [name for name in names if name not in jaxmtl.__all__]


def check_public_names(app, env):
    """Warn of every public name that stands on no page."""
    names = [f"jaxmtl.{name}" for name in jaxmtl.__all__]
    for module in MODULES:
        names += [f"jaxmtl.{module}.{name}" for name in public_names(module)]
    for name in names:
        if name not in env.domains.python_domain.objects:
            LOGGER.warning("The public name %s is on no page of the site.", name)
