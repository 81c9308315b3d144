"""Low light: photographs that do not leak, darkness that is dark, losses as written in float64."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from jaxmtl.problems import low_light as module
from jaxmtl.problems.low_light import curve_losses, curve_metrics, enhance, low_light
from jaxmtl.problems.photos import SPLITS, darken, load_photos, make_splits

pytestmark = pytest.mark.usefixtures("quick_compiler")

NAMES = ("train", "validation", "test")


@pytest.fixture(scope="module")
def problem():
    return low_light()


def some_curves(num, rows=4, columns=4):
    curves = np.random.default_rng(1).uniform(-0.9, 0.9, (num, rows, columns, 3))
    return jnp.asarray(curves, jnp.float32)


def first(data, num):
    """Examples from all over a split."""
    every = len(data["photo"]) // num
    return {name: array[::every][:num] for name, array in data.items()}


def reference_curves(curves):
    """Curves at every pixel: bilinear between the centres of the cells, constant outside."""
    fine = np.asarray(curves, np.float64)
    for axis in (1, 2):
        n = fine.shape[axis]
        centres, pixels = np.arange(n) * 8 + 3.5, np.arange(8 * n)
        fine = np.apply_along_axis(
            lambda row, c=centres, p=pixels: np.interp(p, c, row), axis, fine
        )
    return fine


def reference_image(dark, curves):
    """Odds times exp(a), and back."""
    dark, gain = np.asarray(dark, np.float64), np.exp(reference_curves(curves))
    return dark * gain / (1 - dark + dark * gain)


def reference(dark, truth, curves):
    """The five losses and metrics, picture by picture and cell by cell, in float64."""
    image, truth = reference_image(dark, curves), np.asarray(truth, np.float64)
    angles, stops, structures = [], [], []
    for x, y in zip(image, truth, strict=True):
        for top in range(0, x.shape[0], 8):
            for left in range(0, x.shape[1], 8):
                a, b = (z[top : top + 8, left : left + 8].reshape(64, 3) for z in (x, y))
                p, q = a.mean(axis=0) + 1 / 255, b.mean(axis=0) + 1 / 255
                angles.append(np.arccos(p @ q / np.linalg.norm(p) / np.linalg.norm(q)))
                stops.append(np.log2((p.mean() / q.mean()) ** 2.2))
                covariance = np.cov(a.mean(axis=1), b.mean(axis=1), bias=True)
                structures.append((2 * covariance[0, 1] + 9e-4) / (np.trace(covariance) + 9e-4))
    angles, stops, structures = map(np.array, (angles, stops, structures))
    errors = ((image - truth) ** 2).mean(axis=(1, 2, 3))
    curves = np.asarray(curves, np.float64)
    across, down = curves[:, :, 1:] - curves[:, :, :-1], curves[:, 1:] - curves[:, :-1]
    steps = np.concatenate([across.ravel(), down.ravel()])
    losses = {
        "colour": np.mean(2 * np.sin(angles / 2) ** 2),
        "exposure": np.mean(stops**2),
        "reconstruction": errors.mean(),
        "smoothness": np.mean(steps**2),
        "structure": np.mean(1 - structures),
    }
    metrics = {
        "colour": np.mean(angles) * 180 / np.pi,
        "exposure": np.mean(np.abs(stops)),
        "reconstruction": np.mean(10 * np.log10(1 / errors)),
        "smoothness": np.mean(np.abs(steps) < 0.1),
        "structure": structures.mean(),
    }
    return losses, metrics


def test_data_are_deterministic_and_in_range(problem):
    again = low_light()
    for split in NAMES:
        data = getattr(problem, split)
        assert set(data) == {"dark", "truth", "photo"}
        for name, array in data.items():
            np.testing.assert_array_equal(array, getattr(again, split)[name])
        for name in ("dark", "truth"):
            assert data[name].dtype == np.float32
            assert data[name].shape[1:] == (32, 32, 3)
            assert data[name].min() >= 0
            assert data[name].max() <= 1
    assert [len(getattr(problem, split)["photo"]) for split in NAMES] == [1024, 256, 256]


def test_no_photograph_is_in_two_splits(problem):
    photos = load_photos()
    members = [name for split in NAMES for name in SPLITS[split]]
    assert sorted(members) == sorted(photos)
    for split in NAMES:
        seen = {sorted(photos)[i] for i in getattr(problem, split)["photo"]}
        assert seen == set(SPLITS[split])


def test_crops_are_from_the_photographs_they_claim():
    """Every window of the photograph, both ways round, against the crop."""
    photos = load_photos()
    for data in make_splits({"train": 2, "validation": 2, "test": 2}, 16).values():
        for crop, i in zip(data["truth"], data["photo"], strict=True):
            photo = photos[sorted(photos)[i]]
            windows = np.lib.stride_tricks.sliding_window_view(photo, (16, 16), axis=(0, 1))
            found = [
                np.array_equal(windows[top, left].transpose(1, 2, 0), picture)
                for picture in (crop, crop[:, ::-1])
                for top, left in np.argwhere((windows[..., 0, 0] == picture[0, 0]).all(axis=-1))
            ]
            assert any(found)


def test_photographs_are_reduced_by_averages():
    from skimage.data import chelsea

    full = chelsea().astype(np.float64) / 255  # (300, 451, 3), in blocks of 3
    small = load_photos()["chelsea"]
    assert small.shape == (100, 150, 3)
    np.testing.assert_allclose(small[0, 0], full[:3, :3].mean(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(small[99, 149], full[297:300, 447:450].mean(axis=(0, 1)), rtol=1e-6)


def test_dark_is_dark(problem):
    """Light loses 1.5 to 6 stops: 1.5 to 3.5 overall, up to 1 on the way, up to 1.5 a channel."""
    for split in NAMES:
        data = getattr(problem, split)
        light, truth = (np.mean(data[n] ** 2.2, axis=(1, 2)) for n in ("dark", "truth"))
        bright = truth > 0.1
        stops = np.log2(truth[bright] / light[bright])
        assert bright.mean() > 0.3
        assert stops.min() > 1.4
        assert stops.max() < 6.1
        cast = np.ptp(np.log2(truth / light)[bright.all(axis=1)], axis=1)
        assert 0.3 < np.median(cast) < 1.2


def test_darkening_by_its_formula():
    """A grey picture: the light falls linearly in stops along one direction, up to the noise."""
    dark = darken(np.full((64, 48, 3), 0.9), np.random.default_rng(3)).astype(np.float64)
    np.testing.assert_allclose(dark * 255, np.round(dark * 255), atol=1e-4)
    lost = np.log2(0.9**2.2 / dark**2.2)
    rows, columns = np.indices((64, 48)) / np.array([63, 47])[:, None, None]
    plane = np.stack([np.ones(64 * 48), rows.ravel(), columns.ravel()], axis=1)
    fits = [np.linalg.lstsq(plane, lost[..., c].ravel(), rcond=None)[0] for c in range(3)]
    slopes = np.array(fits)[:, 1:]
    assert np.all(np.abs(slopes).sum(axis=1) < 1.02)
    # One lamp for all channels.
    np.testing.assert_allclose(slopes - slopes.mean(axis=0), 0, atol=0.03)
    assert np.ptp(lost.mean(axis=(0, 1))) > 0.1
    corners = np.array([[1, i, j] for i in (0, 1) for j in (0, 1)]) @ np.array(fits).T
    assert corners.min() > 1.45
    assert corners.max() < 6.05


def test_losses_and_metrics_against_float64(problem):
    batch = first(problem.test, 6)
    curves = some_curves(6)
    losses, metrics = reference(batch["dark"], batch["truth"], curves)
    found = curve_losses(curves, batch)
    assert tuple(sorted(found)) == problem.tasks
    for task, value in found.items():
        np.testing.assert_allclose(value, losses[task], rtol=2e-5, err_msg=task)
    found = curve_metrics(curves, batch)
    assert tuple(sorted(found)) == problem.tasks
    for task, value in found.items():
        np.testing.assert_allclose(value, metrics[task], rtol=1e-4, err_msg=task)


@pytest.mark.slow
def test_the_network_against_float64(problem):
    """Features and layers, written with loops; the problem's losses are those of these curves."""
    batch, params = first(problem.test, 3), problem.init(jax.random.key(0))
    layers = {
        name: {k: np.asarray(v, np.float64) for k, v in layer.items()}
        for name, layer in params["trunk"].items()
    }
    curves = np.zeros((3, 4, 4, 3))
    for n, dark in enumerate(batch["dark"].astype(np.float64)):
        logs = 1 + np.log2(dark.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3)) + 1 / 255) / 4
        overall = [logs.mean(axis=(0, 1)), logs.min(axis=(0, 1)), logs.max(axis=(0, 1))]
        for i, j in np.ndindex(4, 4):
            around = [
                logs[np.clip(i + di, 0, 3), np.clip(j + dj, 0, 3)]
                for di in (-1, 0, 1)
                for dj in (-1, 0, 1)
            ]
            x = np.concatenate(around + overall)
            assert np.all(np.abs(x) <= 1.01)
            for name in ("hidden_0", "hidden_1"):
                x = np.maximum(x @ layers[name]["kernel"] + layers[name]["bias"], 0)
            curves[n, i, j] = x @ layers["curves"]["kernel"] + layers["curves"]["bias"]
    losses, metrics = reference(batch["dark"], batch["truth"], curves)
    for task in problem.tasks:
        loss, metric = problem.losses(params, batch)[task], problem.metrics(params, batch)[task]
        np.testing.assert_allclose(loss, losses[task], rtol=1e-4, err_msg=task)
        np.testing.assert_allclose(metric, metrics[task], rtol=1e-4, err_msg=task)


