"""Tables of text that fit a width: if there is no room, whole columns are left out."""

import html
import textwrap
from typing import NamedTuple

GAPS = (2, 1)  # characters between columns, with and without room


class Column(NamedTuple):
    """A column of a table.

    Attributes:
      name: the first line of its header, and its name.
      unit: the next line of its header.
      cells: one for each row.
      spare: the column with the largest number is left out first; those with 0 stay.
    """

    name: str
    unit: str
    cells: list[str]
    spare: int = 0


def fitting(columns: list[Column], width: int) -> list[Column]:
    """The columns that fit side by side."""
    shown = list(columns)
    while _total(_widths(shown, 0), GAPS[-1]) > width and any(column.spare for column in shown):
        shown.remove(max(shown, key=lambda column: column.spare))
    return shown


def lay_out(columns: list[Column], width: int) -> str:
    """Write as many columns side by side as fit, and name those that do not.

    Headers break between words; neither words nor cells are cut. The first column is aligned to
    the left, all others to the right.
    """
    shown = fitting(columns, width)
    gap = next((g for g in GAPS if _total(_widths(shown, 0), g) <= width), GAPS[-1])
    # Headers take as few lines as the width allows.
    limits = range(max(len(f"{c.name}{c.unit}") for c in shown), 0, -1)
    candidates = (_widths(shown, limit) for limit in limits)
    widths = next((w for w in candidates if _total(w, gap) <= width), _widths(shown, 0))
    headers = [
        _wrap(column.name, w) + _wrap(column.unit, w)
        for column, w in zip(shown, widths, strict=True)
    ]
    height = max(map(len, headers))
    filled = [
        [cell.rjust(w) if i else cell.ljust(w) for cell in [""] * (height - len(h)) + h + c.cells]
        for i, (c, h, w) in enumerate(zip(shown, headers, widths, strict=True))
    ]
    lines = [(" " * gap).join(row).rstrip() for row in zip(*filled, strict=True)]
    if left_out := [column.name for column in columns if column not in shown]:
        note = (
            f"Left out, since {width} characters are too few: {', '.join(left_out)}. The saved"
            f" numbers have all of them, and so does the table where a wider window or"
            f" COLUMNS={_total(_widths(columns, 0), GAPS[-1])} makes room."
        )
        lines += textwrap.wrap(note, width, break_long_words=False)
    return "\n".join(lines)


def _widths(columns: list[Column], limit: int) -> list[int]:
    """Widths of the columns if headers are broken beyond ``limit`` characters."""
    return [
        max(map(len, [*_wrap(c.name, limit), *_wrap(c.unit, limit), *c.cells])) for c in columns
    ]


def _total(widths: list[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False)


def as_html(columns: list[Column]) -> str:
    """Write all columns as a table of HTML."""

    def row(cells: list[str], tag: str) -> str:
        aligned = ("left", *["right"] * (len(cells) - 1))
        texts = [
            f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
            for side, cell in zip(aligned, cells, strict=True)
        ]
        return f"<tr>{''.join(texts)}</tr>"

    head = row([f"{column.name} {column.unit}".strip() for column in columns], "th")
    rows = [row(list(cells), "td") for cells in zip(*(c.cells for c in columns), strict=True)]
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
