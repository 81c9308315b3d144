"""Differential equations: solutions against the equations themselves, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxmtl.problems import _pinn, burgers, helmholtz, klein_gordon, load

pytestmark = pytest.mark.usefixtures("quick_compiler")

MODULES = {"helmholtz": helmholtz, "klein_gordon": klein_gordon, "burgers": burgers}
INSIDE = np.random.default_rng(0).uniform(0.02, 0.98, (200, 2))


def second_derivatives(function, points):
    """Values (N,) and second derivatives (N, 2, 2) in float64, by JAX's own transformations."""
    of_one = lambda point: function(point[None])[0]  # noqa: E731
    points = jnp.asarray(points, jnp.float64)
    return np.asarray(function(points)), np.asarray(jax.jit(jax.vmap(jax.hessian(of_one)))(points))


def test_helmholtz_solves_its_equation():
    points = 2 * INSIDE - 1
    with jax.enable_x64(True):
        u, hessians = second_derivatives(helmholtz.solution, points)
        q = np.asarray(helmholtz.source(points))
    np.testing.assert_allclose(hessians[:, 0, 0] + hessians[:, 1, 1] + u, q, atol=1e-10)
    x, y = points.T
    np.testing.assert_allclose(u, np.sin(np.pi * x) * np.sin(4 * np.pi * y), atol=1e-12)
    edge = helmholtz.BOX.grid(9)
    edge = edge[np.abs(edge).max(axis=1) == 1]
    assert len(edge) == 32
    np.testing.assert_allclose(helmholtz.solution(edge), 0, atol=1e-5)


def test_klein_gordon_solves_its_equation():
    with jax.enable_x64(True):
        u, hessians = second_derivatives(klein_gordon.solution, INSIDE)
        f = np.asarray(klein_gordon.source(INSIDE))
        start = jnp.stack([jnp.zeros(50), jnp.linspace(0.0, 1.0, 50)], axis=1)
        along_t = jnp.broadcast_to(jnp.array([[1.0, 0.0]]), start.shape)
        u_0, u_t = jax.jvp(klein_gordon.solution, (start,), (along_t,))
    np.testing.assert_allclose(hessians[:, 0, 0] - hessians[:, 1, 1] + u**3, f, atol=1e-10)
    np.testing.assert_allclose(u_0, start[:, 1], atol=1e-14)
    np.testing.assert_allclose(u_t, 0, atol=1e-14)


def test_burgers_solves_its_equation():
    """Slopes by complex steps, to rounding; the second ones by differences, extrapolated."""
    x, t = 2 * INSIDE[:, 0] - 1, INSIDE[:, 1]
    x[:50] *= 0.02  # in the front too

    def u(x, t):
        return burgers.solution(np.stack([x, t], axis=1))

    def u_x(x):
        return u(x + 1e-30j, t + 0j).imag / 1e-30

    def difference(h):
        return (u_x(x + h) - u_x(x - h)) / (2 * h)

    u_t = u(x + 0j, t + 1e-30j).imag / 1e-30
    u_xx = (4 * difference(5e-5) - difference(1e-4)) / 3
    assert np.abs(u_x(x)).max() > 100  # in the front
    left = u_t + u(x, t) * u_x(x) - burgers.VISCOSITY * u_xx
    np.testing.assert_allclose(left, 0, atol=1e-6 * np.abs(u(x, t) * u_x(x)).max())
    places, zeros = np.linspace(-1, 1, 21), np.zeros(21)
    np.testing.assert_allclose(u(places, zeros), -np.sin(np.pi * places), atol=1e-12)
    for end in (-1, 1):
        np.testing.assert_allclose(u(zeros + end, np.linspace(0, 1, 21)), 0, atol=1e-12)


def test_burgers_against_adaptive_quadrature():
    nu = 0.01 / np.pi
    for x, t in ((0.5, 0.3), (-0.004, 0.5), (0.02, 1.0), (0.9, 0.8)):

        def density(y, x=x, t=t):
            return np.exp(
                (1 - np.cos(np.pi * y)) / (2 * np.pi * nu) - 50 - (x - y) ** 2 / (4 * nu * t)
            )

        # The density is narrow: its places are given.
        grid = np.linspace(x - 2, x + 2, 41)
        pieces = [
            [
                integrate.quad(f, a, b, epsabs=0, epsrel=1e-12)[0]
                for a, b in itertools.pairwise(grid)
            ]
            for f in (density, lambda y: density(y) * np.sin(np.pi * y))
        ]
        expected = -np.sum(pieces[1]) / np.sum(pieces[0])
        np.testing.assert_allclose(burgers.solution(np.array([[x, t]])), expected, rtol=1e-9)


