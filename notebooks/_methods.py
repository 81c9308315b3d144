"""A page for each method, of its line in ``jaxmtl.methods`` and its docstring."""

import html
import inspect
import json
from pathlib import Path

import jaxmtl

STORED = json.loads((Path(__file__).parent / "launches.json").read_text(encoding="utf-8"))

# The columns of ``jaxmtl.methods.describe``, and what they are called on the page of one method.
MEANINGS = {
    "task weights": "Task weights",
    "reads": "Reads",
    "cost": "Backward passes of a step",
    "degree": "Degree",
    "length at T = 4": "Length of the update on four identical unit gradients",
    "promises": "Promises",
    "any sign": "Losses of any sign",
    "points": "One loss a point, in one backward pass",
    "held": "Weights may be held",
    "reference": "Reference",
}


def method_page(name, others, drawn):
    """One method: what it is in a table, what it does to two gradients, its docstring."""
    facts = dict(zip(MEANINGS, jaxmtl.methods.describe(name), strict=True))
    reference = facts.pop("reference")
    rows = [f"| {MEANINGS[key]} | {value} |" for key, value in facts.items()]
    rows += [*_launches(name), f"| {MEANINGS['reference']} | {reference} |"]
    summary = inspect.getdoc(getattr(jaxmtl, name)).splitlines()[0]
    lines = [
        f"# {name}",
        "",
        html.escape(summary, quote=False),
        "",
        "| | |",
        "|---|---|",
        *rows,
        "",
    ]
    notes = _cautions(facts)
    if notes:
        lines += ["**Before you use it**", "", *[f"- {note}" for note in notes], ""]
    if drawn:
        lines += [
            f":::{{figure}} {name}.svg",
            f":alt: Two gradients that conflict, their mean, and the update of {name}",
            "",
            "The first update for two gradients that conflict, with losses 2 and 0.5. Dashed: the"
            " mean of the gradients. Shaded: the directions that conflict with neither.",
            ":::",
            "",
        ]
    return "\n".join(lines) + describe([f"jaxmtl.{n}" for n in (name, *others)])


def _launches(name):
    """What a GPU is given to run, of compiled programs: ``python -m tests.targets.stored``."""
    found = STORED["launches"][name]
    number = abs(found["step"])
    beside = f"{number} {'more' if found['step'] > 0 else 'fewer'} than" if number else "as many as"
    made = f"[compiled](../guides/costs.md#on-a-gpu) with jaxlib {STORED['jaxlib']}"
    few, many = found["8"], found["32"]
    return [
        f"| Launches on an H100 from Gramian or losses to weights | {few} for 8 tasks, {many} for"
        f" 32 ({made}) |",
        f"| Launches of a step with Adam, 8 tasks | {beside} those of 8 backward passes and"
        " their mean |",
    ]


def _cautions(facts):
    """When not to use a method, as far as its line in the table says so."""
    notes = []
    if facts["any sign"] == "no":
        notes.append("Not for losses that may be negative.")
    elif facts["any sign"] != "yes":
        notes.append(f"Losses that may be negative need {facts['any sign'].removeprefix('with ')}.")
    if "T" in facts["cost"]:
        notes.append(
            "A step takes up to T backward passes. If that is too slow, use `every`, which computes"
            " weights less often."
        )
    if float(facts["degree"]) <= 0:
        notes.append(
            "The update does not shrink with the gradients: let the learning rate fall at the end."
        )
    if "no conflict" not in facts["promises"]:
        notes.append("A step may raise one of the losses, also to first order.")
    if "weights >= 0" not in facts["promises"]:
        notes.append("A task weight may be negative.")
    if "any order" not in facts["promises"]:
        notes.append("Which task comes first, or the random key, may matter.")
    if facts["held"] == "no":
        notes.append(
            "Its weights follow the present losses: do not hold them over many steps where a loss"
            " may be nearly zero."
        )
    return notes


def index(sections):
    """All methods: the groups, and one table to sort."""
    lines = [
        "---",
        "hide-toc: true",  # room for the table
        "---",
        "# Methods",
        "",
        "Each method is an optax transformation. A page has the formula, what the method reads and"
        " costs, what it promises, a picture of its first step, and an example.",
        "",
    ]
    for title, names in sections:
        lines += [title, "", "```{toctree}", ":hidden:", "", *names, "```", ""]
        lines += [f"- `{name}`: {jaxmtl.methods.METHODS[name].summary}" for name in names] + [""]
    lines += ["## All methods in one table", "", "Click on the head of a column to sort.", ""]
    lines += ["```{rst-class} sortable", "```", ""]
    lines += [f"| method | {' | '.join(MEANINGS)} |", "|---" * (len(MEANINGS) + 1) + "|"]
    for name in jaxmtl.methods.METHODS:
        lines.append(f"| `{name}` | {' | '.join(jaxmtl.methods.describe(name))} |")
    lines += [
        "",
        "What the columns mean is said in [how to choose](../choosing.md#the-columns).",
        "",
    ]
    return "\n".join(lines)


def describe(paths):
    """The directives that describe these objects."""
    lines = ["", "```{eval-rst}"]
    for path in paths:
        value = jaxmtl
        for part in path.split(".")[1:]:
            value = getattr(value, part)
        if inspect.ismodule(value):
            continue
        if inspect.isclass(value):
            lines.append(f".. autoclass:: {path}")
            if not issubclass(value, tuple):  # a NamedTuple's fields are in its docstring
                lines.append("   :members:")
        else:
            lines.append(f".. autofunction:: {path}")
        lines.append("")
    return "\n".join([*lines, "```", ""])
