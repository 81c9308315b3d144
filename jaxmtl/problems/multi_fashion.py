"""Multi-Fashion: two overlapping pieces of clothing, each to be classified.

Two Fashion-MNIST images lie on one canvas, the right one shifted down and to the right; where they
overlap, the brighter pixel wins. The two tasks have the same kind, the same scale and the same
difficulty: balancing can gain little on this problem, and must not lose anything either.
"""

import gzip
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

from jaxmtl import theory
from jaxmtl._typing import Array, PyTree
from jaxmtl.problems._dense import apply_dense, init_dense
from jaxmtl.problems._problem import Batch, Problem
from jaxmtl.problems.digits import overlay

FOLDER = "/usr/share/datasets/fashion-mnist"  # of Debian's package
_SHIFT, _CLASSES = 8, 10
_TASKS = ("left", "right")
_PAIRS = {"train": 20000, "validation": 4000, "test": 4000}


def multi_fashion(folder: str | Path = FOLDER) -> Problem:
    """Build Multi-Fashion: two Fashion-MNIST images on one canvas, two tasks.

    The canvas of 36 x 36 pixels is averaged over blocks of 2 x 2, so that a dense network on 324
    pixels is enough. Pairs of the training and the validation split come from the data set's
    60000 training images, pairs of the test split from its 10000 test images; no image is in two
    splits, which are the same at every call. Both tasks have the 10-class cross-entropy as their
    loss and are evaluated by accuracy.

    Args:
      folder: the folder of the four ``*-ubyte.gz`` files of Fashion-MNIST.

    Returns:
      A ``Problem`` whose splits hold "image" (N, 324), float32 in [0, 1], and "left" and "right"
      (N,), int32 labels. N is 20000, 4000 and 4000. It has no ``standardisation``: there are no
      regression targets.

    Raises:
      FileNotFoundError: if the files are not in the folder.

    Examples:
      >>> from jaxmtl.problems.multi_fashion import multi_fashion
      >>> multi_fashion().tasks  # doctest: +SKIP
      ('left', 'right')

    References:
      Xiao, Rasul & Vollgraf, `Fashion-MNIST: a novel image dataset for benchmarking machine
      learning algorithms <https://arxiv.org/abs/1708.07747>`_, 2017; Lin, Zhen, Li, Zhang & Kwong,
      `Pareto multi-task learning <https://arxiv.org/abs/1912.12854>`_, 2019
    """
    images, labels = read_images("train", folder)
    order = np.random.default_rng(0).permutation(len(images))
    first = len(order) * 5 // 6  # the originals of the training split; the others validate
    splits = {
        "train": _pairs("train", images, labels, order[:first]),
        "validation": _pairs("validation", images, labels, order[first:]),
    }
    images, labels = read_images("t10k", folder)
    splits["test"] = _pairs("test", images, labels, np.arange(len(images)))
    train, pixels = splits["train"], splits["train"]["image"].shape[1]
    return Problem(
        name="Multi-Fashion",
        tasks=_TASKS,
        init=lambda key: init_dense(key, (pixels, 128, 64), dict.fromkeys(_TASKS, _CLASSES)),
        losses=_losses,
        metrics=_metrics,
        maximize=dict.fromkeys(_TASKS, True),
        metric_names=dict.fromkeys(_TASKS, "accuracy"),
        train=train,
        validation=splits["validation"],
        test=splits["test"],
        prior_values={
            task: theory.prior_cross_entropy(np.bincount(train[task])) for task in _TASKS
        },
        learning_rate=1e-2,
        steps=1200,
        batch=256,
        shared={"trunk": True, "heads": False},
    )


def _losses(params: PyTree, batch: Batch) -> dict[str, Array]:
    """Evaluate both cross-entropies, as means over the batch."""
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    outputs = apply_dense(params, batch["image"])
    return {task: jnp.mean(cross_entropy(outputs[task], batch[task])) for task in _TASKS}


def _metrics(params: PyTree, split: Batch) -> dict[str, Array]:
    """Evaluate both accuracies."""
    outputs = apply_dense(params, split["image"])
    return {task: jnp.mean(jnp.argmax(outputs[task], axis=-1) == split[task]) for task in _TASKS}


def _pairs(
    name: str, images: np.ndarray, labels: np.ndarray, originals: np.ndarray
) -> dict[str, np.ndarray]:
    """Draw the pairs of one split from its original images."""
    generator = np.random.default_rng(1 + list(_PAIRS).index(name))
    left, right = generator.choice(originals, (2, _PAIRS[name]))
    canvas = overlay(images[left], images[right], _SHIFT)
    half = canvas.shape[-1] // 2
    pooled = canvas.reshape(-1, half, 2, half, 2).mean(axis=(2, 4), dtype=np.float32)
    return {
        "image": pooled.reshape(-1, half**2) / 255,
        "left": labels[left].astype(np.int32),
        "right": labels[right].astype(np.int32),
    }


def read_images(part: str, folder: str | Path = FOLDER) -> tuple[np.ndarray, np.ndarray]:
    """Read images (N, 28, 28) and labels (N,) of one part from their IDX files."""
    try:
        with gzip.open(Path(folder) / f"{part}-images-idx3-ubyte.gz") as file:
            _, number, rows, columns = np.frombuffer(file.read(16), ">i4")
            images = np.frombuffer(file.read(), np.uint8).reshape(number, rows, columns)
        with gzip.open(Path(folder) / f"{part}-labels-idx1-ubyte.gz") as file:
            return images, np.frombuffer(file.read(), np.uint8, offset=8)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"The multi_fashion problem reads the files of Fashion-MNIST, but {error.filename} is"
            " not there: apt install dataset-fashion-mnist (Debian, Ubuntu), or call"
            " multi_fashion(folder=...) with the folder that holds them."
        ) from error
