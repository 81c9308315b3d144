"""Low-light enhancement: dark photographs, one small network, five losses in their own units.

The network reads the mean colours of cells of 8x8 pixels and returns, like Zero-DCE, a curve for
each cell and colour channel that brightens the pixels. Four losses compare the result with the
photograph in full light: its pixels, its exposure, its colours, its structure. The fifth,
smoothness, is a prior on the curves, which constant curves satisfy for any picture: it shows how
methods treat a loss that is easily zero.

At the start squared stops are a hundred times as large as squared errors of pixels, and a thousand
times as large as the differences of colours and curves. Nothing is rescaled, on purpose.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._typing import Array, PyTree
from jaxmtl.problems._problem import Batch, Problem
from jaxmtl.problems.photos import make_splits

CELL = 8
_SIDE = 4 * CELL
_CROPS = {"train": 256, "validation": 256, "test": 128}
_BLACK = 1 / 255
_CONTRAST = 0.03**2
_LAYERS = (("hidden_0", 36, 32), ("hidden_1", 32, 32), ("curves", 32, 3))


def low_light() -> Problem:
    """Build the low-light problem.

    The tasks, in order: "colour", "exposure", "reconstruction", "smoothness" and "structure"; see
    ``curve_losses`` and ``curve_metrics``. All parameters are shared. There are no losses from
    theory: a model that outputs zeros leaves the picture dark, with a smoothness loss of zero, and
    the best constant curve has a smoothness loss of zero too; the reciprocal of zero is no weight.

    Returns:
      A ``Problem`` whose splits hold "dark" and "truth" (N, 32, 32, 3), float32 in [0, 1], and
      "photo" (N,), the number of each crop's photograph; N is 1024, 256 and 256. Its parameters are
      ``{"trunk": {layer: ...}, "heads": {}}``, each layer a "kernel" (in, out) and a "bias" (out,).

    Raises:
      ImportError: if scikit-image or scikit-learn, which carry the photographs, is missing.

    Examples:
      >>> problem = low_light()
      >>> params = problem.init(jax.random.key(0))
      >>> batch = {name: array[:16] for name, array in problem.train.items()}
      >>> losses = problem.losses(params, batch)
      >>> bool(losses["exposure"] > 50 * losses["reconstruction"])
      True

    References:
      Guo et al., `Zero-Reference Deep Curve Estimation for Low-Light Image Enhancement
      <https://arxiv.org/abs/2001.06826>`_, 2020
    """
    splits = make_splits(_CROPS, _SIDE)
    return Problem(
        name="Low light",
        tasks=("colour", "exposure", "reconstruction", "smoothness", "structure"),
        init=_init,
        losses=lambda params, batch: curve_losses(_apply(params, batch["dark"]), batch),
        metrics=lambda params, split: curve_metrics(_apply(params, split["dark"]), split),
        maximize={
            "colour": False,
            "exposure": False,
            "reconstruction": True,
            "smoothness": True,
            "structure": True,
        },
        metric_names={
            "colour": "degrees",
            "exposure": "stops",
            "reconstruction": "PSNR (dB)",
            "smoothness": "smooth pairs",
            "structure": "SSIM without luminance",
        },
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        learning_rate=1e-2,
        batch=16,
        steps=400,
        shared={"trunk": True, "heads": False},
    )


def cell_features(dark: Array | np.ndarray) -> Array:
    """Describe each cell of dark pictures by the brightness around it and in the whole picture.

    Args:
      dark: (B, H, W, 3) values in [0, 1]; H and W are multiples of 8.

    Returns:
      (B, H/8, W/8, 36): log2 of the mean of each channel in the 3x3 cells around (beyond the edge,
      the cells at the edge), and its mean, minimum and maximum over all cells; scaled to [-1, 1].

    Examples:
      >>> cell_features(jnp.full((1, 16, 24, 3), 0.1)).shape
      (1, 2, 3, 36)
    """
    logs = 1 + jnp.log2(jnp.mean(_cells(jnp.asarray(dark)), axis=(2, 4)) + _BLACK) / 4
    rows, columns = logs.shape[1:3]
    padded = jnp.pad(logs, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    around = [padded[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    overall = [reduce(logs, axis=(1, 2), keepdims=True) for reduce in (jnp.mean, jnp.min, jnp.max)]
    return jnp.concatenate([*around, *(jnp.broadcast_to(o, logs.shape) for o in overall)], axis=-1)


def enhance(dark: Array | np.ndarray, curves: Array) -> Array:
    """Brighten pictures by curves x -> x / (x + (1 - x) exp(-a)): a is added to the log odds.

    A dark pixel becomes exp(a) times as bright, black stays black and white stays white.

    Args:
      dark: (B, H, W, 3) values in [0, 1].
      curves: (B, H/8, W/8, 3), a at the centre of each cell; bilinear in between, the nearest at
        the border. Zero does not change a picture.

    Returns:
      (B, H, W, 3) values in [0, 1].

    Examples:
      >>> dark, curves = jnp.full((1, 8, 8, 3), 0.1), jnp.full((1, 1, 1, 3), jnp.log(9.0))
      >>> print(enhance(dark, curves)[0, 0, 0].round(4))
      [0.5 0.5 0.5]
    """
    rows, columns = (_interpolation(n) for n in curves.shape[1:3])
    a = jnp.einsum("hi,wj,bijc->bhwc", rows, columns, curves)
    x = jnp.asarray(dark)
    return x / (x + (1 - x) * jnp.exp(-a))


def curve_losses(curves: Array, batch: Batch) -> dict[str, Array]:
    """Evaluate the five losses of curves, means over the batch.

    With the mean colour m of a cell (plus 1/255, so that black has a logarithm and a colour), and ^
    marking the enhanced picture:
      colour          1 - cos(m^, m), about half the squared angle in radians
      exposure        (2.2 log2(|m^|_1 / |m|_1))^2, in squared stops of light
      reconstruction  squared error of the pixels
      smoothness      squared difference of the curves of neighbouring cells
      structure       1 - (2 cov + c) / (var^ + var + c) of the brightness within a cell, with
                      c = 0.03^2: SSIM without its luminance term

    Args:
      curves: (B, H/8, W/8, 3), for example of a network of your own.
      batch: "dark" and "truth", (B, H, W, 3).

    Returns:
      Task -> scalar.

    Examples:
      >>> picture = jnp.full((1, 16, 16, 3), 0.5)
      >>> losses = curve_losses(jnp.zeros((1, 2, 2, 3)), {"dark": picture / 2, "truth": picture})
      >>> {task: round(float(loss), 4) for task, loss in losses.items()}["reconstruction"]
      0.0625

    References:
      Wang et al., `Image Quality Assessment: From Error Visibility to Structural Similarity
      <https://doi.org/10.1109/TIP.2003.819861>`_, 2004
    """
    found = _compare(curves, batch)
    return {
        "colour": jnp.mean(1 - found.cosines),
        "exposure": jnp.mean(found.stops**2),
        "reconstruction": jnp.mean(found.squared_errors),
        "smoothness": jnp.mean(found.steps**2),
        "structure": jnp.mean(1 - found.structures),
    }


def curve_metrics(curves: Array, split: Batch) -> dict[str, Array]:
    """Evaluate the metrics of curves.

    Args:
      curves: (N, H/8, W/8, 3).
      split: "dark" and "truth", (N, H, W, 3).

    Returns:
      "colour", the mean angle between the colours of cells, in degrees; "exposure", the mean error
      in stops; "reconstruction", the mean peak signal-to-noise ratio in dB; "smoothness", the share
      of neighbouring curves that differ by less than 0.1, ten per cent in the brightness of a dark
      pixel; "structure", one minus its loss.

    Examples:
      >>> picture = jnp.full((1, 16, 16, 3), 0.5)
      >>> metrics = curve_metrics(jnp.zeros((1, 2, 2, 3)), {"dark": picture / 2, "truth": picture})
      >>> round(float(metrics["reconstruction"]), 2)
      12.04
    """
    found = _compare(curves, split)
    return {
        "colour": jnp.mean(jnp.degrees(jnp.arccos(jnp.clip(found.cosines, -1, 1)))),
        "exposure": jnp.mean(jnp.abs(found.stops)),
        "reconstruction": jnp.mean(-10 * jnp.log10(found.squared_errors)),
        "smoothness": jnp.mean(jnp.abs(found.steps) < 0.1),
        "structure": jnp.mean(found.structures),
    }


class _Comparison(NamedTuple):
    """An enhanced picture beside the truth: the quantities that losses and metrics average."""

    cosines: Array
    stops: Array
    squared_errors: Array
    steps: Array
    structures: Array


def _compare(curves: Array, batch: Batch) -> _Comparison:
    """Compare cell by cell, and pixels picture by picture."""
    image, truth = _cells(enhance(batch["dark"], curves)), _cells(jnp.asarray(batch["truth"]))
    m, m_truth = (jnp.mean(x, axis=(2, 4)) + _BLACK for x in (image, truth))
    lengths = jnp.sqrt(jnp.sum(m**2, axis=-1) * jnp.sum(m_truth**2, axis=-1))
    grey, grey_truth = (jnp.mean(x, axis=-1) for x in (image, truth))
    grey, grey_truth = (x - jnp.mean(x, axis=(2, 4), keepdims=True) for x in (grey, grey_truth))
    covariance = jnp.mean(grey * grey_truth, axis=(2, 4))
    variances = jnp.mean(grey**2 + grey_truth**2, axis=(2, 4))
    return _Comparison(
        cosines=jnp.sum(m * m_truth, axis=-1) / lengths,
        stops=2.2 * jnp.log2(jnp.sum(m, axis=-1) / jnp.sum(m_truth, axis=-1)),
        squared_errors=jnp.mean((image - truth) ** 2, axis=(1, 2, 3, 4, 5)),
        steps=jnp.concatenate([jnp.diff(curves, axis=i).ravel() for i in (1, 2)]),
        structures=(2 * covariance + _CONTRAST) / (variances + _CONTRAST),
    )


def _cells(image: Array) -> Array:
    """Cut pictures (B, H, W, 3) into (B, H/8, 8, W/8, 8, 3)."""
    batch, height, width, _ = image.shape
    return image.reshape(batch, height // CELL, CELL, width // CELL, CELL, 3)


def _interpolation(cells: int) -> np.ndarray:
    """The (8 cells, cells) matrix of linear interpolation from centres of cells to pixels."""
    pixels = (np.arange(cells * CELL) + 0.5) / CELL - 0.5
    distances = np.abs(np.clip(pixels, 0, cells - 1)[:, None] - np.arange(cells)[None, :])
    return np.maximum(1 - distances, 0).astype(np.float32)


def _init(key: Array) -> PyTree:
    """Draw LeCun normal kernels and zero biases."""
    trunk = {}
    for name, rows, columns in _LAYERS:
        key, own = jax.random.split(key)
        kernel = jax.random.normal(own, (rows, columns)) * rows**-0.5
        trunk[name] = {"bias": jnp.zeros(columns), "kernel": kernel}
    return {"trunk": trunk, "heads": {}}


def _apply(params: PyTree, dark: Array | np.ndarray) -> Array:
    """Compute the curves of dark pictures."""
    x = cell_features(dark)
    for name, *_ in _LAYERS:
        layer = params["trunk"][name]
        x = x @ layer["kernel"] + layer["bias"][None, None, None, :]
        x = x if name == "curves" else jax.nn.relu(x)
    return x
