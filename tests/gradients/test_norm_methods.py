"""Methods that bring gradients to a common norm, against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.references import J2, gradients, relative_error
from tests.stages import later

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
        expected = 0.7 * expected + 0.3 * norms.mean() / norms
        np.testing.assert_allclose(weights[t], expected, rtol=1e-5)


def test_lr_annealing_at_rest_gives_all_tasks_one_norm():
    j = gradients(0, 3, 30, spread=2)
    _, weights, _ = run(jaxmtl.lr_annealing(3, decay=0.5), [j] * 40)
    norms = np.linalg.norm(j, axis=1)
    np.testing.assert_allclose(weights[-1] * norms, norms.mean(), rtol=1e-5)


NAMED = {"boundary": False, "initial": False, "residual": True}


def of_shapes(j):
    """Split (T, 30) gradients into leaves of several shapes, one of a single number."""
    j = jnp.asarray(j, jnp.float32)
    return {"w": j[:, :24].reshape(-1, 4, 6), "b": j[:, 24:29], "scale": j[:, 29]}


@pytest.mark.parametrize("reference", [2, np.int64(2), "residual", [False, False, True], NAMED])
def test_lr_annealing_towards_a_reference_task(reference):
    """max |g_r| / mean |g_i|, averaged; the reference's own weight is one."""
    balancer = jaxmtl.lr_annealing(3, decay=0.7, reference=reference)
    stacks = [gradients(seed, 3, 30, spread=2) for seed in range(6)]
    state = balancer.init(jax.tree.map(lambda leaf: leaf[0], of_shapes(stacks[0])))
    update, expected = jax.jit(balancer.update), np.ones(3)
    for j in stacks:
        d, state = update(of_shapes(j), state, losses=dict.fromkeys(NAMED, 1.0))
        new = np.abs(j[2]).max() / np.abs(j).mean(axis=1)
        expected = np.where([True, True, False], 0.7 * expected + 0.3 * new, 1)
        np.testing.assert_allclose(state.task_weights, expected, rtol=1e-5)
        assert state.task_weights[2] == 1
        for leaf, wanted in zip(
            jax.tree.leaves(d), jax.tree.leaves(of_shapes((expected @ j)[None])), strict=True
        ):
            np.testing.assert_allclose(leaf, wanted[0], rtol=1e-4, atol=1e-6)


def test_lr_annealing_stays_where_the_reference_is_absent():
    balancer = jaxmtl.lr_annealing(3, decay=0.5, reference=0)
    j, state = jnp.asarray(gradients(0, 3, 30), jnp.float32), balancer.init(jnp.zeros(30))
    update = jax.jit(balancer.update)
    _, first = update(j, state)
    _, absent = update(3 * j, first, active=jnp.array([False, True, True]))
    np.testing.assert_array_equal(absent.method.weights, first.method.weights)
    np.testing.assert_array_equal(absent.task_weights, [0, *first.task_weights[1:]])
    _, other = update(j, first, active=jnp.array([True, False, True]))
    assert other.method.weights[1] == first.method.weights[1]
    assert other.method.weights[2] != first.method.weights[2]
    updates, zero = update(j.at[1].set(0), state)
    assert np.all(np.isfinite(updates))
    assert zero.task_weights[1] == 1  # nothing was measured, as with no reference


def test_lr_annealing_measures_the_shared_leaves():
    balancer = jaxmtl.on_shared(
        jaxmtl.lr_annealing(2, decay=0.0, reference=1), {"trunk": True, "head": False}
    )
    grads = {
        "trunk": jnp.array([[1.0, 1.0], [3.0, 0.0]], jnp.bfloat16),
        "head": jnp.array([[50.0, 0.0], [0.0, 70.0]]),
    }
    state = balancer.init({"trunk": jnp.zeros(2, jnp.bfloat16), "head": jnp.zeros(2)})
    updates, state = jax.jit(balancer.update)(grads, state)
    np.testing.assert_allclose(state.task_weights, [3, 1], rtol=1e-6)
    np.testing.assert_array_equal(updates["trunk"].astype(jnp.float32), [6, 3])
    np.testing.assert_array_equal(updates["head"], [50, 70])


@pytest.mark.parametrize("reference", [3, -1, [True, True, False], [False] * 3, [0.0, 0.0, 1.0]])
def test_lr_annealing_refuses_what_is_no_reference(reference):
    with pytest.raises(ValueError, match="name or the index of one of the 3 tasks, or one bool"):
        jaxmtl.lr_annealing(3, reference=reference)


