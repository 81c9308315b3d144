"""Methods that bring gradients to a common norm, against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.references import J2, gradients, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")


def run(balancer, stacks, **kwargs):
    """Updates and weights of every step; keyword arguments hold one value a step."""
    update = jax.jit(balancer.update)
    state, updates, weights = balancer.init(jnp.zeros(stacks[0].shape[1])), [], []
    for t, j in enumerate(stacks):
        now = {name: jnp.asarray(value[t]) for name, value in kwargs.items()}
        d, state = update(jnp.asarray(j, jnp.float32), state, **now)
        updates.append(np.asarray(d, np.float64))
        weights.append(np.asarray(state.task_weights, np.float64))
    return np.array(updates), np.array(weights), state


def test_lr_annealing_averages_the_inverse_shares():
    stacks = [gradients(seed, 4, 30, spread=2) for seed in range(6)]
    _, weights, _ = run(jaxmtl.lr_annealing(4, decay=0.7), stacks)
    expected = np.ones(4)
    for t, j in enumerate(stacks):
        norms = np.linalg.norm(j, axis=1)
        expected = 0.7 * expected + 0.3 * norms.sum() / norms
        np.testing.assert_allclose(weights[t], expected, rtol=1e-5)


def test_lr_annealing_at_rest_gives_all_tasks_one_norm():
    j = gradients(0, 3, 30, spread=2)
    _, weights, _ = run(jaxmtl.lr_annealing(3, decay=0.5), [j] * 40)
    norms = np.linalg.norm(j, axis=1)
    np.testing.assert_allclose(weights[-1] * norms, norms.sum(), rtol=1e-5)


def test_ntk_weights_come_from_the_traces_alone():
    stacks, traces = [gradients(s, 3, 5) for s in range(4)], np.array([[4.0, 2, 1], [8, 2, 1]] * 2)
    _, weights, _ = run(jaxmtl.ntk(3, decay=0.9), stacks, ntk_traces=traces)
    expected = np.ones(3)
    for t, k in enumerate(traces):
        expected = 0.9 * expected + 0.1 * k.sum() / k
        np.testing.assert_allclose(weights[t], expected, rtol=1e-5)


def residuals(params):
    x = jnp.linspace(0, 1, 12)
    y = jnp.sum(jnp.tanh(x[:, None] * params["w"][None] + params["b"][None]), axis=1)
    return {"inside": jnp.sin(3 * y).reshape(3, 4), "boundary": 10 * y[:2]}


def test_ntk_traces_estimate_the_sum_of_squared_jacobians():
    params = {"w": jnp.linspace(-1, 2, 5), "b": jnp.linspace(0, 1, 5)}
    jacobians = jax.jacrev(residuals)(params)
    exact = {
        name: sum(np.sum(np.asarray(leaf, np.float64) ** 2) for leaf in jax.tree.leaves(jacobian))
        for name, jacobian in jacobians.items()
    }
    found = jax.jit(lambda p: jaxmtl.ntk_traces(residuals, p, jax.random.key(0), num_probes=4000))(
        params
    )
    assert set(found) == {"inside", "boundary"}
    for name, trace in exact.items():
        # The spread of one probe is at most sqrt(2): 5 standard deviations of 4000.
        assert abs(found[name] / trace - 1) < 5 * np.sqrt(2 / 4000)
    single = jaxmtl.ntk_traces(lambda p: residuals(p)["boundary"][:1], params, 3)
    row = jax.tree.map(lambda leaf: leaf[:1], jacobians["boundary"])
    expected = sum(np.sum(np.asarray(leaf, np.float64) ** 2) for leaf in jax.tree.leaves(row))
    np.testing.assert_allclose(single, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="num_probes must be a whole number of at least 1"):
        jaxmtl.ntk_traces(residuals, params, 0, num_probes=0)


def test_vqgan_adversaries_pull_as_the_sum_of_the_others_does():
    j = gradients(1, 4, 30, spread=2)
    adversary = np.array([False, True, False, True])
    _, weights, _ = run(jaxmtl.vqgan_adaptive(adversary, scale=0.5), [j])
    ratio = np.linalg.norm(j[~adversary].sum(axis=0)) / np.linalg.norm(j, axis=1)
    np.testing.assert_allclose(weights[0], np.where(adversary, 0.5 * ratio, 1), rtol=1e-5)


def test_vqgan_clips_and_waits():
    j = np.array([[1.0, 0.0], [0.0, 1e-6]])
    balancer = jaxmtl.vqgan_adaptive([False, True], start=2)
    _, weights, _ = run(balancer, [j] * 4)
    np.testing.assert_allclose(weights, [[1, 0], [1, 0], [1, 8e3], [1, 8e3]], rtol=1e-6)
    _, weights, _ = run(jaxmtl.vqgan_adaptive([False, True]), [np.diag([1.0, 0.0])])
    np.testing.assert_array_equal(weights, [[1, 0]])


def test_vqgan_at_the_last_layer_with_names():
    balancer = jaxmtl.on_shared(
        jaxmtl.vqgan_adaptive({"adversarial": True, "pixels": False}, scale=1.0),
        {"decoder": False, "last": True},
        heads="weighted",
    )
    grads = {
        "decoder": jnp.array([[1.0, 1.0], [7.0, 9.0]]),
        "last": jnp.array([[0.0, 2.0], [6.0, 0.0]]),
    }
    state = balancer.init({"decoder": jnp.zeros(2), "last": jnp.zeros(2)})
    losses = {"pixels": 1.0, "adversarial": 2.0}
    updates, _ = balancer.update(grads, state, losses=losses)
    np.testing.assert_allclose(updates["last"], [6, 6])
    np.testing.assert_allclose(updates["decoder"], [10, 12])
    with pytest.raises(ValueError, match="must bear the same names"):
        balancer.update(grads, state, losses={"pixels": 1.0, "disc": 2.0})


LENGTHS = {
    "projection": None,
    "min": np.min,
    "max": np.max,
    "arithmetic": np.mean,
    "geometric": lambda n: np.exp(np.mean(np.log(n))),
    "harmonic": lambda n: 1 / np.mean(1 / n),
}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("preference", [None, [1.0, 3.0, 2.0]])
def test_config_lengths_and_preferences(length, preference):
    for seed in range(5):
        j = gradients(seed, 3, 30, spread=1, kind="conflicting")
        norms = np.linalg.norm(j, axis=1)
        unit = j / norms[:, None]
        u = np.linalg.pinv(unit) @ np.array(preference or [1.0, 1.0, 1.0])
        u /= np.linalg.norm(u)
        common = norms if length == "projection" else LENGTHS[length](norms)
        expected = np.sum(common * (unit @ u)) * u
        balancer = jaxmtl.conflict_free(preference, length=length, num_tasks=3)
        d, _, _ = run(balancer, [j])
        assert relative_error(d[0], expected) < 1e-5


def test_aligned_mtl_reference_number():
    d, weights, state = run(jaxmtl.aligned_mtl(num_tasks=2), [J2])
    np.testing.assert_allclose(weights[0], [0.5590719157, 0.4082610681], rtol=1e-6)
    np.testing.assert_allclose(d[0], [0.2132787460, 0.9673329838, 0.9673329838], rtol=1e-5)
    assert state.method.residual <= 1


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
@pytest.mark.parametrize("num", [2, 5, 16])
def test_aligned_mtl_against_float64(num, scale):
    lower_median = functools.partial(np.quantile, q=0.5, method="lower")
    size = {"min": np.min, "median": lower_median, "rmse": np.mean}[scale]
    p = np.linspace(1, 2, num)
    balancer = jaxmtl.aligned_mtl(p, scale=scale)
    stacks = [gradients(seed, num, 300, spread=3, kind="conflicting") for seed in range(5)]
    updates, _, _ = run(balancer, stacks)
    for j, d in zip(stacks, updates, strict=True):
        left, singular, right = np.linalg.svd(j, full_matrices=False)
        assert relative_error(d, np.sqrt(size(singular**2)) * (p @ left) @ right) < 1e-5


def test_aligned_mtl_of_dependent_gradients_uses_their_rank():
    base = gradients(3, 2, 30)
    j = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]) @ base
    d, _, _ = run(jaxmtl.aligned_mtl(num_tasks=3), [j])
    left, singular, right = np.linalg.svd(j, full_matrices=False)
    expected = singular[1] * (np.full(3, 1 / 3) @ left[:, :2]) @ right[:2]
    assert relative_error(d[0], expected) < 1e-5


def test_imtl_has_the_direction_of_imtl_g_and_learned_losses():
    j, losses = gradients(4, 3, 30, spread=1, kind="conflicting"), np.array([4.0, 1.0, 0.25])
    balancer = jaxmtl.imtl(3)
    updates, _, state = run(balancer, [j] * 1500, losses=np.tile(losses, (1500, 1)))
    np.testing.assert_allclose(np.exp(state.method.value) * losses, 1, rtol=1e-2)
    scaled = j / losses[:, None]
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    w = np.linalg.solve(unit @ unit.T, np.ones(3)) / np.linalg.norm(scaled, axis=1)
    assert relative_error(updates[-1], (w / abs(w.sum())) @ scaled) < 2e-2
    d, _, _ = run(jaxmtl.imtl_g(num_tasks=3), [j])
    cosine = d[0] @ updates[-1] / np.linalg.norm(d[0]) / np.linalg.norm(updates[-1])
    assert cosine > 1 - 1e-6


def test_tiny_gradients_are_aligned_all_the_same():
    _, weights, _ = run(jaxmtl.aligned_mtl(num_tasks=2), [1e-17 * J2])
    np.testing.assert_allclose(weights[0], [0.5590719157, 0.4082610681], rtol=1e-5)


def test_gradients_that_cancel_have_no_common_direction():
    j = np.array([[1.0, 0.0], [-25.0, 43.30127], [-0.01, -0.017320508]])
    for balancer in (jaxmtl.conflict_free(num_tasks=3), jaxmtl.imtl_g(num_tasks=3)):
        d, _, _ = run(balancer, [j])
        np.testing.assert_array_equal(d[0], [0, 0])
