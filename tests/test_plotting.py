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
