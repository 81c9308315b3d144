"""The reference, made from the package, whose docstring has the groups."""

import importlib
import inspect
import re
from pathlib import Path

from _methods import describe, index, method_page
from _pictures import draw_dual_cone, draw_method, draw_min_norm
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
    """Write the pages of the reference beside the others; unchanged ones are left alone."""
    folder = Path(app.srcdir)
    for name in ("methods", "reference"):
        (folder / name).mkdir(exist_ok=True)
    draw_dual_cone(folder / "theory" / "dual_cone.svg")
    draw_min_norm(folder / "theory" / "min_norm.svg")
    method_groups, pages = [], []
    for heading, parts in groups().items():
        if heading.startswith("Methods"):
            method_groups += _method_groups(heading, parts)
            for _, names in parts:
                for name, others in names:
                    drawn = draw_method(name, folder / "methods" / f"{name}.svg")
                    _write(folder / "methods" / f"{name}.md", method_page(name, others, drawn))
        elif heading != "Modules":
            names = [n for _, part in parts for name, others in part for n in (name, *others)]
            page = re.sub(r"\W+", "_", heading.split(",")[0].lower()).strip("_")
            pages.append(page)
            objects = [f"jaxmtl.{name}" for name in names if name in jaxmtl.__all__]
            if "compare" in names:
                objects.append("jaxmtl.compare.load")
            _write(folder / "reference" / f"{page}.md", _page(heading, "", objects))
    for name in MODULES:
        module = importlib.import_module(f"jaxmtl.{name}")
        objects = [f"jaxmtl.{name}.{public}" for public in public_names(module)]
        pages.append(name)
        introduction = f"```{{eval-rst}}\n.. automodule:: jaxmtl.{name}\n```\n"
        _write(
            folder / "reference" / f"{name}.md", _page(f"`jaxmtl.{name}`", introduction, objects)
        )
    _write(folder / "methods" / "index.md", index(method_groups))
    toctree = "\n".join(["```{toctree}", ":maxdepth: 1", "", *pages, "```"])
    _write(folder / "reference" / "index.md", f"# Reference\n\n{toctree}\n")


def public_names(module):
    """What a module of the package offers, without what ``jaxmtl`` itself has."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__.startswith(module.__name__)
    ]
    return [name for name in names if name not in jaxmtl.__all__]


def check_public_names(app, env):
    """Warn of every public name that stands on no page."""
    described = env.domains.python_domain.objects
    names = [f"jaxmtl.{name}" for name in jaxmtl.__all__]
    for name in MODULES:
        module = importlib.import_module(f"jaxmtl.{name}")
        names += [f"jaxmtl.{name}.{public}" for public in public_names(module)]
    for name in names:
        if name not in described:
            LOGGER.warning("The public name %s is on no page of the site.", name)


def _method_groups(heading, parts):
    """Pairs of a title and names; the parts behind a semicolon are groups of their own."""
    return [
        (f"### {words.capitalize()}" if words else f"## {heading}", [name for name, _ in names])
        for words, names in parts
    ]


def _page(title, introduction, objects):
    """A page of functions and classes."""
    return f"# {title}\n\n{introduction}" + describe(objects)


def _write(path, text):
    """Write a page that is new or has changed."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
