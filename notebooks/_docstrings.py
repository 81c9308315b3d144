"""Docstrings are written to be read in a terminal: formulas indented, no signs escaped."""

import re

SECTIONS = ("Args:", "Attributes:", "Returns:", "Raises:", "Examples:", "References:")
MARKED_UP = re.compile(r"(``.+?``|`[^`]+`_{0,2})", re.DOTALL)


def to_rst(app, what, name, obj, options, lines):
    """Turn the indented formulas of a docstring into literal blocks; escape signs of RST."""
    result, section, prose = [], "", []

    def flush():
        result.extend(_escaped("\n".join(prose)).split("\n") if prose else [])
        prose.clear()

    formula = False
    for line in lines:
        if line in SECTIONS:
            section = line
        # Free text begins at the margin, that of a section two spaces in.
        margin = 2 if section else 0
        indent = len(line) - len(line.lstrip())
        free = section in ("", "Returns:")
        deeper = free and line.strip() != "" and indent > margin
        example = section == "Examples:" and line not in SECTIONS
        if deeper and not formula:
            flush()
            result += ["", " " * margin + ".. code-block:: text", ""]
        if formula and not deeper and line.strip():
            result.append("")
        formula = deeper or (formula and not line.strip())
        if formula or example:
            flush()
            result.append(line)
        else:
            prose.append(line)
    flush()
    lines[:] = result


def _escaped(text):
    """Text without what RST would take for markup, but for literals and links."""
    parts = MARKED_UP.split(text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([*|\\])", r"\\\1", parts[i])
        parts[i] = re.sub(r"(\w)_(?!\w)", r"\1\\_", parts[i])
        # "T." would begin a list of items A, B, C.
        parts[i] = re.sub(r"(?m)^(\s*(?:\w+: )?)([A-Za-z]\.)$", r"\1\\\2", parts[i])
    return "".join(parts)
