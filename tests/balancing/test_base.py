"""What the transformation around a method refuses, and how it fits into optax."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
STACKED = {"w": jnp.ones((4, 2, 3)), "b": jnp.ones((4, 3))}


def refuse(grads, message, params=PARAMS, **kwargs):
    balancer = jaxmtl.equal()
    with pytest.raises(ValueError, match=message):
        balancer.update(grads, balancer.init(PARAMS), params, **kwargs)


def test_gradients_that_were_never_stacked():
    refuse(PARAMS, "never stacked: every leaf has its parameter's own shape")
    refuse(PARAMS, "disagree on the number of tasks: 'b' has a first axis of 3, 'w' of 2", None)
    refuse({"w": jnp.ones(())}, "never stacked: the leaf 'w' is a scalar", None)


def test_leaves_that_do_not_fit():
    refuse(
        {**STACKED, "b": jnp.ones((5, 3))}, "disagree on the number of tasks: 'b' .* 5, 'w' of 4"
    )
    refuse({**STACKED, "b": jnp.ones((4, 2))}, r"'b' has shape \(4, 2\), but its parameter")
    refuse({**STACKED, "b": jnp.ones((4, 3), int)}, "'b' has type int32")
    refuse({}, "have no leaves")
    refuse({"w": jnp.ones((0, 2))}, "task axis of length 0", None)


def test_vectors_that_do_not_fit():
    refuse(STACKED, "losses holds 3 values, but there are 4 tasks", losses=[1.0, 2.0, 3.0])
    refuse(STACKED, "losses must hold one scalar per task", losses={"a": jnp.ones((2, 2))})
    refuse(STACKED, "active holds 2 values, but there are 4 tasks", active=[True, False])


def test_every_message_names_a_cure():
    balancer = jaxmtl.equal()
    with pytest.raises(ValueError, match="never stacked") as error:
        balancer.update(PARAMS, balancer.init(PARAMS), PARAMS)
    assert "jaxmtl.value_and_task_grads(losses_fn)(params" in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: jaxmtl.mgda(num_tasks=0),
            "must be a whole number of at least 1, but it is 0",
        ),
        (lambda: jaxmtl.gradnorm(2, alpha=np.float32(-1)), "alpha must be a number of at least 0"),
        (lambda: jaxmtl.gradnorm(2, alpha="1.5"), "alpha must be a number of at least 0"),
        (lambda: jaxmtl.mgda(max_iterations=2.5), "max_iterations must be a whole number"),
        (lambda: jaxmtl.static("abc"), "weights must hold one real number per task"),
        (lambda: jaxmtl.static([1e39, 1.0]), "weights must be finite in float32"),
        (lambda: jaxmtl.prior_loss([1e-40, 1.0]), "reciprocals that are finite in float32"),
        (lambda: jaxmtl.normalize(initial_losses=[1.0, 1.0]), "are for the rate adjustment"),
        (lambda: jaxmtl.gradnorm(2, optimizer=0.1), "optimizer must be an optax transformation"),
        (lambda: jaxmtl.gradnorm(2.0), "num_tasks must be a whole number"),
        (lambda: jaxmtl.initial_loss(True), "num_tasks must be a whole number"),
        (
            lambda: jaxmtl.gradnorm(2, alpha=-1.0),
            "alpha must be a number of at least 0, but it is -1.0",
        ),
        (lambda: jaxmtl.normalize(alpha=-0.1), "alpha must be a number of at least 0"),
        (lambda: jaxmtl.normalize(alpha=0.5), "needs their number"),
        (lambda: jaxmtl.pcgrad(0, reduction="max"), "reduction must be one of sum, mean"),
        (lambda: jaxmtl.pcgrad("seed"), "key must be one JAX random key"),
        (lambda: jaxmtl.pcgrad(jnp.ones(3)), "key must be one JAX random key"),
        (lambda: jaxmtl.mgda(normalizer="l1"), r"normalizer must be one of none, l2, loss, loss\+"),
        (lambda: jaxmtl.mgda(tolerance=-1.0), "tolerance must be a number of at least 0"),
        (
            lambda: jaxmtl.mgda(max_iterations=0),
            "max_iterations must be a whole number of at least 1",
        ),
        (lambda: jaxmtl.static([1.0, float("nan")]), "weights must be finite"),
        (lambda: jaxmtl.static([]), "weights must hold one scalar per task"),
        (lambda: jaxmtl.static(jnp.ones((2, 2))), "weights must hold one scalar per task"),
        (lambda: jaxmtl.prior_loss([1.0, 0.0]), "values must be above 0.0 for every task"),
        (lambda: jaxmtl.initial_loss(3, [1.0, 2.0]), "values holds 2 values, but there are 3"),
        (
            lambda: jaxmtl.initial_loss(2, num_batches=0),
            "num_batches must be a whole number of at least 1",
        ),
        (lambda: jaxmtl.uncertainty(2, kinds="poisson"), "kinds must be one of regression"),
        (lambda: jaxmtl.uncertainty(2, kinds=["regression"]), "kinds holds 1 values"),
        (lambda: jaxmtl.gradnorm(2, initial_losses=[1.0, -1.0]), "initial_losses must be above"),
        (lambda: jaxmtl.prioritise(jaxmtl.equal(), [1.0, -1.0]), "priorities must be above 0.0"),
        (lambda: jaxmtl.prioritise(jaxmtl.uncertainty(3), [1.0, 1.0]), "built for 3 tasks"),
        (lambda: jaxmtl.on_shared(jaxmtl.equal(), True, heads="none"), "heads must be one of own"),
        (lambda: jaxmtl.solvers.min_norm(jnp.ones((2, 3))), r"shape \(T, T\), but it has \(2, 3\)"),
    ],
)
def test_misuse_is_refused_when_the_balancer_is_built(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_weights_and_state_reach_through_chains():
    optimizer = optax.named_chain(
        ("balance", jaxmtl.static({"a": 2.0, "b": 1.0})),
        ("clip", optax.clip_by_global_norm(10.0)),
        ("adam", optax.adam(0.1)),
    )
    state = optimizer.init(jnp.zeros(2))
    assert np.all(optax.tree.get(state, "task_weights") == 0)
    _, state = jax.jit(optimizer.update)(jnp.eye(2), state, jnp.zeros(2))
    np.testing.assert_array_equal(optax.tree.get(state, "task_weights"), [2, 1])


def test_losses_by_name_are_read_in_sorted_order():
    balancer = jaxmtl.real_time_loss(num_tasks=2)
    losses = {"zebra": jnp.array(4.0), "ant": jnp.array(2.0)}
    _, state = balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)), losses=losses)
    np.testing.assert_allclose(state.task_weights, [0.5, 0.25])


@pytest.mark.parametrize(
    "make",
    [
        lambda names: jaxmtl.static(dict.fromkeys(names, 1.0)),
        lambda names: jaxmtl.prior_loss(dict.fromkeys(names, 1.0)),
        lambda names: jaxmtl.initial_loss(2, dict.fromkeys(names, 1.0)),
        lambda names: jaxmtl.uncertainty(2, kinds=dict.fromkeys(names, "regression")),
        lambda names: jaxmtl.gradnorm(2, initial_losses=dict.fromkeys(names, 1.0)),
        lambda names: jaxmtl.normalize(
            alpha=1.0, num_tasks=2, initial_losses=dict.fromkeys(names, 1.0)
        ),
        lambda names: jaxmtl.prioritise(jaxmtl.equal(), dict.fromkeys(names, 1.0)),
    ],
)
def test_a_name_that_is_no_loss_is_noticed(make):
    params, grads, losses = jnp.zeros(2), jnp.eye(2), {"depth": 1.0, "labels": 2.0}
    right, wrong = make(["labels", "depth"]), make(["depht", "labels"])
    right.update(grads, right.init(params), losses=losses)
    wrong.update(grads, wrong.init(params), losses=jnp.ones(2))
    with pytest.raises(
        ValueError, match="depht, labels in the balancer's values; depth, labels in losses"
    ):
        wrong.update(grads, wrong.init(params), losses=losses)


def test_names_of_priorities_and_of_the_method_must_agree():
    with pytest.raises(ValueError, match="are a, b in the balancer's values; a, c in priorities"):
        jaxmtl.prioritise(jaxmtl.static({"a": 1, "b": 2}), {"a": 1, "c": 2})


def test_leaves_that_are_none_stay_none():
    balancer = jaxmtl.mgda()
    grads = {"w": jnp.eye(2), "frozen": None}
    updates, _ = balancer.update(grads, balancer.init({"w": jnp.ones(2), "frozen": None}))
    assert updates["frozen"] is None
    np.testing.assert_allclose(updates["w"], [0.5, 0.5])


def test_a_balancer_of_ones_own():
    def update(given, state):
        chex.assert_shape(given.gramian, (2, 2))
        return jnp.diagonal(given.gramian), state + 1

    own = jaxmtl.make_balancer(
        jaxmtl.Weighting(lambda dtype: jnp.zeros((), dtype), update, frozenset({"gramian"}), 2)
    )
    updates, state = own.update(2 * jnp.eye(2), own.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [8, 8])
    assert state.method == 1


@pytest.mark.parametrize(
    ("weighting", "message"),
    [
        (jaxmtl.Weighting(lambda dtype: (), max, frozenset({"gram"}), 2), r"holds \['gram'\]"),
        (
            jaxmtl.Weighting(lambda dtype: (), lambda g, s: (jnp.ones((2, 1)), s), frozenset(), 2),
            r"of shape \(T,\), here \(2,\), but they have shape \(2, 1\)",
        ),
    ],
)
def test_mistakes_in_a_balancer_of_ones_own(weighting, message):
    def use():
        own = jaxmtl.make_balancer(weighting)
        return own.update(jnp.eye(2), own.init(jnp.zeros(2)))

    with pytest.raises(ValueError, match=message):
        use()


def test_a_method_that_overflows_is_visible_and_keeps_its_state():
    def update(given, state):
        return given.losses * 1e30 * 1e30, state * jnp.inf

    own = jaxmtl.make_balancer(
        jaxmtl.Weighting(lambda dtype: jnp.ones((), dtype), update, frozenset({"losses"}), 2)
    )
    updates, state = own.update(jnp.eye(2), own.init(jnp.zeros(2)), losses=jnp.ones(2))
    assert np.all(np.isnan(updates))
    assert state.method == 1


def test_tiny_first_losses_do_not_freeze_the_rates():
    balancer = jaxmtl.gradnorm(2)
    state = balancer.init(jnp.zeros(2))
    for losses in ([1e-35, 1.0], [1e4, 1.0], [1e4, 1.0]):
        _, state = balancer.update(jnp.eye(2), state, losses=jnp.array(losses))
    assert np.all(np.isfinite(state.method.weights))
    assert state.method.weights[0] > 1


def test_names_are_compared_wherever_they_come_from():
    class Losses(NamedTuple):
        seg: float
        depth: float

    balancer = jaxmtl.static({"seg": 10.0, "depth": 1.0})
    state = balancer.init(jnp.zeros(2))
    with pytest.raises(ValueError, match="depth, seg in the balancer's values; seg, depth in loss"):
        balancer.update(jnp.eye(2), state, losses=Losses(1.0, 2.0))
    with pytest.raises(ValueError, match="depth, seg in losses; a, seg in active"):
        jaxmtl.equal().update(
            jnp.eye(2), state, losses={"seg": 1.0, "depth": 1.0}, active={"seg": True, "a": False}
        )


def test_masks_of_numbers_are_refused():
    refuse(STACKED, "active must be a mask of bools", active=[0, 1, 2, 3])


@pytest.mark.parametrize(
    "wrap", [lambda b: jaxmtl.on_shared(b, True), lambda b: jaxmtl.prioritise(b, [1])]
)
@pytest.mark.parametrize("balancer", [optax.adam(0.1), jaxmtl.mgda])
def test_combinators_take_balancers_only(wrap, balancer):
    with pytest.raises(
        ValueError, match=r"balancer must be a jaxmtl.Balancer, such as jaxmtl.mgda"
    ):
        wrap(balancer)


def test_update_is_not_differentiated_through_the_losses():
    def objective(losses):
        balancer = jaxmtl.real_time_loss()
        return jnp.sum(balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)), losses=losses)[0])

    np.testing.assert_array_equal(jax.grad(objective)(jnp.array([1.0, 2.0])), [0, 0])