def test_lr_annealing_refuses_other_names_and_numbers():
    with pytest.raises(ValueError, match="reference holds 2 values, but there are 3 tasks"):
        jaxmtl.lr_annealing(3, reference=[True, False])
    balancer = jaxmtl.lr_annealing(3, reference=NAMED)
    losses = {"boundary": 1.0, "data": 1.0, "residual": 1.0}
    with pytest.raises(ValueError, match="must have the same names"):
        balancer.update(jnp.eye(3), balancer.init(jnp.zeros(3)), losses=losses)
    balancer = jaxmtl.lr_annealing(3, reference="edge")
    for given, message in [(losses, "the names boundary, data, residual"), (None, "no names")]:
        with pytest.raises(ValueError, match=f"reference is the task 'edge', but .* {message}"):
            balancer.update(jnp.eye(3), balancer.init(jnp.zeros(3)), losses=given)


def test_ntk_weights_come_from_the_traces_alone():
    stacks, traces = [gradients(s, 3, 5) for s in range(4)], np.array([[4.0, 2, 1], [8, 2, 1]] * 2)
    _, weights, _ = run(jaxmtl.ntk(3, decay=0.9), stacks, ntk_traces=traces)
    expected = np.ones(3)
    for t, k in enumerate(traces):
        expected = 0.9 * expected + 0.1 * k.mean() / k
        np.testing.assert_allclose(weights[t], expected, rtol=1e-5)


def residuals(params):
    x = jnp.linspace(0, 1, 60)
    y = jnp.sum(jnp.tanh(x[:, None] * params["w"][None] + params["b"][None]), axis=1)
    return {"inside": jnp.sin(3 * y).reshape(3, 20), "boundary": 10 * y[:2]}


NTK_PARAMS = {"w": jnp.linspace(-1, 2, 5), "b": jnp.linspace(0, 1, 5)}


def exact_traces():
    """Sums of the squared derivatives of each residual, written out in float64."""
    w, b = (np.asarray(NTK_PARAMS[name], np.float64) for name in ("w", "b"))
    x = np.linspace(0, 1, 60)[:, None]
    y = np.sum(np.tanh(x * w + b), axis=1)
    slope = 1 / np.cosh(x * w + b) ** 2
    squares = np.sum(slope**2 * (x**2 + 1), axis=1)
    inside = (3 * np.cos(3 * y)) ** 2 * squares
    return {"inside": inside.sum(), "boundary": 100 * squares[:2].sum()}


@pytest.mark.parametrize(("num_probes", "bound"), [(8, 0.2), (16, 0.08), (32, 0.04)])
def test_ntk_traces_are_unbiased_and_say_how_far_they_may_be_off(num_probes, bound):
    """On a kernel with eigenvalues 1, 1/4, 1/9, ...: its trace is that of the squared entries."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(60, 60)))[0] for _ in range(2))
    jacobian = (left / np.arange(1, 61) @ right).astype(np.float32)

    def linear(p):
        return (jacobian @ p).reshape(3, 20)

    keys = jax.random.split(jax.random.key(0), 400)
    estimate = jax.vmap(lambda k: jaxmtl.ntk_traces(linear, jnp.ones(60), k, num_probes=num_probes))
    traces, errors = (np.asarray(of, np.float64) for of in jax.jit(estimate)(keys))
    exact = np.mean(np.sum(jacobian.astype(np.float64) ** 2, axis=1))
    off = traces - exact
    # Given the basis, the rest is a mean of independent draws: E off = 0, E off^2 = E error^2.
    assert abs(off.mean()) < 4 * off.std() / np.sqrt(400)
    assert 0.7 < np.mean(errors**2) / np.mean(off**2) < 1.4
    assert 0 < off.std() < bound * exact


@pytest.mark.parametrize("exponent", [-15, -12, 12])
def test_ntk_traces_of_residuals_in_other_units(exponent):
    """c^2 times the traces, and the errors: no threshold, and no square beyond float32's range."""
    scale = jnp.float32(10.0**exponent)

    @jax.jit
    def estimate(c):
        return jaxmtl.ntk_traces(
            lambda p: jax.tree.map(lambda r: c * r, residuals(p)), NTK_PARAMS, 0, num_probes=8
        )

    plain, scaled = estimate(jnp.float32(1)), estimate(scale)
    square = np.float64(scale) ** 2
    for name in ("inside", "boundary"):
        np.testing.assert_allclose(scaled.traces[name] / square, plain.traces[name], rtol=1e-5)
        np.testing.assert_allclose(
            scaled.standard_errors[name] / square, plain.standard_errors[name], rtol=1e-2
        )
    assert plain.standard_errors["inside"] > 0


