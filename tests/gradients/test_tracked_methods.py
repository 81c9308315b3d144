"""Methods with averages of the gradients or further batches, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.gradients.test_norm_methods import run
from tests.references import gradients, min_norm_weights, nearest_convex, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")

NOISY = [gradients(seed, 3, 30, spread=1, kind="conflicting") for seed in range(8)]


def test_moco_step_by_step():
    updates, weights, _ = run(jaxmtl.moco(3, decay=0.7, step_size=0.5, rho=0.1), NOISY)
    y, w = NOISY[0], np.full(3, 1 / 3)
    for t, j in enumerate(NOISY):
        y = 0.7 * y + 0.3 * j
        gram = y @ y.T
        w = nearest_convex(w - 0.5 * (gram @ w / np.trace(gram) + 0.1 * w))
        np.testing.assert_allclose(weights[t], w, atol=1e-5)
        assert relative_error(updates[t], w @ y) < 1e-5


def test_moco_and_modo_settle_at_the_min_norm_point():
    j = gradients(1, 4, 30, kind="conflicting")
    exact = min_norm_weights(j)
    _, weights, _ = run(jaxmtl.moco(4, step_size=1.0), [j] * 200)
    np.testing.assert_allclose(weights[-1], exact, atol=1e-4)
    batches = {"independent_grads": np.tile(j.astype(np.float32), (200, 2, 1, 1))}
    _, weights, _ = run(as_pairs(jaxmtl.modo(4, step_size=1.0)), [j] * 200, **batches)
    np.testing.assert_allclose(weights[-1], exact, atol=1e-4)


def as_pairs(balancer):
    """Take the further batches as one array, as ``run`` passes them."""

    def update(grads, state, *, independent_grads):
        return balancer.update(grads, state, independent_grads=tuple(independent_grads))

    class Pairs:
        init = staticmethod(balancer.init)

    Pairs.update = staticmethod(update)
    return Pairs


def batches(seed):
    return np.stack([NOISY[(t + seed) % 8] for t in range(8)]).astype(np.float32)


def test_modo_step_by_step():
    first, second = batches(1), batches(2)
    independent = np.stack([first, second], axis=1)
    balancer = as_pairs(jaxmtl.modo(3, step_size=0.5, rho=0.1))
    updates, weights, _ = run(balancer, NOISY, independent_grads=independent)
    w = np.full(3, 1 / 3)
    for t, j in enumerate(NOISY):
        cross = first[t].astype(np.float64) @ second[t].astype(np.float64).T
        w = nearest_convex(w - 0.5 * (cross @ w / np.sum(j**2) + 0.1 * w))
        np.testing.assert_allclose(weights[t], w, atol=1e-5)
        assert relative_error(updates[t], w @ j) < 1e-5


@pytest.mark.parametrize("preference", [[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]])
def test_sdmgrad_step_by_step(preference):
    first, second = batches(1), batches(2)
    independent = np.stack([first, second], axis=1)
    preference = np.array(preference)
    balancer = as_pairs(jaxmtl.sdmgrad(3, preference=preference, pull=0.4, iterations=7))
    updates, weights, _ = run(balancer, NOISY, independent_grads=independent)
    w = np.full(3, 1 / 3)
    for t, j in enumerate(NOISY):
        cross = first[t].astype(np.float64) @ second[t].astype(np.float64).T / np.sum(j**2)
        momentum = np.zeros(3)  # afresh at each step of training, as in the authors' code
        for _ in range(7):
            momentum = 0.5 * momentum + cross @ (w + 0.4 * preference)
            w = nearest_convex(w - momentum)
        expected = (w + 0.4 * preference) / 1.4
        np.testing.assert_allclose(weights[t], expected, atol=2e-5)
        assert relative_error(updates[t], expected @ j) < 1e-4


def test_sdmgrad_between_mgda_and_the_preferred_direction():
    j = gradients(2, 3, 30, kind="conflicting")
    independent = np.tile(j.astype(np.float32), (30, 2, 1, 1))
    for pull, expected in [(0.0, min_norm_weights(j)), (1e4, np.array([0.2, 0.5, 0.3]))]:
        balancer = as_pairs(jaxmtl.sdmgrad(3, preference=[0.2, 0.5, 0.3], pull=pull))
        _, weights, _ = run(balancer, [j] * 30, independent_grads=independent)
        np.testing.assert_allclose(weights[-1], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "independent_grads is None"),
        (jnp.ones((2, 2)), "independent_grads is ArrayImpl"),
        ((jnp.ones((2, 3)), jnp.ones((2, 2))), r"two trees of the structure and shapes of grads"),
    ],
)
def test_missing_batches_are_refused(value, message):
    balancer = jaxmtl.modo(2)
    with pytest.raises(ValueError, match=message):
        balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)), independent_grads=value)


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_db_mtl_step_by_step(power):
    losses = np.random.default_rng(0).exponential(size=(8, 3)).astype(np.float32)
    balancer = jaxmtl.db_mtl(3, decay=0.8, decay_power=power)
    updates, _, _ = run(balancer, NOISY, losses=losses)
    h = NOISY[0] / losses[0][:, None]
    for t, j in enumerate(NOISY):
        share = 0.8 / (t + 1) ** power if t else 0.0
        h = share * h + (1 - share) * j / losses[t][:, None].astype(np.float64)
        norms = np.linalg.norm(h, axis=1)
        assert relative_error(updates[t], norms.max() * (1 / norms) @ h) < 1e-5


def test_excess_mtl_step_by_step():
    _, weights, _ = run(jaxmtl.excess_mtl(3, step_size=0.5), NOISY)
    sums, logits, first = np.zeros((3, 30)), np.zeros(3), None
    for t, j in enumerate(NOISY):
        sums += j**2
        excess = np.sum(j**2 / np.sqrt(sums), axis=1)
        first = excess if first is None else first
        logits += 0.5 * excess / first
        np.testing.assert_allclose(weights[t], np.exp(logits) / np.exp(logits).sum(), rtol=1e-4)


def test_tracked_averages_are_of_the_shared_leaves_only():
    balancer = jaxmtl.on_shared(jaxmtl.moco(2), {"trunk": True, "head": False})
    params = {"trunk": jnp.zeros(3, jnp.bfloat16), "head": jnp.zeros(2)}
    state = balancer.init(params)
    assert state.preparation.average["head"] is None
    assert state.preparation.average["trunk"].dtype == jnp.float32
    grads = {"trunk": jnp.ones((2, 3), jnp.bfloat16), "head": jnp.eye(2)}
    updates, state = jax.jit(balancer.update)(grads, state)
    np.testing.assert_array_equal(updates["head"], [1, 1])
    assert updates["trunk"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(updates["trunk"].astype(jnp.float32), [1, 1, 1])


def test_an_average_starts_when_its_task_first_comes():
    balancer = jaxmtl.moco(2, decay=0.5, step_size=0.0)
    state = balancer.init(jnp.zeros(2))
    _, state = balancer.update(jnp.eye(2), state, active=jnp.array([True, False]))
    _, state = balancer.update(3 * jnp.eye(2), state)
    np.testing.assert_allclose(state.preparation.average, [[2, 0], [0, 3]])


def test_gradvac_turns_to_the_target_cosine():
    """Two tasks: after the first step the targets are known, and so are the cosines reached."""
    rng = np.random.default_rng(0)
    balancer = jaxmtl.gradvac(2, 0, decay=0.9)
    stacks = [rng.normal(size=(2, 30)) + 2 * rng.normal(size=30) for _ in range(3)]
    stacks.append(rng.normal(size=(2, 30)) * [[1.0], [5.0]])
    stacks[-1][1] -= 0.2 * stacks[-1][0]
    updates, _, state = run(balancer, [s.astype(np.float32).astype(np.float64) for s in stacks])
    target, any_turned = 0.0, False
    for t, j in enumerate(stacks):
        cosine = j[0] @ j[1] / np.linalg.norm(j[0]) / np.linalg.norm(j[1])
        expected = j.sum(axis=0)
        if cosine < target:
            ratio = target * np.sqrt(1 - cosine**2) - cosine * np.sqrt(1 - target**2)
            ratio /= np.sqrt(1 - target**2)
            n = np.linalg.norm(j, axis=1)
            turned = [j[0] + n[0] / n[1] * ratio * j[1], j[1] + n[1] / n[0] * ratio * j[0]]
            expected, any_turned = np.sum(turned, axis=0), target > 0
            reached = turned[0] @ j[1] / np.linalg.norm(turned[0]) / n[1]
            assert abs(reached - target) < 1e-12
        assert relative_error(updates[t], expected) < 1e-5
        target = 0.9 * target + 0.1 * cosine
    assert any_turned
    found = state.method.target_cosines
    np.testing.assert_allclose(found, [[0, target], [target, 0]], atol=1e-6)


def test_gradvac_with_targets_of_zero_is_pcgrad():
    j = gradients(5, 4, 30, kind="conflicting") - 0.3 * gradients(6, 1, 30)
    _, vac, _ = run(jaxmtl.gradvac(4, 7), [j])
    _, pc, _ = run(jaxmtl.pcgrad(7, num_tasks=4), [j])
    assert np.abs(pc - 1).max() > 1e-2
    np.testing.assert_allclose(vac, pc, rtol=1e-4)


def test_gradvac_targets_move_whether_or_not_they_turn():
    aligned = np.array([[1.0, 0.2], [1.0, 0.0]])
    _, _, state = run(jaxmtl.gradvac(2, 0, decay=0.5), [aligned])
    assert state.method.target_cosines[0, 1] > 0.4


def test_krum_reference_number():
    j = np.array([[1.0, 1, 1], [1, 0, 1], [75, -666, 23], [1, 2, 3], [2, 0, 1]])
    updates, weights, _ = run(jaxmtl.krum(1, num_selected=4, num_tasks=5), [j])
    np.testing.assert_allclose(updates[0], [1.25, 0.75, 1.5], rtol=1e-6)
    np.testing.assert_array_equal(weights[0], [0.25, 0.25, 0, 0.25, 0.25])


def test_krum_scores_by_hand():
    for seed in range(10):
        j = gradients(seed, 7, 10, spread=0.5)
        j[3] = j[5]  # equal distances
        distances = np.sum((j[:, None] - j[None]) ** 2, axis=2)
        for byzantine in (0, 2, 4):
            scores = np.sort(distances, axis=1)[:, 1 : 1 + 7 - byzantine - 2].sum(axis=1)
            chosen = np.argsort(scores, kind="stable")[:2]
            updates, _, _ = run(jaxmtl.krum(byzantine, num_selected=2, num_tasks=7), [j])
            assert relative_error(updates[0], j[chosen].mean(axis=0)) < 1e-6


def test_too_few_tasks_for_robustness():
    for make, message in [
        (lambda: jaxmtl.krum(1, num_tasks=3), "needs at least 4 tasks, but there are 3"),
        (lambda: jaxmtl.krum(0, num_selected=3, num_tasks=2), "at least 3 tasks, but there are 2"),
        (lambda: jaxmtl.krum(2).update(jnp.eye(3), jaxmtl.krum(2).init(jnp.zeros(3))), "least 5"),
        (lambda: jaxmtl.trimmed_mean(1, num_tasks=2), "more than 2 tasks, but there are 2"),
        (lambda: jaxmtl.krum(-1), "num_byzantine must be a whole number of at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_excess_mtl_loses_nothing_while_a_task_is_away():
    """Renormalised among the tasks present, as if the absent one were not there."""
    rng = np.random.default_rng(0)
    stacks, here = rng.normal(size=(400, 2, 5)), rng.random(400) < 0.25
    active = np.stack([np.ones(400, bool), here], axis=1)
    _, weights, _ = run(jaxmtl.excess_mtl(2, step_size=0.1), stacks, active=active)
    sums, w, first = np.zeros((2, 5)), np.full(2, 0.5), np.zeros(2)
    for t, j in enumerate(stacks.astype(np.float32).astype(np.float64)):
        a = active[t]
        sums[a] += j[a] ** 2
        excess = np.sum(j**2 / np.sqrt(np.where(sums > 0, sums, 1)), axis=1)
        first = np.where((first == 0) & a, excess, first)
        grown = w[a] * np.exp(0.1 * excess[a] / first[a])
        w[a] = grown / grown.sum() * w[a].sum()
        np.testing.assert_allclose(weights[t][a], w[a] / w[a].sum(), rtol=2e-3)
    assert 0.1 < w[1] < 0.9


@pytest.mark.parametrize("name", ["moco", "modo"])
def test_shares_are_learned_even_where_the_present_tasks_had_no_weight(name):
    balancer = getattr(jaxmtl, name)(3, step_size=1.0)
    state = balancer.init(jnp.zeros(2))
    update = jax.jit(lambda j, s, a: balancer.update(j, s, active=a, independent_grads=(j, j)))
    first = jnp.array([[1.0, 0.0], [2.0, 0.5], [3.0, -0.5]])
    for _ in range(100):
        _, state = update(first, state, jnp.array([True, True, True]))
    np.testing.assert_allclose(state.task_weights, [1, 0, 0], atol=1e-6)
    second = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    for _ in range(200):
        _, state = update(second, state, jnp.array([False, True, True]))
    np.testing.assert_allclose(state.task_weights, [0, 0.2, 0.8], atol=1e-3)


def test_modo_with_a_batch_of_tiny_gradients_stays_on_the_simplex():
    balancer, g = jaxmtl.modo(2), jnp.eye(2)
    _, state = balancer.update(
        1e-5 * g,
        balancer.init(jnp.zeros(2)),
        active=jnp.array([True, False]),
        independent_grads=(-g, g),
    )
    np.testing.assert_array_equal(state.task_weights, [1, 0])


def test_db_mtl_drops_a_task_whose_gradient_or_loss_is_zero():
    balancer = jaxmtl.db_mtl(2, decay_power=0.0)
    state = balancer.init(jnp.zeros(2))
    _, state = balancer.update(jnp.eye(2), state, losses=jnp.ones(2))
    for grads, losses in [(jnp.diag(jnp.array([1.0, 0.0])), [1.0, 1.0]), (jnp.eye(2), [1.0, 0.0])]:
        updates, state = balancer.update(grads, state, losses=jnp.array(losses))
        np.testing.assert_allclose(updates, [1, 0], rtol=1e-6)
        np.testing.assert_allclose(state.preparation.average[1], [0, 1])


def test_a_state_that_does_not_fit_is_refused():
    balancer = jaxmtl.moco(2)
    for grads, params in [
        (jnp.array([1.0, 2.0]), jnp.zeros(2)),
        (jnp.eye(2), jnp.zeros(1)),
        ({"a": jnp.eye(2)}, {"b": jnp.zeros(2)}),
    ]:
        with pytest.raises(ValueError, match="The balancer's state does not fit the gradients"):
            balancer.update(grads, balancer.init(params))
