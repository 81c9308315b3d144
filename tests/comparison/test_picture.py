"""What the pictures of a comparison show: made-up numbers, no training, no pixels."""

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from jaxmtl.comparison import _saved
from jaxmtl.comparison._report import Comparison, Setting
from jaxmtl.comparison._training import Outcome
from jaxmtl.methods import METHODS

LONG = "a name of a method that goes on and on, with a price of 1 $ or x^$"
TEN = ["equal", "upgrad", "mgda", "pcgrad", "normalize", "dwa", "famo", "rlw", "stch"]
TEN = [*TEN, "upgrad, every 10 steps"]


def made(num_tasks=3, gains=None, *, seeds=5, tasks=None, references=True, planned=()):
    """Methods whose metrics exceed the reference by what ``gains`` says in %, give or take 0.5."""
    rng = np.random.default_rng(0)
    gains = {"equal": 0.0, "mgda": 5.0, "upgrad": -4.0} if gains is None else gains
    tasks = tuple(tasks or [f"task_{i}" for i in range(num_tasks)])
    maximize = {task: i % 2 == 0 for i, task in enumerate(tasks)}
    alone = [f"single:{task}" for task in tasks] if references else []
    runs = (*alone, *gains, *planned)
    words = dict.fromkeys(tasks, "error")
    comparison = Comparison(Setting("Made up", tasks, maximize, words, 40, seeds, "Adam", runs))
    if references:
        comparison.alone = {task: np.full(seeds, 2.0) for task in tasks}
    sign = np.where(list(maximize.values()), 1, -1)
    for name, gain in gains.items():
        noise = rng.normal(0, 0.5, (seeds, 1))
        metrics = 2 + 2 * sign * (gain + noise) / 100
        curves = np.exp(rng.normal(size=(40, len(tasks))))
        if np.isnan(gain):
            curves[20:] = np.nan
        shares = curves / curves.sum(axis=1, keepdims=True)
        broken = "a loss was not finite at step 20" if np.isnan(gain) else ""
        outcome = Outcome(metrics, curves, curves, shares, 1.0, np.ones(8), broken=broken)
        comparison.add(name, outcome)
    return comparison


def names_of(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


def points_of(axis):
    """Marker and place of each point, row by row."""
    lines = [line for line in axis.lines if line.get_marker() not in (None, "None", "")]
    return {int(line.get_ydata()[0]): (line, float(line.get_xdata()[0])) for line in lines}


def legend_of(figure):
    return [text.get_text() for text in figure.subfigs[0].legends[0].get_texts()]


def test_the_summary_orders_methods_by_their_mean_change():
    comparison = made()
    figure = comparison.plot()
    gains, changes = figure.subfigs[0].axes
    assert names_of(gains) == ["mgda", "equal", "upgrad"]
    points = points_of(gains)
    for row, name in enumerate(names_of(gains)):
        assert points[row][1] == pytest.approx(comparison.delta_m[name].mean())
    table = changes.images[0].get_array()
    expected = [comparison.changes(name).mean(axis=0) for name in names_of(gains)]
    np.testing.assert_allclose(table, expected)
    assert changes.texts[0].get_text() == f"{expected[0][0]:+.1f}"
    assert gains.get_ylim() == changes.get_ylim()  # a row is one method in both
    assert [t.get_text() for t in changes.get_xticklabels()] == ["task_0", "task_1", "task_2"]
    assert figure.get_suptitle() == "Made up: 40 steps, seeds: 5"


def test_the_interval_is_students():
    comparison = made()
    axis = comparison.plot().subfigs[0].axes[0]
    drawn = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 2]
    sample = comparison.delta_m["mgda"]
    half = 2.7764451052 * sample.std(ddof=1) / np.sqrt(5)  # of 4 degrees of freedom
    np.testing.assert_allclose(drawn[0], (sample.mean() - half, sample.mean() + half))


def test_filled_is_what_differs_from_equal():
    figure = made(gains={"equal": 0.0, "mgda": 5.0, "upgrad": 0.0}).plot()
    axis = figure.subfigs[0].axes[0]
    filled = {}
    for row, (line, _) in points_of(axis).items():
        filled[names_of(axis)[row]] = (line.get_marker(), line.get_markerfacecolor() != "white")
    assert filled == {"equal": ("D", True), "mgda": ("o", True), "upgrad": ("o", False)}
    bold = [label.get_text() for label in axis.get_yticklabels() if label.get_weight() == "bold"]
    assert bold == ["equal"]
    assert legend_of(figure)[:3] == ["differs from equal by more than chance", "does not", "equal"]