def test_derivatives_of_the_network():
    """Against JAX's Hessians of the network as NumPy would write it, in float64."""
    with jax.enable_x64(True):
        params = _pinn.init_tanh(jax.random.key(0), (2, 7, 6, 1), bias=0.1)
        scaling, curvature = _pinn.Box((-1.0, 2.0), (0.5, 5.0)).scaling, (0.7, -1.3)

        def network(points):
            x = (points - scaling[0][None]) / scaling[1][None]
            for name in ("layer_0", "layer_1"):
                x = jnp.tanh(x @ params["trunk"][name]["kernel"] + 0.1)
            return (x @ params["trunk"]["layer_2"]["kernel"] + 0.1)[:, 0]

        points = jnp.asarray(INSIDE[:20])
        u, hessians = second_derivatives(network, points)
        _, slopes = jax.jvp(network, (points,), (jnp.ones_like(points),))
        np.testing.assert_allclose(_pinn.evaluate(params, points, scaling), u, rtol=1e-12)
        found = _pinn.evaluate_with_derivatives(params, points, scaling, curvature)
        found = [np.asarray(part) for part in found]
    np.testing.assert_allclose(found[0], u, rtol=1e-12)
    np.testing.assert_allclose(found[1].sum(axis=0), slopes, rtol=1e-11)
    expected = 0.7 * hessians[:, 0, 0] - 1.3 * hessians[:, 1, 1]
    np.testing.assert_allclose(found[2], expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", MODULES)
def test_losses_are_those_of_the_equation(name):
    """Of a network written here, differentiated by JAX twice, in float64."""
    problem, module = load(name), MODULES[name]
    params = problem.init(jax.random.key(0))
    batch = problem.sample(jax.random.key(1))
    found = problem.losses(params, batch)
    with jax.enable_x64(True):
        params, batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (params, dict(batch)))
        mean, deviation = _pinn.UNSCALED if name == "burgers" else module.BOX.scaling

        def network(points):
            *hidden, last = [params["trunk"][layer] for layer in sorted(params["trunk"])]
            x = (points - mean[None]) / deviation[None]
            for layer in hidden:
                x = jnp.tanh(x @ layer["kernel"] + layer["bias"][None])
            return (x @ last["kernel"] + last["bias"][None])[:, 0]

        u, hessians = second_derivatives(network, batch["inside"])
        slopes = jax.jit(jax.vmap(jax.grad(lambda p: network(p[None])[0])))
        u_0, u_1 = slopes(batch["inside"]).T
        squares = {"helmholtz": _of_helmholtz, "klein_gordon": _of_klein_gordon}
        if name == "burgers":
            left = u_1 + u * u_0 - burgers.VISCOSITY * hessians[:, 0, 0]
            x = batch["start"][:, 0]
            expected = {
                "boundary": np.mean(network(batch["ends"]) ** 2),
                "initial": np.mean((network(batch["start"]) + np.sin(np.pi * x)) ** 2),
                "residual": np.mean(left**2),
            }
        else:
            expected = squares[name](network, slopes, u, hessians, batch)
    for task, value in expected.items():
        np.testing.assert_allclose(found[task], value, rtol=1e-4)


def _of_helmholtz(network, slopes, u, hessians, batch):
    x, y = np.asarray(batch["inside"]).T
    q = (1 - 17 * np.pi**2) * np.sin(np.pi * x) * np.sin(4 * np.pi * y)
    sides = np.split(np.asarray(network(batch["sides"])), 4)
    return {
        "boundary": sum(np.mean(side**2) for side in sides),
        "residual": np.mean((hessians[:, 0, 0] + hessians[:, 1, 1] + u - q) ** 2),
    }


def _of_klein_gordon(network, slopes, u, hessians, batch):
    f = np.asarray(klein_gordon.source(batch["inside"]))
    start = batch["start"]
    low, high = np.split(np.asarray(network(batch["ends"])), 2)
    t = np.asarray(batch["ends"])[128:, 0]
    parts = (
        np.asarray(network(start) - start[:, 1]),
        np.asarray(slopes(start)[:, 0]),
        low,
        high - np.cos(5 * np.pi * t) - t**3,
    )
    return {
        "boundary": sum(np.mean(part**2) for part in parts),
        "residual": np.mean((hessians[:, 0, 0] - hessians[:, 1, 1] + u**3 - f) ** 2),
    }


@pytest.mark.parametrize("name", MODULES)
def test_points_are_where_they_belong(name):
    problem, module = load(name), MODULES[name]
    batch = {part: np.asarray(x) for part, x in problem.sample(jax.random.key(3)).items()}
    low, high = np.array(module.BOX.low), np.array(module.BOX.high)
    for points in batch.values():
        assert np.all((points >= low) & (points <= high))
    inside = (batch["inside"] - low) / (high - low)
    for column in inside.T:  # uniform, and of fresh points at another key
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    other = problem.sample(jax.random.key(4))["inside"]
    assert np.mean(np.isin(batch["inside"], np.asarray(other))) < 1e-3
    if name == "helmholtz":
        for side, (axis, end) in zip(
            np.split(batch["sides"], 4), ((0, -1), (0, 1), (1, -1), (1, 1)), strict=True
        ):
            assert np.all(side[:, axis] == end)
            assert np.ptp(side[:, 1 - axis]) > 1.8
        return
    time, place = (0, 1) if name == "klein_gordon" else (1, 0)
    assert np.all(batch["start"][:, time] == 0)
    assert np.ptp(batch["start"][:, place]) > 0.9 * (high - low)[place]
    ends, counts = np.unique(batch["ends"][:, place], return_counts=True)
    np.testing.assert_array_equal(ends, [low[place], high[place]])
    assert counts[0] == counts[1]
    if name == "burgers":  # one point in each of as many intervals
        for column in inside.T:
            np.testing.assert_array_equal(np.sort(np.floor(column * 2000)), np.arange(2000))


@pytest.mark.parametrize("name", MODULES)
def test_the_exact_solution_has_no_error(name, monkeypatch):
    """With the solution, or twice it, in the network's place: errors of 0, and of its size."""
    problem = load(name)
    exact = problem.test["exact"]
    for factor, expected in ((1.0, 0.0), (2.0, 1.0)):
        monkeypatch.setattr(_pinn, "evaluate", lambda *_, factor=factor: factor * exact)
        metrics = problem.metrics(problem.init(jax.random.key(0)), problem.test)
        size = np.mean(exact.astype(float) ** 2) if name == "burgers" else 1
        np.testing.assert_allclose(metrics["residual"], expected * size, rtol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="inside must be a whole number"):
        helmholtz.helmholtz(inside=0)
    with pytest.raises(ValueError, match="inside must be a whole number"):
        klein_gordon.klein_gordon(inside=1.5)
