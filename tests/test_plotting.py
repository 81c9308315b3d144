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
    _, (left, right) = plt.subplots(1, 2, sharey=True)
    for shared in (left, right):
        plotting.plot_bars({"a": [1.0], "b": [5.0]}, shared)
    assert left.get_ylim() == right.get_ylim() == (1.5, -0.5)


def test_trajectories():
    paths = np.arange(12.0).reshape(2, 3, 2)
    x, y = np.linspace(0, 10, 5), np.linspace(0, 12, 7)
    values = x[None, :] + y[:, None]
    axis = plotting.plot_trajectories(paths, contours=(x, y, values), color="green")
    assert len(axis.collections) == 1
    lines = axis.lines
    assert len(lines) == 6
    for i in range(2):
        path, start, end = lines[3 * i : 3 * i + 3]
        np.testing.assert_array_equal(path.get_xydata(), paths[i])
        np.testing.assert_array_equal(start.get_xydata(), paths[i, :1])
        np.testing.assert_array_equal(end.get_xydata(), paths[i, -1:])
        assert path.get_color() == start.get_markeredgecolor() == end.get_color() == "green"
    assert axis.get_aspect() == 1
    assert plotting.plot_trajectories(paths, axis) is axis
    assert len(axis.collections) == 1
    with pytest.raises(ValueError, match=r"paths must have shape .* have \(3, 2\)"):
        plotting.plot_trajectories(paths[0])


def test_simplex_path():
    axis = plotting.plot_simplex_path(np.eye(3), names=("a", "b", "c"), label="path")
    assert [text.get_text() for text in axis.texts] == ["a", "b", "c"]
    (line,) = axis.lines
    corners = line.get_xydata()
    np.testing.assert_allclose(axis.patches[0].get_xy()[:3], corners)
    # Equilateral, the third corner on top; the middle of the weights is that of the triangle.
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    np.testing.assert_allclose(sides, 1)
    assert corners[2, 1] == corners[:, 1].max()
    again = plotting.plot_simplex_path(np.full((1, 3), 1 / 3), axis)
    assert again is axis
    assert len(axis.texts) == 3  # the triangle is drawn once
    np.testing.assert_allclose(axis.lines[1].get_xydata()[0], corners.mean(axis=0))
    with pytest.raises(ValueError, match=r"weights must have shape .* have \(5, 4\)"):
        plotting.plot_simplex_path(np.ones((5, 4)))


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


def test_task_weights_are_shares_with_their_spread():
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.1, 1, (4, 12, 3)) * rng.uniform(1, 100, (4, 12, 1))
    axis = plotting.plot_task_weights(weights, ["a", "b", "c"], window=4, colors=["r", "g", "b"])
    assert [line.get_label() for line in axis.lines] == ["a", "b", "c"]
    assert [line.get_color() for line in axis.lines] == ["r", "g", "b"]
    shares = weights / weights.sum(axis=-1, keepdims=True)
    windows = np.stack([shares[:, i : i + 4].mean(axis=1) for i in range(9)], axis=1)
    for i, (line, band) in enumerate(zip(axis.lines, axis.collections, strict=True)):
        np.testing.assert_allclose(line.get_xdata(), np.arange(9) + 1.5)
        np.testing.assert_allclose(line.get_ydata(), windows[:, :, i].mean(axis=0))
        mean, spread = windows[:, :, i].mean(axis=0), windows[:, :, i].std(axis=0, ddof=1)
        edges = band.get_paths()[0].vertices[:, 1]
        assert edges.max() == pytest.approx((mean + spread).max())
        assert edges.min() == pytest.approx((mean - spread).min())


def test_task_weights_of_one_seed_have_no_band_and_zeros_leave_a_gap():
    weights = np.array([[[0.0, 0.0], [1.0, -3.0], [2.0, 2.0]]])
    axis = plotting.plot_task_weights(weights, ["a", "b"])
    assert not axis.collections
    np.testing.assert_allclose(axis.lines[1].get_ydata(), [np.nan, -0.75, 0.5])
    with pytest.raises(ValueError, match=r"\(seeds, steps, 2\).*has \(3, 2\)"):
        plotting.plot_task_weights(weights[0], ["a", "b"])
    with pytest.raises(ValueError, match=r"\(seeds, steps, 3\) for 3 tasks"):
        plotting.plot_task_weights(weights, ["a", "b", "c"])


def test_cosines():
    cosines = [[1.0, -0.9], [-0.9, 1.0]]
    axis = plotting.plot_cosines(cosines, ["a", "b"])
    (image,) = axis.images
    np.testing.assert_array_equal(image.get_array(), cosines)
    assert image.get_clim() == (-1, 1)
    red, _, blue, _ = image.to_rgba(-0.9)
    assert red > blue
    assert [t.get_text() for t in axis.get_xticklabels()] == ["a", "b"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in axis.texts] == ["1.00", "-0.90", "-0.90", "1.00"]
    with pytest.raises(ValueError, match=r"shape \(3, 3\) for so many names, but it is \(2, 2\)"):
        plotting.plot_cosines(cosines, ["a", "b", "c"])


def test_heat_map():
    axis = plotting.plot_heat_map([[-0.01, 5.0, 10.0]], ["row"], ["x", "y", "z"], limits=(0, 10))
    assert [t.get_text() for t in axis.texts] == ["0.0", "5.0", "10.0"]
    assert [t.get_position() for t in axis.texts] == [(0, 0), (1, 0), (2, 0)]
    assert axis.texts[0].get_color() == "black"  # on white
    assert axis.texts[2].get_color() == "white"  # on dark blue