def test_who_diverged_or_is_far_off_is_named_at_the_edge():
    far = {"equal": 0.0, "mgda": 1.0, "upgrad": -1.0, "pcgrad": -700.0, "famo": np.nan}
    comparison = made(gains=far)
    gains, changes = comparison.plot().subfigs[0].axes
    assert names_of(gains)[3:] == ["pcgrad", "famo"]
    assert [text.get_text() for text in gains.texts] == ["◂ -700", "diverged"]
    assert -30 < gains.get_xlim()[0] < -1
    assert [text.get_text() for text in changes.texts[-3:]] == ["–"] * 3
    assert {text.get_color() for text in changes.texts[-3:]} == {"black"}
    assert max(changes.images[0].get_clim()) < 10  # one failure does not fade the others
    comparison.outcomes["famo"] = comparison.outcomes["famo"]._replace(broken="")
    assert comparison.plot().subfigs[0].axes[0].texts[1].get_text() == "not finite"


def test_equal_is_on_the_axis_however_far_it_is():
    axis = made(gains={"equal": -90.0, "mgda": 1.0, "upgrad": -1.0, "dwa": 0.0}).plot()
    axis = axis.subfigs[0].axes[0]
    assert not axis.texts
    assert axis.get_xlim()[0] < -90


def test_without_references_changes_are_against_equal_seed_by_seed():
    comparison = made(references=False)
    gains, changes = comparison.plot().subfigs[0].axes
    assert "against equal" in gains.get_title()
    assert names_of(gains) == ["mgda", "equal", "upgrad"]
    metrics = {name: outcome.metrics for name, outcome in comparison.outcomes.items()}
    paired = (metrics["mgda"] - metrics["equal"]).mean(axis=0) * (1, -1, 1)
    expected = 100 * paired / metrics["equal"].mean(axis=0)
    np.testing.assert_allclose(changes.images[0].get_array()[0], expected)
    assert points_of(gains)[1][1] == 0
    gains = made(gains={"mgda": 1.0, "dwa": 2.0}, references=False).plot().subfigs[0].axes[0]
    assert "against mgda" in gains.get_title()


