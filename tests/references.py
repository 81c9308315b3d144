"""Independent float64 references, written from the papers in NumPy and SciPy."""

import jax
import numpy as np
import scipy.optimize

# Two and three gradients whose exact answers are known.
J2 = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
J3 = np.array([[1.0, 2.0, -1.0, 0.5], [-2.0, 1.0, 0.3, 1.0], [0.5, -1.5, 2.0, -1.0]])


def gradients(seed, num_tasks, size=40, spread=0.0, kind="gaussian"):
    """Stacked float32 gradients, of norms from 10^-spread to 1, in float64."""
    rng = np.random.default_rng(seed)
    j = rng.normal(size=(num_tasks, size))
    if kind == "conflicting":
        j -= 0.5 * j.mean(axis=0)
    if kind == "aligned":
        j += 2 * rng.normal(size=size)
    if kind == "deficient":
        rank = max(1, num_tasks // 2)
        j = rng.normal(size=(num_tasks, rank)) @ rng.normal(size=(rank, size))
        j += 2 * np.sqrt(rank) * rng.normal(size=size)
    j /= np.linalg.norm(j, axis=1, keepdims=True)
    j *= 10.0 ** rng.uniform(-spread, 0, size=(num_tasks, 1))
    return j.astype(np.float32).astype(np.float64)


def wide_spectrum(seed, num):
    """A square matrix whose Gramian has eigenvalues from 1 to 1e-5."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(num, num)))[0] for _ in range(2))
    return left * np.logspace(0, -2.5, num) @ right


def min_norm_weights(j):
    """Convex weights of the min-norm point: a non-negative least-squares problem in disguise.

    min ||J'x||^2 + (1'x - 1)^2 over x >= 0 has its solution on the ray through the min-norm point.
    """
    j = j / np.abs(j).max()
    scale = np.linalg.norm(j, axis=1).min()
    a = np.vstack([j.T / max(scale, 1e-300), np.ones(len(j))])
    x, _ = scipy.optimize.nnls(a, np.append(np.zeros(j.shape[1]), 1.0), maxiter=10_000)
    return x / x.sum()


def duality_gap(j, weights):
    """Relative duality gap of convex weights, on the gradients themselves."""
    slopes = j @ (weights @ j)
    value = weights @ slopes
    return (value - slopes.min()) / value


def pcgrad(j, orders):
    """Sum of the projected gradients, each projected in its own order."""
    total = np.zeros(j.shape[1])
    for i, order in enumerate(orders):
        g = j[i].copy()
        for other in order:
            if other != i and g @ j[other] < 0:
                g -= (g @ j[other]) / (j[other] @ j[other]) * j[other]
        total += g
    return total


def nearest_convex(point):
    """Projection on the simplex: max(v - t, 0), with the one t at which the entries sum to one."""
    excess = lambda t: np.maximum(point - t, 0).sum() - 1  # noqa: E731
    t = scipy.optimize.brentq(excess, point.min() - 1, point.max(), xtol=1e-14, rtol=1e-14)
    return np.maximum(point - t, 0)


def as_vector(tree):
    """All leaves of a tree, one after the other, in float64."""
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def relative_error(update, expected):
    """Distance in units of the expected length."""
    update, expected = np.asarray(update, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(update - expected) / np.linalg.norm(expected)


class Adam:
    """Adam's direction for each row, with a clock a row."""

    def __init__(self, rows, size, b1=0.9, b2=0.999, eps=1e-8):
        self.m, self.v = np.zeros((2, rows, size))
        self.t, self.b1, self.b2, self.eps = np.zeros((rows, 1)), b1, b2, eps

    def __call__(self, j, rows=slice(None)):
        self.t[rows] += 1
        self.m[rows] = self.b1 * self.m[rows] + (1 - self.b1) * j[rows]
        self.v[rows] = self.b2 * self.v[rows] + (1 - self.b2) * j[rows] ** 2
        m = self.m / np.maximum(1 - self.b1**self.t, 1e-300)
        v = self.v / np.maximum(1 - self.b2**self.t, 1e-300)
        out = np.zeros_like(j)
        out[rows] = (m / (np.sqrt(v) + self.eps))[rows]
        return out


def averaged(values, decay):
    """The average over the steps that are there, the last one weighing most."""
    return np.average(values, axis=0, weights=decay ** np.arange(len(values))[::-1])
