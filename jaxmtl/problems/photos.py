"""Photographs that come with scikit-image and scikit-learn, and the same with too little light."""

import numpy as np

SPLITS = {
    "train": ("coffee", "flower", "motorcycle", "rocket"),
    "validation": ("astronaut",),
    "test": ("chelsea", "china"),
}
_SHORT_SIDE = 100
_GAMMA = 2.2
_READ_NOISE, _SHOT_NOISE = 1e-3, 2e-4


def load_photos() -> dict[str, np.ndarray]:
    """Load the photographs, reduced to a short side of at least 100 pixels.

    All of them are in the wheels of scikit-image and scikit-learn; nothing is downloaded.

    Returns:
      Name -> (H, W, 3), float32 in [0, 1], for every name in ``SPLITS``.

    Raises:
      ImportError: if one of the two packages is not installed.

    Examples:
      >>> load_photos()["chelsea"].shape
      (100, 150, 3)
    """
    try:
        from skimage import data
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ImportError(
            "The low-light problem reads photographs that scikit-image and scikit-learn carry, but"
            f" {error.name} is not installed: pip install scikit-image scikit-learn"
        ) from error
    full = {name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    full["motorcycle"] = data.stereo_motorcycle()[0]
    full |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return {name: _reduce(image) for name, image in full.items()}


def darken(photo: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Simulate a photograph taken with too little light.

    Light is value^2.2. The whole picture loses 1.5 to 3.5 stops (halvings); up to 1 more across the
    picture, in a random direction, as away from a lamp; and up to 1.5 more in each channel, which
    leaves a colour cast. Then the sensor's noise is added, whose variance grows with the light, and
    the result is rounded to 8 bits.

    Args:
      photo: (H, W, 3) values in [0, 1].
      generator: the source of all random numbers.

    Returns:
      (H, W, 3), float32 in [0, 1].

    Examples:
      >>> dark = darken(np.full((8, 8, 3), 0.5), np.random.default_rng(0))
      >>> bool(dark.mean() < 0.3)
      True
    """
    height, width, _ = photo.shape
    angle = generator.uniform(0, 2 * np.pi)
    distance = np.add.outer(
        np.sin(angle) * np.linspace(0, 1, height), np.cos(angle) * np.linspace(0, 1, width)
    )[:, :, None]
    distance = (distance - distance.min()) / np.ptp(distance)
    stops = generator.uniform(1.5, 3.5) + generator.uniform(0, 1) * distance
    stops = stops + generator.uniform(0, 1.5, size=3)
    light = photo.astype(np.float64) ** _GAMMA * 2**-stops
    noise = np.sqrt(_READ_NOISE**2 + _SHOT_NOISE * light) * generator.standard_normal(photo.shape)
    values = np.clip(light + noise, 0, 1) ** (1 / _GAMMA)
    return (np.round(255 * values) / 255).astype(np.float32)


def make_splits(crops: dict[str, int], side: int) -> dict[str, dict[str, np.ndarray]]:
    """Cut the photographs into square crops and darken each in its own way.

    No photograph is in two splits, and the crops are the same at every call.

    Args:
      crops: split -> number of crops from each of its photographs.
      side: side of a crop, in pixels.

    Returns:
      Split -> "dark" and "truth" (N, side, side, 3), float32 in [0, 1], and "photo" (N,), int32,
      the index of each crop's photograph among the sorted names.

    Raises:
      ImportError: as ``load_photos``.

    Examples:
      >>> splits = make_splits({"train": 1, "validation": 1, "test": 1}, 16)
      >>> splits["train"]["dark"].shape
      (4, 16, 16, 3)
    """
    photos = load_photos()
    names = sorted(photos)
    generator = np.random.default_rng(0)
    splits = {}
    for split, members in SPLITS.items():
        truth, dark, photo = [], [], []
        for name in members:
            for _ in range(crops[split]):
                top, left = (generator.integers(n - side + 1) for n in photos[name].shape[:2])
                crop = photos[name][top : top + side, left : left + side]
                truth.append(crop[:, ::-1] if generator.random() < 0.5 else crop)
                dark.append(darken(truth[-1], generator))
                photo.append(names.index(name))
        splits[split] = {
            "dark": np.stack(dark),
            "truth": np.stack(truth),
            "photo": np.array(photo, np.int32),
        }
    return splits


def _reduce(image: np.ndarray) -> np.ndarray:
    """Average square blocks of pixels, the largest that leave the short side long enough."""
    block = min(image.shape[:2]) // _SHORT_SIDE
    height, width = (n // block for n in image.shape[:2])
    blocks = image[: height * block, : width * block].reshape(height, block, width, block, 3)
    return (blocks.mean(axis=(1, 3)) / 255).astype(np.float32)