def test_references_without_constant_weights():
    figure = made(gains={"mgda": 1.0, "dwa": 2.0}).plot()
    assert "single-task" in figure.subfigs[0].axes[0].get_title()
    assert legend_of(figure) == ["95 % interval over seeds"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_have_no_interval(seeds):
    figure = made(seeds=seeds).plot()
    axis = figure.subfigs[0].axes[0]
    assert len(axis.lines) == 3 + 2  # the points, equal and 0
    assert legend_of(figure) == ["fewer than 3 seeds: no intervals", "equal"]


def test_an_incomplete_comparison_says_so():
    figure = made(planned=["famo", "stch"]).plot()
    assert figure.get_suptitle().endswith("incomplete: 6 of 8 runs")
    with pytest.raises(ValueError, match="no method of this comparison has finished"):
        made(gains={}).plot()


def test_task_weights_of_the_best_methods():
    gains = {"equal": 9.0} | {name: float(i) for i, name in enumerate(TEN[1:])}
    comparison = made(gains=gains)
    lower = comparison.plot().subfigs[1]
    best = [axis.get_title() for axis in lower.axes]
    assert best == ["upgrad, every 10 steps", "stch"]
    curve = lower.axes[1].lines[2].get_ydata()
    shares = 100 * comparison.outcomes["stch"].shares[:, 2]
    np.testing.assert_allclose(curve, (shares[1:] + shares[:-1]) / 2)
    names = [text.get_text() for text in lower.legends[0].get_texts()]
    assert names == ["task_0", "task_1", "task_2", "equal shares"]
    assert len(comparison.plot("weights").axes) == 10


def test_many_tasks_have_their_mean_weights_in_a_table():
    comparison = made(7, {"equal": 0.0, "mgda": 5.0, "upgrad": np.nan})
    (axis,) = comparison.plot("weights").axes
    assert names_of(axis) == ["mgda", "equal", "upgrad"]
    table = axis.images[0].get_array()
    for row, steps in enumerate((40, 40, 20)):  # the last diverged at step 20
        shares = comparison.outcomes[names_of(axis)[row]].shares[:steps]
        np.testing.assert_allclose(table[row], 100 * shares.mean(axis=0))
    assert names_of(comparison.plot().subfigs[1].axes[0]) == ["mgda"]


def test_losses_of_few_methods_are_in_colour():
    comparison = made(gains={name: float(i) for i, name in enumerate(TEN)})
    figure = comparison.plot("losses")
    assert [axis.get_title() for axis in figure.axes] == ["task_0", "task_1", "task_2"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["equal", TEN[9], "stch", "rlw", "famo", "the other 5"]
    colors = [line.get_color() for line in figure.axes[0].lines]
    assert len(colors) == 10
    assert len(set(colors)) == 6
    np.testing.assert_allclose(
        figure.axes[1].lines[2].get_ydata(), comparison.outcomes["stch"].losses[:, 1]
    )
    assert {axis.get_yscale() for axis in figure.axes} == {"log"}
    comparison.outcomes["stch"].losses[3, 1] = -1
    scales = [axis.get_yscale() for axis in comparison.plot("losses").axes]
    assert scales == ["log", "linear", "log"]


def test_what_to_draw():
    with pytest.raises(ValueError, match=r"one of 'summary', 'losses', 'weights', 'all'.* 'loss'"):
        made().plot("loss")
    large = made().plot("all")
    assert large.get_size_inches()[0] == 4 * 3 + 4
    assert len(large.axes) == 3 * 3 + 1
    # Without references there is nothing to draw Δm from.
    assert len(made(references=False).plot("all").axes) == 3 * 3


@pytest.mark.slow
def test_names_are_no_formulas():
    comparison = made(tasks=["$x^$", "_b"], gains={"equal": 0.0, "_a": 1.0, "$y_$": 2.0})
    for what in ("summary", "losses", "weights", "all"):
        FigureCanvasAgg(comparison.plot(what)).draw()
    figure = comparison.plot()
    assert names_of(figure.subfigs[0].axes[0]) == [r"\$y_\$", "_a", "equal"]
    names = [text.get_text() for text in figure.subfigs[1].legends[0].get_texts()]
    assert names == [r"\$x^\$", "_b", "equal shares"]
    assert list(comparison.outcomes) == ["equal", "_a", "$y_$"]  # the comparison stays as it was


def overlapping(figure):
    """Pairs of texts that cover each other, and texts that leave the picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = figure.findobj(lambda item: isinstance(item, Text) and bool(item.get_text().strip()))
    for axis in figure.findobj(Axis):  # ticks beyond the ends of an axis are not drawn
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        beyond = {tick.label1 for tick in ticks if not low <= tick.get_loc() <= high}
        shown = [text for text in shown if text not in beyond]
    boxes = [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for text in shown
        if text.get_visible()
    ]
    width, height = canvas.get_width_height()
    found = [name for name, box in boxes if box.x0 < -1 or box.x1 > width + 1]
    found += [name for name, box in boxes if box.y0 < -1 or box.y1 > height + 1]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        across, along = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > 1 and along > 1:  # pixels
            found.append((one, other))
    return found


MANY = ["equal", *(name for name in METHODS if name != "equal")][:40]
SHAPES = {
    "4 tasks, 10 methods": (["left", "right", "sum", "reconstruction"], TEN),
    "14 tasks, 4 methods": ([f"protein synthesis {i}" for i in range(14)], TEN[:4]),
    "2 tasks, 40 methods": (["accuracy of the left digit in the picture", "b"], MANY),
    "5 tasks, long names": ([f"{LONG} {i}" for i in range(5)], ["equal", LONG, "x" * 70]),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "shape"),
    [
        *(("summary", shape) for shape in SHAPES),
        ("losses", "5 tasks, long names"),
        ("weights", "5 tasks, long names"),
        ("weights", "14 tasks, 4 methods"),
    ],
)
def test_a_page_can_be_read(what, shape):
    tasks, methods = SHAPES[shape]
    gains = {name: float(3 * i) for i, name in enumerate(methods)} | {methods[-1]: np.nan}
    figure = made(tasks=tasks, gains=gains).plot(what)
    assert figure.get_size_inches()[0] == 7.2
    texts = figure.findobj(lambda item: isinstance(item, Text) and bool(item.get_text()))
    assert min(text.get_fontsize() for text in texts) >= 5.5
    assert overlapping(figure) == []


@pytest.mark.slow
def test_a_page_of_40_tasks_names_some():
    axis = made(40).plot().subfigs[0].axes[1]
    assert len(axis.texts) == 0
    assert 10 < len(axis.get_xticklabels()) < 40


def test_the_settings_of_matplotlib_stay():
    before = dict(matplotlib.rcParams)
    made().plot()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.slow
def test_the_summary_is_saved(monkeypatch, tmp_path):
    monkeypatch.setattr(_saved, "write_whole", lambda path, content: (path.name, content))
    (_, _), (name, content) = _saved.save(made(), tmp_path)
    assert name == "comparison.png"
    width = int.from_bytes(content[16:20])  # of a PNG
    assert width == 160 * 7.2