def test_enhancing_keeps_the_range_and_the_order():
    """Any curve maps [0, 1] onto itself, and a brighter pixel stays the brighter."""
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1).repeat(3, axis=-1)
    for a in (-30.0, -1.0, 0.0, 2.0, 30.0):
        image = np.asarray(enhance(ramp, jnp.full((1, 1, 1, 3), a))).reshape(64, 3)
        assert image.min() == 0
        assert image.max() == 1
        assert np.all(np.diff(image, axis=0) >= -1e-6)
    np.testing.assert_allclose(enhance(ramp, jnp.zeros((1, 1, 1, 3))), ramp, rtol=1e-6)


def test_each_loss_is_zero_where_it_should_be():
    truth = load_photos()["chelsea"][None, :32, :48]
    zero = jnp.zeros((1, 4, 6, 3))
    for task, value in curve_losses(zero, {"dark": truth, "truth": truth}).items():
        np.testing.assert_allclose(value, 0, atol=1e-6, err_msg=task)
    # Any constant curves are smooth; curves that differ are not.
    batch = {"dark": truth / 4, "truth": truth}
    assert curve_losses(zero + 0.7, batch)["smoothness"] == 0
    assert curve_metrics(zero + 0.7, batch)["smoothness"] == 1
    assert curve_losses(some_curves(1, 4, 6), batch)["smoothness"] > 0.1
    # Half the value is 2.2 stops of light in every cell that is not near black.
    np.testing.assert_allclose(
        curve_metrics(zero, {"dark": truth / 2, "truth": truth})["exposure"], 2.2, atol=0.06
    )
    # A uniform loss of light changes the exposure, and hardly the angle between colours.
    assert curve_metrics(zero, batch)["colour"] < 1


