"""The picture of how fast it is, drawn from the tables of its page."""

import re
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

GREY, COLOURS = "#888888", ("#3b82c4", "#d9822b")  # of colours that are seen on white and on black


def tables(page):
    """The tables of a page.

    Returns:
      A list of tables, each a list of rows below the head, each a list of cells.
    """
    found = re.findall(r"^\|.*\n\|---.*\n((?:\|.*\n)+)", Path(page).read_text("utf-8"), re.M)
    return [
        [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()]
        for table in found
    ]


def numbers(cell):
    """The numbers of a cell such as "17 times" or "1.7 / 1.2"."""
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", cell)]


def draw_speed(page, path):
    """Draw the first two tables: beside TorchJD, and beside a plain step."""
    peers, plain = tables(page)[:2]
    with mpl.rc_context({"font.size": 11, "svg.hashsalt": "jaxmtl"}):
        figure = Figure(figsize=(7, 6.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(len(peers), len(plain) + 1))
        names = ["weights from a Gramian", "stacked gradients", "step: MLP of width 64"]
        names += ["step: MLP of width 512", "step: convolutions", "step: transformer"]
        _frame(upper, names, "times as fast as TorchJD")
        for i, (_, (_, mean, least)) in enumerate(zip(names, peers, strict=True)):
            ends = numbers(least)[0], numbers(mean)[0]
            upper.plot(ends, (i, i), color=COLOURS[0], linewidth=2.5)
            upper.plot(ends[1], i, "o", color=COLOURS[0], markersize=8)
            text = {"textcoords": "offset points", "va": "center", "color": GREY}
            upper.annotate(f"{ends[1]:g}", (ends[1], i), (8, 0), **text)
        upper.set(xlim=(0.6, 30), xticks=[1, 2, 5, 10, 20])
        _frame(lower, [_short(row[0]) for row in plain], "time of a step, in plain steps")
        for i, row in enumerate(plain):
            for j, (cell, fill) in enumerate(zip(row[1:], ("none", "full"), strict=True)):
                for k, (number, colour) in enumerate(zip(numbers(cell), COLOURS, strict=True)):
                    style = {"color": colour, "fillstyle": fill, "markersize": 8}
                    labels = [f"{net}, T = {t}" for t in (2, 8) for net in ("MLP", "transformer")]
                    label = labels[2 * j + k] if i == 0 else None
                    lower.plot(number, i + 0.15 * (2 * k - 1), "o", label=label, **style)
        lower.set(xlim=(0.6, 14), xticks=[1, 2, 5, 10])
        legend = lower.legend(loc="upper right", frameon=False, labelcolor=GREY)
        legend.set_in_layout(False)
        for axis in (upper, lower):
            axis.set_xticklabels([f"{tick:g}" for tick in axis.get_xticks()])
        figure.savefig(path, transparent=True, metadata={"Date": None})


def _short(name):
    """What stands in the first column, as it fits beside the panel."""
    return (
        name.replace("`", "")
        .replace(", reads the losses only", "")
        .replace("the same, beside one forward and", "stacked, beside")
        .replace(", on average", "")
    )


def _frame(axis, names, label):
    axis.set_xscale("log")
    axis.minorticks_off()
    axis.axvline(1, color=GREY, linewidth=1)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(label)
    axis.tick_params(colors=GREY, length=0)
    axis.xaxis.label.set_color(GREY)
    axis.grid(color=GREY, alpha=0.25)
    axis.spines[:].set_visible(False)
