"""What was drawn: series, labels, ranges."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxmtl import plotting


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_curves():
    series = {"a": np.arange(10.0) + 1, "b": np.full(10, 3.0)}
    axis = plotting.plot_curves(series, window=3, log=True)
    assert [line.get_label() for line in axis.lines] == ["a", "b"]
    x, y = axis.lines[0].get_data()
    np.testing.assert_allclose(x, np.arange(1, 9))
    np.testing.assert_allclose(y, np.arange(2, 10))
    assert axis.get_yscale() == "log"
    assert plotting.plot_curves(series, axis) is axis
    with pytest.raises(ValueError, match="window must be between 1 and the 10 steps of 'a'"):
        plotting.plot_curves(series, window=11)


def test_bars():
    axis = plotting.plot_bars({"a": [1.0, 3.0], "b": [5.0]}, reference=4.0, colors=["r", "b"])
    assert [bar.get_width() for bar in axis.patches] == [2.0, 5.0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    bottom, top = axis.get_ylim()
    assert bottom > top  # the first name is at the top
    assert axis.lines[-1].get_xdata()[0] == 4.0


def test_front():
    points = {"a": [[1.0, 3.0], [2.0, 1.0], [3.0, 3.0]], "b": [[0.0, 0.0]]}
    line = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    axis = plotting.plot_front(points, front=line, colors=["r", "b"])
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), line)
    filled, hollow, other, empty = axis.collections
    np.testing.assert_array_equal(filled.get_offsets(), points["a"][:2])
    np.testing.assert_array_equal(hollow.get_offsets(), points["a"][2:])
    np.testing.assert_array_equal(other.get_offsets(), points["b"])
    assert len(empty.get_offsets()) == 0
    assert [filled.get_facecolor()[0, 0], other.get_facecolor()[0, 2]] == [1.0, 1.0]
    assert len(hollow.get_facecolor()) == 0
    assert axis.get_legend_handles_labels()[1] == ["front", "a", "b"]
    assert plotting.plot_front({"c": [[1.0, 1.0]]}, axis) is axis
    with pytest.raises(ValueError, match=r"points must have shape \(N, 2\).* 'd' has \(1, 3\)"):
        plotting.plot_front({"d": [[1.0, 2.0, 3.0]]})