@pytest.mark.slow
def test_black_pictures_have_finite_gradients():
    black = np.zeros((1, 16, 16, 3), np.float32)
    batch = {"dark": black, "truth": black}
    _, grads = jaxmtl.value_and_task_grads(curve_losses)(jnp.zeros((1, 2, 2, 3)), batch)
    assert np.all(np.isfinite(grads))


def test_tasks_are_named_in_leaf_order(problem):
    params = problem.init(jax.random.key(0))
    batch = first(problem.train, 8)
    assert tuple(sorted(problem.losses(params, batch))) == problem.tasks
    assert set(problem.metrics(params, batch)) == set(problem.tasks)
    assert set(problem.maximize) == set(problem.metric_names) == set(problem.tasks)
    assert set(params) == {"trunk", "heads"}
    assert problem.prior_values is None


@pytest.mark.slow
def test_a_hundred_steps_teach_it_something(problem):
    """Trained on reconstruction, test pictures come out closer to the truth than they went in."""
    params = problem.init(jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda p, b: problem.losses(p, b)["reconstruction"]))
    generator = np.random.default_rng(0)
    for _ in range(100):
        rows = generator.integers(len(problem.train["photo"]), size=problem.batch)
        batch = {name: array[rows] for name, array in problem.train.items()}
        params = jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient(params, batch))
    untouched = curve_metrics(jnp.zeros((256, 4, 4, 3)), problem.test)["reconstruction"]
    trained = problem.metrics(params, problem.test)["reconstruction"]
    assert trained > untouched + 5


@pytest.mark.parametrize("package", ["skimage", "sklearn.datasets"])
def test_a_missing_package_is_one_clear_sentence(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"not installed: pip install scikit-image scikit-learn$"):
        module.low_light()
