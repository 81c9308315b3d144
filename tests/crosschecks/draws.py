"""Random stacks of gradients for the cross-checks, the same at every run."""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from tests.crosschecks import exact

SIZE = 300
TASKS = (2, 3, 4, 8, 16)
KINDS = ("gaussian", "conflicting", "narrow", "deficient", "opposed")
SPREADS = (0, 3)
EXPONENTS = (-12, 0, 12)
SEEDS = 4


class Draw(NamedTuple):
    """Gradients as float32 holds them, in float64, and what they are like."""

    j: np.ndarray
    kind: str
    spread: int
    exponent: int
    seed: int
    condition: float  # of the cosines
    room: float  # length of the shortest convex combination of the directions

    def __str__(self):
        label = f"T={len(self.j)} {self.kind} spread={self.spread} c=1e{self.exponent}"
        return f"{label} seed={self.seed} condition={self.condition:.0e} room={self.room:.0e}"


def stack(rng, num, kind, spread):
    """Rows of lengths from 10^-spread to 1."""
    j = rng.normal(size=(num, SIZE))
    if kind == "conflicting":  # little of the mean is left: condition up to 10^3
        j -= (1 - 10 ** rng.uniform(-1.5, -0.3)) * j.mean(axis=0)
    if kind == "opposed":  # condition up to 10^4
        j -= (1 - 10 ** rng.uniform(-2, -1.5)) * j.mean(axis=0)
    if kind == "narrow":  # few more dimensions than tasks
        j = rng.normal(size=(num, num + 2)) @ rng.normal(size=(num + 2, SIZE))
    if kind == "deficient":  # fewer dimensions than tasks, and one that all of them share
        rank = num // 2
        j = rng.normal(size=(num, rank)) @ rng.normal(size=(rank, SIZE))
        j += 2 * np.sqrt(rank) * rng.normal(size=SIZE)
    return exact.units(j) * 10.0 ** rng.uniform(-spread, 0, size=(num, 1))


DEPENDENT = ("rank", "duplicates", "all cancel", "some cancel", "opposite pairs")


def dependent(seed, num, kind):
    """Rows of any rank below their number, or of which some or all cancel: in float64."""
    rng = np.random.default_rng([seed, num, DEPENDENT.index(kind)])
    j, half = rng.normal(size=(num, num + 2)), (num + 1) // 2
    if kind == "rank":
        rank = 1 + seed % (num - 1)
        j = rng.normal(size=(num, rank)) @ rng.normal(size=(rank, num + 2))
    if kind == "duplicates":
        j[half:] = j[: num - half]
    if kind == "all cancel":
        j[-1] = -rng.uniform(0.2, 1, size=num - 1) @ j[:-1]
    if kind == "some cancel":
        j[half] = -rng.uniform(0.2, 1, size=half) @ j[:half]
    if kind == "opposite pairs":
        j[half:] = -j[: num - half] * rng.uniform(0.3, 3, size=(num - half, 1))
    return exact.units(rng.permutation(j)) * 10.0 ** rng.uniform(-1, 0, size=(num, 1))


@functools.cache
def draws(num):
    """All draws of T tasks."""
    found = []
    for index, (kind, spread, seed) in enumerate(itertools.product(KINDS, SPREADS, range(SEEDS))):
        j = stack(np.random.default_rng([num, index]), num, kind, spread)
        for exponent in EXPONENTS:
            held = (j * 10.0**exponent).astype(np.float32).astype(np.float64)
            like = exact.condition(held), exact.room(held)
            found.append(Draw(held, kind, spread, exponent, seed, *like))
    return found
