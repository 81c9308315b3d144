"""MultiDigits-4: two overlapping handwritten digits, four tasks in the units they come in.

Two 8x8 digits of scikit-learn's embedded set lie on an 11x11 canvas, the right one shifted by three
pixels down and to the right; where they overlap, the brighter pixel wins. A small network names the
left digit, names the right digit, tells their sum, and paints the canvas again through a bottleneck
of 32 units. Nothing is rescaled, on purpose: at a zero output the squared error of the sum is forty
times a cross-entropy and that of the canvas twelve times, as happens in the problems people bring.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmtl import theory
from jaxmtl._typing import Array, PyTree
from jaxmtl.problems._problem import Batch, Problem

_DIGIT, _SHIFT = 8, 3
_CANVAS = _DIGIT + _SHIFT
_PIXELS = _CANVAS**2
_CLASSES = 10
# Split name: (original images, pairs drawn from them). Originals are split before they are paired,
# so that no digit seen in training appears on a validation or test canvas.
_SPLITS = {"train": (1000, 8000), "validation": (300, 2000), "test": (497, 2000)}
_LAYERS = (
    ("trunk", "hidden_0", _PIXELS, 64),
    ("trunk", "hidden_1", 64, 32),
    ("heads", "left", 32, _CLASSES),
    ("heads", "reconstruction", 32, _PIXELS),
    ("heads", "right", 32, _CLASSES),
    ("heads", "sum", 32, 1),
)


def digits() -> Problem:
    """Build MultiDigits-4, the default problem of the demo.

    The tasks, in order: "left" (10-class cross-entropy, judged by accuracy), "reconstruction"
    (squared error summed over the canvas, judged by the mean squared error per pixel), "right"
    (like "left") and "sum" (squared error, judged by the mean absolute error). The data and their
    split are the same at every call: the randomness of a run is in the key given to ``init`` and in
    the batches.

    Returns:
      A ``Problem`` whose splits hold "image" (N, 121), float32 in [0, 1]; "left" and "right" (N,),
      int32 labels; and "sum" (N,), float32. N is 8000, 2000 and 2000. Its parameters are
      ``{"trunk": {layer: ...}, "heads": {task: ...}}``, each layer a "kernel" (in, out) and a
      "bias" (out,).

    Raises:
      ImportError: where scikit-learn, which carries the images, is not installed.

    Examples:
      >>> problem = digits()
      >>> problem.tasks
      ('left', 'reconstruction', 'right', 'sum')
      >>> params = problem.init(jax.random.key(0))
      >>> batch = {name: array[:256] for name, array in problem.train.items()}
      >>> losses = problem.losses(params, batch)
      >>> bool(losses["sum"] > 10 * losses["left"])
      True
    """
    splits = _make_splits()
    initial, prior = _constant_output_losses(splits["train"])
    return Problem(
        name="MultiDigits-4",
        tasks=("left", "reconstruction", "right", "sum"),
        init=_init,
        losses=_losses,
        metrics=_metrics,
        maximize={"left": True, "reconstruction": False, "right": True, "sum": False},
        metric_names={
            "left": "accuracy",
            "reconstruction": "pixel MSE",
            "right": "accuracy",
            "sum": "MAE",
        },
        initial_values=initial,
        prior_values=prior,
        standardisation={
            "left": 1.0,
            "reconstruction": 1 / prior["reconstruction"],
            "right": 1.0,
            "sum": 1 / prior["sum"],
        },
        **splits,
    )


def _init(key: Array) -> PyTree:
    """Draw LeCun normal kernels and zero biases."""
    # One draw, cut into kernels: under jit, a draw per kernel takes seconds longer to compile.
    normals = jax.random.normal(key, (sum(rows * columns for *_, rows, columns in _LAYERS),))
    params: dict[str, dict[str, PyTree]] = {"trunk": {}, "heads": {}}
    start = 0
    for part, name, rows, columns in _LAYERS:
        stop = start + rows * columns
        kernel = normals[start:stop].reshape(rows, columns) * rows**-0.5
        params[part][name] = {"bias": jnp.zeros(columns), "kernel": kernel}
        start = stop
    return params


def _apply(params: PyTree, image: Array | np.ndarray) -> dict[str, Array]:
    """Compute every head's output, (B, columns), from images (B, 121)."""
    x = jnp.asarray(image)
    for name in ("hidden_0", "hidden_1"):
        layer = params["trunk"][name]
        x = jax.nn.relu(_affine(layer, x))
    return {task: _affine(head, x) for task, head in params["heads"].items()}


def _affine(layer: PyTree, x: Array) -> Array:
    return x @ layer["kernel"] + layer["bias"][None, :]


def _losses(params: PyTree, batch: Batch) -> dict[str, Array]:
    """Evaluate the four losses, each in its own units, as means over the batch."""
    outputs = _apply(params, batch["image"])
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    pixel_errors = outputs["reconstruction"] - batch["image"]
    return {
        "left": jnp.mean(cross_entropy(outputs["left"], batch["left"])),
        "reconstruction": jnp.mean(jnp.sum(pixel_errors**2, axis=-1)),
        "right": jnp.mean(cross_entropy(outputs["right"], batch["right"])),
        "sum": jnp.mean((outputs["sum"][:, 0] - batch["sum"]) ** 2),
    }


def _metrics(params: PyTree, split: Batch) -> dict[str, Array]:
    """Evaluate what a reader cares about: accuracies, and errors in natural units."""
    outputs = _apply(params, split["image"])
    return {
        "left": jnp.mean(jnp.argmax(outputs["left"], axis=-1) == split["left"]),
        "reconstruction": jnp.mean((outputs["reconstruction"] - split["image"]) ** 2),
        "right": jnp.mean(jnp.argmax(outputs["right"], axis=-1) == split["right"]),
        "sum": jnp.mean(jnp.abs(outputs["sum"][:, 0] - split["sum"])),
    }


def _make_splits() -> dict[str, dict[str, np.ndarray]]:
    """Split the original images, then draw pairs within each split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits problem reads images that scikit-learn carries, but scikit-learn is not"
            ' installed."'
        ) from error
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, _DIGIT, _DIGIT)
    generator = np.random.default_rng(0)
    shuffled = generator.permutation(len(images))
    splits, start = {}, 0
    for name, (originals, pairs) in _SPLITS.items():
        left, right = generator.choice(shuffled[start : start + originals], (2, pairs))
        start += originals
        canvas = np.zeros((pairs, _CANVAS, _CANVAS), np.float32)
        canvas[:, :_DIGIT, :_DIGIT] = images[left]
        canvas[:, _SHIFT:, _SHIFT:] = np.maximum(canvas[:, _SHIFT:, _SHIFT:], images[right])
        splits[name] = {
            "image": canvas.reshape(pairs, _PIXELS),
            "left": labels[left].astype(np.int32),
            "right": labels[right].astype(np.int32),
            "sum": (labels[left] + labels[right]).astype(np.float32),
        }
    return splits


def _constant_output_losses(
    train: dict[str, np.ndarray],
) -> tuple[dict[str, float], dict[str, float]]:
    """Compute the losses of a zero output, and those of the best constant output."""
    labels, targets = ("left", "right"), {"reconstruction": "image", "sum": "sum"}
    initial = {task: theory.zero_output_cross_entropy(_CLASSES) for task in labels}
    prior = {task: theory.prior_cross_entropy(np.bincount(train[task])) for task in labels}
    for task, name in targets.items():
        initial[task] = theory.zero_output_squared_error(train[name])
        prior[task] = theory.prior_squared_error(train[name])
    return initial, prior
