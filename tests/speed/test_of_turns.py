"""What is timed is the equation that it says: against differences in NumPy float64."""

import numpy as np
import pytest

from tests.speed import of_turns

pytestmark = pytest.mark.slow


def test_the_losses_are_those_of_burgers_equation():
    params, points = of_turns._start()
    layers = [(np.asarray(w, float), np.asarray(b, float)) for w, b in params]

    def u(x, t):
        h = np.stack([x, t], axis=1)
        for kernel, bias in layers[:-1]:
            h = np.tanh(h @ kernel + bias)
        kernel, bias = layers[-1]
        return (h @ kernel + bias)[:, 0]

    (x, t), step = np.asarray(points["residual"], float), 1e-4
    u_x = (u(x + step, t) - u(x - step, t)) / (2 * step)
    u_t = (u(x, t + step) - u(x, t - step)) / (2 * step)
    u_xx = (u(x + step, t) - 2 * u(x, t) + u(x - step, t)) / step**2
    x0, t0 = np.asarray(points["initial"], float)
    expected = {
        "boundary": np.mean(u(*np.asarray(points["boundary"], float)) ** 2),
        "initial": np.mean((u(x0, t0) + np.sin(np.pi * x0)) ** 2),
        "residual": np.mean((u_t + u(x, t) * u_x - 0.01 / np.pi * u_xx) ** 2),
    }
    found = of_turns.losses_fn(params, points)
    assert list(found) == sorted(found)
    for name, loss in found.items():
        np.testing.assert_allclose(loss, expected[name], rtol=1e-4)
