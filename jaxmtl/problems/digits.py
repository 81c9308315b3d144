"""MultiDigits-4: two overlapping handwritten digits, four tasks in their natural units.

Two 8x8 digits of scikit-learn's embedded set lie on an 11x11 canvas, the right one shifted by three
pixels down and to the right; where they overlap, the brighter pixel wins. A small network
classifies the left digit and the right digit, predicts their sum, and reconstructs the canvas
through a bottleneck of 32 units. Nothing is rescaled, on purpose: at zero output the squared error
of the sum is forty times a cross-entropy and that of the canvas twelve times, as in many real
problems.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import optax

from jaxmtl import theory
from jaxmtl._checks import shown
from jaxmtl._typing import Array, PyTree
from jaxmtl.problems._dense import apply_dense, init_dense
from jaxmtl.problems._problem import Batch, Problem

_DIGIT, _SHIFT = 8, 3
_CANVAS = _DIGIT + _SHIFT
_PIXELS = _CANVAS**2
_CLASSES = 10
# Split name: (original images, pairs drawn from them). Originals are split before they are paired,
# so that no digit seen in training appears on a validation or test canvas.
_SPLITS = {"train": (1000, 8000), "validation": (300, 2000), "test": (497, 2000)}
_TRUNK = (_PIXELS, 64, 32)
_HEADS = {"left": _CLASSES, "reconstruction": _PIXELS, "right": _CLASSES, "sum": 1}


def digits(tasks: Sequence[str] = tuple(_HEADS)) -> Problem:
    """Build MultiDigits-4, the default problem of the demo.

    The tasks, in order: "left" (10-class cross-entropy, evaluated by accuracy), "reconstruction"
    (squared error summed over the canvas, evaluated by the mean squared error per pixel), "right"
    (like "left") and "sum" (squared error, evaluated by the mean absolute error). The data and
    their split are the same at every call: only the key given to ``init`` and the batches are
    random.

    Args:
      tasks: which of the tasks to keep.

    Returns:
      A ``Problem`` whose splits hold "image" (N, 121), float32 in [0, 1]; "left" and "right" (N,),
      int32 labels; and "sum" (N,), float32. N is 8000, 2000 and 2000. Its parameters are
      ``{"trunk": {layer: ...}, "heads": {task: ...}}``, each layer a "kernel" (in, out) and a
      "bias" (out,).

    Raises:
      ValueError: if a task is unknown, or none is given.
      ImportError: if scikit-learn, which carries the images, is not installed.

    Examples:
      >>> import jax
      >>> problem = digits()
      >>> problem.tasks
      ('left', 'reconstruction', 'right', 'sum')
      >>> params = problem.init(jax.random.key(0))
      >>> batch = {name: array[:256] for name, array in problem.train.items()}
      >>> losses = problem.losses(params, batch)
      >>> bool(losses["sum"] > 10 * losses["left"])
      True
    """
    known = isinstance(tasks, tuple | list) and all(
        isinstance(task, str) and task in _HEADS for task in tasks
    )
    if not known or not tasks:
        raise ValueError(
            f"tasks must be a tuple of some of {', '.join(_HEADS)}, but it is {shown(tasks)}."
        )
    heads = {task: columns for task, columns in _HEADS.items() if task in tasks}
    splits = _make_splits()
    prior = _constant_output_losses(splits["train"])
    names = dict.fromkeys(("left", "right"), "accuracy")
    names |= {"reconstruction": "pixel MSE", "sum": "MAE"}
    scales = {"reconstruction": 1 / prior["reconstruction"], "sum": 1 / prior["sum"]}
    return Problem(
        name="MultiDigits-4" if len(heads) == 4 else f"MultiDigits ({', '.join(heads)})",
        tasks=tuple(heads),
        init=lambda key: init_dense(key, _TRUNK, heads),
        losses=_losses,
        metrics=_metrics,
        maximize={task: task in ("left", "right") for task in heads},
        metric_names={task: names[task] for task in heads},
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        prior_values={task: prior[task] for task in heads},
        standardisation={task: scales.get(task, 1.0) for task in heads},
        learning_rate=1e-2,
        batch=256,
        steps=800,
        shared={"trunk": True, "heads": False},
    )


def _losses(params: PyTree, batch: Batch) -> dict[str, Array]:
    """Evaluate the loss of every head, each in its own units, as means over the batch."""
    return {
        task: jnp.mean(_errors(task, output, batch))
        for task, output in apply_dense(params, batch["image"]).items()
    }


def _errors(task: str, output: Array, batch: Batch) -> Array:
    """Compute one task's loss for each example, (B,)."""
    if task == "reconstruction":
        return jnp.sum((output - batch["image"]) ** 2, axis=-1)
    if task == "sum":
        return (output[:, 0] - batch["sum"]) ** 2
    return optax.softmax_cross_entropy_with_integer_labels(output, batch[task])


def _metrics(params: PyTree, split: Batch) -> dict[str, Array]:
    """Evaluate the metrics: accuracies, and errors in natural units."""
    outputs = apply_dense(params, split["image"])
    return {task: _metric(task, output, split) for task, output in outputs.items()}


def _metric(task: str, output: Array, split: Batch) -> Array:
    if task == "reconstruction":
        return jnp.mean((output - split["image"]) ** 2)
    if task == "sum":
        return jnp.mean(jnp.abs(output[:, 0] - split["sum"]))
    return jnp.mean(jnp.argmax(output, axis=-1) == split[task])


def _make_splits() -> dict[str, dict[str, np.ndarray]]:
    """Split the original images, then draw pairs within each split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits problem reads images that scikit-learn carries, but scikit-learn is not"
            " installed: pip install scikit-learn."
        ) from error
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, _DIGIT, _DIGIT)
    generator = np.random.default_rng(0)
    shuffled = generator.permutation(len(images))
    splits, start = {}, 0
    for name, (originals, pairs) in _SPLITS.items():
        left, right = generator.choice(shuffled[start : start + originals], (2, pairs))
        start += originals
        splits[name] = {
            "image": overlay(images[left], images[right], _SHIFT).reshape(pairs, _PIXELS),
            "left": labels[left].astype(np.int32),
            "right": labels[right].astype(np.int32),
            "sum": (labels[left] + labels[right]).astype(np.float32),
        }
    return splits


def overlay(left: np.ndarray, right: np.ndarray, shift: int) -> np.ndarray:
    """Lay images (N, s, s) on one canvas, the right one ``shift`` pixels down and to the right.

    Args:
      left: (N, s, s) images.
      right: (N, s, s) images.
      shift: in pixels.

    Returns:
      (N, s + shift, s + shift), the brighter pixel where they overlap.
    """
    canvas = np.pad(left, ((0, 0), (0, shift), (0, shift)))
    canvas[:, shift:, shift:] = np.maximum(canvas[:, shift:, shift:], right)
    return canvas


def _constant_output_losses(train: dict[str, np.ndarray]) -> dict[str, float]:
    """Compute the losses of the best constant output."""
    counts = {task: np.bincount(train[task]) for task in ("left", "right")}
    prior = {task: theory.prior_cross_entropy(count) for task, count in counts.items()}
    for task, name in {"reconstruction": "image", "sum": "sum"}.items():
        prior[task] = theory.prior_squared_error(train[name])
    return prior
