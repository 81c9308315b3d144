"""Weights of the methods in float64, each by another way than the package's.

Every function takes stacked vectors (T, P) and returns (T,) weights. Lengths are taken out before
solving and put back after, so that no tolerance of SciPy's meets them.
"""

import numpy as np
import scipy.optimize


def lengths(j):
    return np.linalg.norm(j, axis=1)


def units(j):
    return j / lengths(j)[:, None]


def coordinates(j):
    """The same vectors in a basis of their span: T numbers each."""
    return np.linalg.qr(j.T, mode="r").T


def vectors_of(gramian):
    """Some vectors with these inner products."""
    size = np.sqrt(np.diag(gramian))
    return size[:, None] * np.linalg.cholesky(gramian / size[:, None] / size)


def condition(j):
    """Condition number of the cosines."""
    return np.linalg.cond(units(j)) ** 2


def room(j):
    """Length of the shortest convex combination of the directions; 0 where they can cancel."""
    unit = units(j)
    return np.linalg.norm(mgda(unit) @ unit)


def smallest_cosine(j, update):
    return np.min(units(j) @ update) / np.linalg.norm(update)


def _repel(unit, target):
    """z >= 0 for which target + z @ unit, as short as can be, conflicts with no row."""
    size = np.linalg.norm(target)
    z, _ = scipy.optimize.nnls(unit.T, -target / size, maxiter=10_000)
    return z * size


def upgrad(j):
    j = coordinates(j)
    unit, size = units(j), lengths(j)
    z = sum(s * _repel(unit, u) for u, s in zip(unit, size, strict=True))
    return (1 + z / size) / len(j)


def dualproj(j):
    j = coordinates(j)
    return 1 / len(j) + _repel(units(j), j.mean(axis=0)) / lengths(j)


def mgda(j):
    """w = y r, r ~ 1/lengths, on the ray of the least ||y @ unit||^2 + (y @ r - 1)^2, y >= 0."""
    j = coordinates(j)
    unit, size = units(j), lengths(j)
    r = size.min() / size
    system = np.vstack([unit.T, r])
    y, _ = scipy.optimize.nnls(system, np.eye(len(system))[-1], maxiter=10_000)
    return y * r / (y @ r)


def cagrad(j, c):
    """The point nearest to the mean with progress t for all; t is the root of distance = radius.

    Where vectors cancel, no t above zero is for all, and zero is the most if the radius reaches it.
    """
    stationary = room(j) < 1e-7
    j = coordinates(j)
    j = j / np.linalg.norm(j.mean(axis=0))
    unit, size, mean = units(j), lengths(j), j.mean(axis=0)

    def step(t):
        """Lawson and Hanson's LDP: the y of the shortest x = y @ unit, unit @ x >= lacking."""
        lacking = t / size - unit @ mean
        if np.all(lacking <= 0):
            return np.zeros(len(j))
        system = np.vstack([unit.T, lacking])
        y, _ = scipy.optimize.nnls(system, np.eye(len(system))[-1], maxiter=10_000)
        return y / (1 - y @ lacking)

    def beyond(t):
        return np.linalg.norm(step(t) @ unit) - c

    at_zero = _repel(unit, mean)
    if stationary and np.linalg.norm(at_zero @ unit) <= c * (1 + 1e-12):
        return 1 / len(j) + at_zero / size
    low, width, most = np.min(j @ mean), c * size.min(), 0 if stationary else np.inf
    while low + width < most and beyond(low + width) < 0:
        width *= 2
    high = min(low + width, most)
    t = scipy.optimize.brentq(beyond, low, high, xtol=1e-300, rtol=1e-15)
    return 1 / len(j) + step(t) / size


def fairgrad(j, alpha):
    """Newton's method with backtracking on w'Gw/2 - sum_i w_i^(1-1/a)/(1-1/a), convex in w."""
    j = coordinates(j)
    size, unit = lengths(j), units(j)
    cosines, power = unit @ unit.T, 1 / alpha
    # In x = w size: C x = t x^(-1/a); a common factor of t is a common factor of x.
    log_t = (power - 1) * np.log(size)
    t = np.exp(log_t - log_t.mean())

    def value(x):
        if np.any(x <= 0):
            return np.inf
        return x @ cosines @ x / 2 - t @ (
            np.log(x) if power == 1 else x ** (1 - power) / (1 - power)
        )

    x = t ** (1 / (1 + power))
    for _ in range(1000):
        pull = t * x**-power
        slope = cosines @ x - pull
        step = np.linalg.solve(cosines + np.diag(power * pull / x), -slope)
        gain, rate = -(slope @ step), 1.0
        while gain > 1e-10 and value(x + rate * step) > value(x) - rate * gain / 4:
            rate /= 2
        x = x + rate * step
        if np.max(np.abs(slope) / pull) < 1e-12:
            break
    return x / size * np.exp(log_t.mean() / (1 + power))


def _equal_cosines(j, ratios=1):
    inverse = np.linalg.pinv(units(j), rcond=1e-12)
    return inverse.T @ inverse @ (ratios * np.ones(len(j))) / lengths(j)


def imtl_g(j):
    w = _equal_cosines(j)
    return w / abs(w.sum())


def conflict_free(j, ratios=1):
    w = _equal_cosines(j, ratios)
    return w * (j @ (w @ j)).sum() / np.sum((w @ j) ** 2)


def aligned_mtl(j, scale="min", preference=None):
    """From the singular values of the vectors that are not zero."""
    left, values, _ = np.linalg.svd(coordinates(j), full_matrices=False)
    left, values = left[:, values > 1e-12 * values[0]], values[values > 1e-12 * values[0]]
    lower_median = lambda x: np.sort(x)[(len(x) - 1) // 2]  # noqa: E731
    square = {"min": np.min, "median": lower_median, "rmse": np.mean}[scale](values**2)
    p = np.ones(len(j)) / len(j) if preference is None else preference
    return np.sqrt(square) * (left / values) @ (p @ left)