def test_ntk_traces_of_few_points_are_exact_and_sums_are_not_divided():
    exact = exact_traces()
    for reduction, entries in [("mean", {"inside": 60, "boundary": 2}), ("sum", None)]:
        found, errors = jax.jit(
            lambda p, r=reduction: jaxmtl.ntk_traces(residuals, p, 0, num_probes=60, reduction=r)
        )(NTK_PARAMS)
        for name, trace in exact.items():
            expected = trace / (entries[name] if entries else 1)
            np.testing.assert_allclose(found[name], expected, rtol=1e-5)
            assert errors[name] == 0


def test_ntk_weighs_losses_that_are_means_as_the_mean_kernel_says():
    """From residuals to weights: mean_j K_j / K_i with each kernel's mean diagonal."""
    traces, _ = jaxmtl.ntk_traces(residuals, NTK_PARAMS, 0, num_probes=60)
    balancer = jaxmtl.ntk(2, decay=0.0)
    losses = jax.tree.map(lambda r: jnp.mean(r**2), residuals(NTK_PARAMS))
    _, state = balancer.update(
        jnp.eye(2), balancer.init(jnp.zeros(2)), losses=losses, ntk_traces=traces
    )
    exact = exact_traces()
    means = np.array([exact["boundary"] / 2, exact["inside"] / 60])
    np.testing.assert_allclose(state.task_weights, means.mean() / means, rtol=1e-5)


@pytest.mark.parametrize(
    ("fun", "arguments", "message"),
    [
        (residuals, {"num_probes": 7}, "num_probes must be a whole number of at least 8"),
        (residuals, {"reduction": "max"}, "reduction must be one of mean, sum"),
        (lambda p: {"a": jnp.zeros((0, 2))}, {}, r"at least one entry each.*\(0, 2\)"),
        (lambda p: {}, {}, "must return a tree of arrays with at least one entry each"),
    ],
)
def test_ntk_traces_refuse_what_has_no_trace(fun, arguments, message):
    with pytest.raises(ValueError, match=message):
        jaxmtl.ntk_traces(fun, NTK_PARAMS, 0, **arguments)


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
    with pytest.raises(ValueError, match="must have the same names"):
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
@pytest.mark.parametrize("preference", later([(1.0, 3.0, 2.0), None], soon=[(1.0, 3.0, 2.0)]))
def test_config_lengths_and_preferences(length, preference):
    balancer = jaxmtl.conflict_free(preference, length=length, num_tasks=3)
    stacks = [gradients(seed, 3, 30, spread=1, kind="conflicting") for seed in range(5)]
    updates, _, _ = run(balancer, stacks)
    for j, d in zip(stacks, updates, strict=True):
        norms = np.linalg.norm(j, axis=1)
        unit = j / norms[:, None]
        u = np.linalg.pinv(unit) @ np.array(preference or [1.0, 1.0, 1.0])
        u /= np.linalg.norm(u)
        common = norms if length == "projection" else LENGTHS[length](norms)
        expected = np.sum(common * (unit @ u)) * u
        assert relative_error(d, expected) < 1e-5


def test_aligned_mtl_reference_number():
    d, weights, state = run(jaxmtl.aligned_mtl(num_tasks=2), [J2])
    np.testing.assert_allclose(weights[0], [0.5590719157, 0.4082610681], rtol=1e-6)
    np.testing.assert_allclose(d[0], [0.2132787460, 0.9673329838, 0.9673329838], rtol=1e-5)
    assert state.method.residual <= 1


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
@pytest.mark.parametrize("num", later([2, 5, 16], soon=[5]))
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
    np.testing.assert_allclose(np.exp(state.method.log_weights) * losses, 1, rtol=1e-2)
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


def test_lr_annealing_with_a_reference_in_a_wide_range_and_with_empty_leaves():
    grads = {"w": jnp.zeros((2, 10**4)).at[0, 0].set(1e17).at[1].set(1e10), "e": jnp.zeros((2, 0))}
    balancer = jaxmtl.lr_annealing(2, decay=0.0, reference=0)
    _, state = balancer.update(grads, balancer.init({"w": jnp.zeros(10**4), "e": jnp.zeros(0)}))
    np.testing.assert_allclose(state.task_weights, [1, 1e7], rtol=1e-5)
