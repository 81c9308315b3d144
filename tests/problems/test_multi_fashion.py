"""Multi-Fashion: the canvas from made-up files; the real ones where they are installed."""

import gzip

import jax
import numpy as np
import pytest

from jaxmtl.problems.multi_fashion import multi_fashion


def write(folder, part, images, labels):
    head = np.array([0x803, *images.shape], ">i4").tobytes()
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb") as file:
        file.write(head + images.tobytes())
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
        file.write(np.array([0x801, len(labels)], ">i4").tobytes() + labels.tobytes())


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """Images of one grey level each, which tells them apart; the label is its last digit."""
    folder = tmp_path_factory.mktemp("fashion")
    for part, levels in (("train", np.arange(1, 121)), ("t10k", np.arange(121, 151))):
        levels = levels.astype(np.uint8)
        write(folder, part, np.tile(levels[:, None, None], (1, 28, 28)), levels % 10)
    return multi_fashion(folder)


def test_without_the_files_there_is_a_clear_message(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"train-images-idx3-ubyte.gz is not there: apt install dataset-fashion-mnist",
    ):
        multi_fashion(tmp_path)


def test_canvas_and_labels(made_up):
    for split in (made_up.train, made_up.validation, made_up.test):
        canvas = np.round(255 * split["image"].reshape(-1, 18, 18))
        left, right = canvas[:, 0, 0], canvas[:, -1, -1]
        np.testing.assert_array_equal(left % 10, split["left"])
        np.testing.assert_array_equal(right % 10, split["right"])
        # Four pixels of the coarse canvas are the shift; where both lie, the brighter one wins.
        expected = np.zeros_like(canvas)
        expected[:, :14, :14] = left[:, None, None]
        expected[:, 4:, 4:] = np.maximum(expected[:, 4:, 4:], right[:, None, None])
        np.testing.assert_array_equal(canvas, expected)
    assert [len(s["left"]) for s in (made_up.train, made_up.validation, made_up.test)] == [
        20000,
        4000,
        4000,
    ]


def test_no_original_image_is_in_two_splits(made_up):
    splits = made_up.train, made_up.validation, made_up.test
    levels = [set(np.round(255 * split["image"][:, [0, -1]]).ravel().tolist()) for split in splits]
    assert [len(found) for found in levels] == [100, 20, 30]
    assert len(set.union(*levels)) == 150


def test_constants_against_the_data(made_up):
    for task in made_up.tasks:
        p = np.bincount(made_up.train[task]) / 20000
        np.testing.assert_allclose(made_up.prior_values[task], -np.sum(p * np.log(p)))


def test_the_real_images():
    try:
        problem = multi_fashion()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert problem.train["image"].shape == (20000, 324)
    assert 0.1 < problem.train["image"].mean() < 0.5
    for task in problem.tasks:  # ten classes, equally frequent
        np.testing.assert_allclose(np.bincount(problem.test[task]) / 4000, 0.1, atol=0.02)
    metrics = problem.metrics(problem.init(jax.random.key(0)), problem.test)
    assert all(0 < metric < 0.35 for metric in metrics.values())
