"""Which value goes to which task: by name, or in the order of the sorted names, and then said."""

import collections
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from jaxmtl import _task_names

GRADS = jnp.eye(2)


class Holder(NamedTuple):
    both: dict


@pytest.fixture(autouse=True)
def nothing_told_yet():
    _task_names._tell_once.cache_clear()


def two_losses(x):
    return {"depth": x[0] ** 2, "beauty": jnp.sin(x[1])}  # not the sorted order


def plain(balancer, **more):
    state, x = balancer.init(jnp.ones(2)), jnp.ones(2)
    losses, grads = jaxmtl.value_and_task_grads(two_losses)(x)
    return balancer.update(grads, state, losses=losses, **more)


def cheap(balancer, **more):
    return jaxmtl.value_and_balanced_grad(two_losses, balancer)(
        balancer.init(jnp.ones(2)), jnp.ones(2), **more
    )


USES = {
    "static": lambda run: run(jaxmtl.static([1.0, 2.0])),
    "vqgan_adaptive": lambda run: run(jaxmtl.vqgan_adaptive([False, True])),
    "prioritise": lambda run: run(jaxmtl.prioritise(jaxmtl.equal(), np.array([1.0, 2.0]))),
    "warm_up": lambda run: run(jaxmtl.warm_up(jaxmtl.mgda(num_tasks=2), 3, weights=[1.0, 2.0])),
    "preference": lambda run: run(jaxmtl.tchebycheff([1.0, 3.0])),
    "kinds": lambda run: run(jaxmtl.uncertainty(2, kinds=["regression", "classification"])),
    "active": lambda run: run(jaxmtl.equal(), active=[True, False]),
    "jitted active": lambda run: jax.jit(lambda a: run(jaxmtl.equal(), active=a)[1:])(
        np.array([True, False])
    ),
}


@pytest.mark.parametrize("run", [plain, cheap])
@pytest.mark.parametrize("use", USES)
def test_values_by_position_beside_names_in_another_order_are_told_apart(use, run):
    with pytest.warns(UserWarning, match="value 0 to 'beauty', value 1 to 'depth'"):
        USES[use](run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        USES[use](run)  # once


@pytest.mark.parametrize("run", [plain, cheap])
def test_values_by_name_and_names_in_order_are_no_matter(run):
    run(jaxmtl.static({"depth": 1.0, "beauty": 2.0}), active={"depth": True, "beauty": False})
    run(jaxmtl.uncertainty(2, kinds="regression"))
    run(jaxmtl.mgda())
    run(jaxmtl.static([2.0, 2.0]), active=[True, True])  # whichever goes where
    balancer = jaxmtl.static([1.0, 2.0])
    balancer.update(GRADS, balancer.init(jnp.ones(2)), losses={"a": 1.0, "b": 2.0})
    balancer.update(GRADS, balancer.init(jnp.ones(2)), losses=[1.0, 2.0])


def test_losses_keep_the_order_in_which_they_are_written():
    losses, _ = jaxmtl.value_and_task_grads(two_losses)(jnp.ones(2))
    assert list(losses) == ["depth", "beauty"]
    nested, _ = jaxmtl.value_and_task_grads(lambda x: [two_losses(x), {"b": x[0], "a": x[1]}])(
        jnp.ones(2)
    )
    assert [list(part) for part in nested] == [["depth", "beauty"], ["b", "a"]]


def test_names_made_of_digits_are_names():
    numbers = {str(n): n + 1.0 for n in range(12)}
    by_name = jaxmtl.static(numbers)
    grads, state = jnp.eye(12), by_name.init(jnp.ones(12))
    with pytest.warns(UserWarning, match="losses are given by position"):
        by_name.update(grads, state, losses=list(range(12)))
    whole = {int(n): value for n, value in numbers.items()}
    with pytest.raises(ValueError, match=r"0, 1, 10, 11, 2, .* in the balancer's values; 0, 1, 2"):
        by_name.update(grads, state, losses=whole)
    with pytest.raises(ValueError, match="must have the same names"):
        jaxmtl.prioritise(by_name, whole)
    updates, _ = by_name.update(grads, state, losses=numbers)
    in_order = [numbers[name] for name in sorted(numbers)]
    np.testing.assert_array_equal(updates, in_order)


class Losses(NamedTuple):
    policy: float
    value: float


def test_a_loss_may_be_called_value():
    """As a critic's is; a flax nnx variable's ``.value`` is left out of a parameter's name only."""
    kinds, priorities = Losses("balanced", 0.5), {"policy": 1.0, "value": 2.0}
    for balancer, expected in [
        (jaxmtl.with_fixed(jaxmtl.equal(), kinds), [1.0, 0.5]),
        (jaxmtl.prioritise(jaxmtl.static([1.0, 1.0]), priorities), [1.0, 2.0]),
        # 0.9 times 1 and 0.1 times max|g_value| / mean|g_policy| = 2
        (jaxmtl.lr_annealing(2, reference="value"), [1.1, 1.0]),
    ]:
        state = balancer.init(jnp.zeros(2))
        updates, _ = balancer.update(jnp.eye(2), state, losses=Losses(1.0, 2.0))
        shares = np.array(expected) / sum(expected)
        np.testing.assert_allclose(updates / updates.sum(), shares, rtol=1e-6)
    with pytest.raises(ValueError, match=r"The loss 'value' has shape \(2,\)"):
        jaxmtl.value_and_task_grads(lambda p: Losses(p.sum(), p))(jnp.ones(2))
    with pytest.raises(ValueError, match="The loss 'value' has type int32"):
        jaxmtl.value_and_task_grads(lambda p: Losses(p.sum(), jnp.array(1)))(jnp.ones(2))
    with pytest.raises(ValueError, match=r"The loss 'value' has shape \(2,\)"):
        jaxmtl.shared_leaves(lambda p: Losses(p.sum(), p), jnp.ones(2))


def test_by_position_within_with_fixed():
    kinds = {"c": "balanced", "a": "balanced", "b": 0.5}
    with pytest.warns(UserWarning, match="weights are given by position.*value 0 to 'a', value 1"):
        jaxmtl.with_fixed(jaxmtl.static([3.0, 4.0]), kinds)
    with pytest.raises(ValueError, match="but they are a, c in weights and a, d in the balancer"):
        jaxmtl.with_fixed(jaxmtl.static({"a": 3.0, "d": 4.0}), kinds)


def test_by_position_within_with_fixed_beside_losses_in_another_order():
    kinds = {"a": "balanced", "b": "balanced", "c": 0.1}
    balancer = jaxmtl.with_fixed(jaxmtl.prioritise(jaxmtl.normalize(), [1.0, 2.0]), kinds)
    with pytest.warns(UserWarning, match="priorities are given by position"):
        balancer.update(
            jnp.eye(3, 2), balancer.init(jnp.zeros(2)), losses={"b": 1.0, "a": 1.0, "c": 1.0}
        )


@pytest.mark.parametrize(
    "losses",
    [
        collections.defaultdict(float, {"b": 1.0, "a": 2.0}),
        Holder({"b": 1.0, "a": 2.0}),
        [{"b": 1.0, "a": 2.0}],
    ],
    ids=["defaultdict", "named tuple", "list"],
)
def test_dicts_within_other_trees_are_sorted_too(losses):
    balancer = jaxmtl.prioritise(jaxmtl.equal(), [1.0, 2.0])
    with pytest.warns(UserWarning, match="priorities are given by position"):
        balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)), losses=losses)
    ordered = collections.OrderedDict([("b", 1.0), ("a", 2.0)])
    balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)), losses=ordered)
