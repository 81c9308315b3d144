"""The flat dict for loggers: its names, and its numbers against NumPy."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state

import jaxmtl
from tests.references import gradients, min_norm_weights

pytestmark = pytest.mark.usefixtures("quick_compiler")

LOSSES = {"aux": {"depth": jnp.array(2.0), "edges": jnp.array(0.5)}, "labels": jnp.array(3.0)}
NAMES = ["aux/depth", "aux/edges", "labels"]


def state_of(*weights):
    """The state of a balancer after a step with these weights."""
    state = jaxmtl.equal(num_tasks=len(weights)).init(jnp.zeros(2))
    return state._replace(task_weights=jnp.array(weights, jnp.float32))


def test_numbers_before_and_after_per_task_against_numpy():
    optimizer = optax.chain(
        jaxmtl.per_task(optax.snapshot("raw_norm", optax.tree.norm), 3),
        jaxmtl.per_task(optax.clip_by_global_norm(1.0), 3),
        jaxmtl.report_only(jaxmtl.normalize(num_tasks=3)),
        optax.snapshot("update_norm", optax.tree.norm),
        optax.sgd(0.1),
    )
    j = 3 * gradients(0, 3, 8, spread=1, kind="conflicting")
    params = jnp.zeros(8)

    @jax.jit
    def step(state, grads):
        _, state = optimizer.update(grads, state, params, losses=LOSSES)
        return state, jaxmtl.scalars(state, LOSSES)

    state, traced = step(optimizer.init(params), jnp.asarray(j, jnp.float32))
    raw = np.linalg.norm(j, axis=1)
    seen = j / np.maximum(raw, 1)[:, None]
    norms = np.linalg.norm(seen, axis=1)
    unit = seen / norms[:, None]
    update = (1 / norms) @ seen
    cosines = unit @ unit.T
    of_pairs = cosines[np.triu_indices(3, 1)]
    ratios = [norms[a] / norms[b] for a, b in [(0, 1), (0, 2), (1, 2)]]
    assert raw.max() > 1 > raw.min()
    expected = {
        "conflicts": np.mean(of_pairs < 0),
        "norm_ratio": norms.max() / norms.min(),
        "similarity": np.mean([2 * r / (1 + r**2) for r in ratios]),
        "stationarity": np.linalg.norm(min_norm_weights(unit) @ unit),
        "update_norm": np.linalg.norm(update),
        "cosine/aux/depth-aux/edges": cosines[0, 1],
        "cosine/aux/depth-labels": cosines[0, 2],
        "cosine/aux/edges-labels": cosines[1, 2],
    }
    for i, name in enumerate(NAMES):
        expected[f"loss/{name}"] = [2, 0.5, 3][i]
        expected[f"weight/{name}"] = 1 / norms[i]
        expected[f"share/{name}"] = 1 / norms[i] / np.sum(1 / norms)
        expected[f"norm/{name}"] = norms[i]
        expected[f"raw_norm/{name}"] = raw[i]
        expected[f"update_cosine/{name}"] = unit[i] @ update / np.linalg.norm(update)
        expected[f"broken/{name}"] = 0
    for found in (traced, jaxmtl.scalars(state, LOSSES)):
        assert set(found) == set(expected)
        assert all(np.shape(value) == () for value in found.values())
        for name, value in found.items():
            assert float(value) == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name
    assert json.dumps({name: float(value) for name, value in found.items()})

    kept = found
    state, traced = step(state, jnp.asarray(j, jnp.float32).at[1, 2].set(jnp.nan))
    for found in (traced, jaxmtl.scalars(state, LOSSES)):
        assert [float(found[f"broken/{name}"]) for name in NAMES] == [0, 1, 0]
        assert np.isnan(found["norm/aux/edges"])
        assert np.isnan(found["raw_norm/aux/edges"])
        assert float(found["cosine/aux/depth-labels"]) == pytest.approx(cosines[0, 2], rel=1e-4)
        assert all(found[f"weight/{name}"] == kept[f"weight/{name}"] for name in NAMES)


class Losses(NamedTuple):
    policy: float
    value: float


@pytest.mark.parametrize(
    ("losses", "names"),
    [
        ({"b": 1.0, "a": 2.0}, ["a", "b"]),
        ([1.0, 2.0], ["0", "1"]),
        (np.array([1.0, 2.0]), ["0", "1"]),
        ({"all": jnp.array([1.0, 2.0])}, ["0", "1"]),
        ({"aux": [1.0, 2.0]}, ["aux/0", "aux/1"]),
        (Losses(1.0, 2.0), ["policy", "value"]),
        (7.0, ["0"]),
    ],
)
def test_names_come_from_the_losses(losses, names):
    weights = [3.0, 1.0][: len(names)]
    found = jaxmtl.scalars(state_of(*weights), losses)
    rows = ("loss", "weight", "share")
    assert list(found) == [f"{row}/{name}" for row in rows for name in names]
    assert [found[f"weight/{name}"] for name in names] == weights
    shares = [0.75, 0.25] if len(names) == 2 else [1.0]
    assert [found[f"share/{name}"] for name in names] == shares
    leaves = jax.tree.leaves(losses)
    assert [found[f"loss/{name}"] for name in names] == np.ravel(leaves).tolist()


def test_shares_without_a_sum():
    for weights, shares in [((0, 0), (0, 0)), ((1, -1), (np.inf, -np.inf)), ((3, -1), (1.5, -0.5))]:
        found = jaxmtl.scalars(state_of(*weights), [1.0, np.inf])
        assert (found["share/0"], found["share/1"]) == shares
        assert found["loss/1"] == np.inf


def places_of(tree):
    """The first task's weight at each place."""
    found = jaxmtl.scalars(tree, [1.0, 2.0])
    return {name: value for name, value in found.items() if name.endswith("weight/0")}


def test_several_balancers_are_told_apart_by_their_places():
    a, b, c = state_of(1, 9), state_of(2, 9), state_of(3, 9)
    for tree, expected in [
        (a, {"": 1}),
        ({"generator": (a, ())}, {"": 1}),
        ((a, b), {"0/": 1, "1/": 2}),
        ({"d": (0, [a]), "g": (0, [b])}, {"d/": 1, "g/": 2}),
        (
            {"out": {"d": (a, {"in": b}), "e": (c, 0.0)}},
            {"d/0/": 1, "d/1/": 2, "e/": 3},
        ),
        ((optax.MaskedState((a,)), optax.MaskedState((b,))), {"0/": 1, "1/": 2}),
    ]:
        assert places_of(tree) == {f"{place}weight/0": w for place, w in expected.items()}


def test_in_a_partition_every_part_has_its_names():
    def part(weights):
        norm = optax.snapshot("update_norm", optax.tree.norm)
        return optax.chain(jaxmtl.static(weights), norm, optax.sgd(1.0))

    params = {"trunk": jnp.zeros(2), "head": jnp.zeros(2)}
    optimizer = optax.partition(
        {"slow": part([1.0, 3.0]), "fast": part([2.0, 2.0])}, {"trunk": "slow", "head": "fast"}
    )
    grads = {"trunk": jnp.eye(2), "head": jnp.eye(2)}
    _, state = optimizer.update(grads, optimizer.init(params), params, losses=[1.0, 2.0])
    found = jaxmtl.scalars(state, [1.0, 2.0])
    assert len(found) == 2 + 2 * (2 + 2 + 1)
    assert [found[f"slow/{key}"] for key in ("weight/0", "weight/1", "share/1")] == [1, 3, 0.75]
    assert [found[f"fast/{key}"] for key in ("weight/0", "weight/1", "share/1")] == [2, 2, 0.5]
    assert found["slow/update_norm"] == pytest.approx(np.sqrt(10))
    assert found["fast/update_norm"] == pytest.approx(np.sqrt(8))


def test_states_within_wrappers_and_training_states():
    balancer = jaxmtl.report_only(jaxmtl.equal(num_tasks=2))
    params = {"w": jnp.zeros(2), "v": jnp.zeros(3)}
    snapshot = optax.snapshot("moments", lambda tree: tree)  # no scalar
    chain = optax.chain(balancer, snapshot, optax.adam(0.1))
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    states = [
        optax.named_chain(("balance", balancer), ("rest", optax.adam(0.1))).init(params),
        optax.MultiSteps(chain, 2).init(params),
        optax.masked(chain, {"w": True, "v": False}).init(params),
        optax.apply_if_finite(chain, 5).init(params),
        train_state.TrainState.create(apply_fn=len, params=params, tx=chain),
        nnx.Optimizer(model, chain, wrt=nnx.Param),
    ]
    for state in states:
        found = jaxmtl.scalars(state, [1.0, 2.0])
        assert len(found) == 6 + 2 + 1 + 2 + 2 + 4
        assert all(float(found[name]) == 0 for name in found if "loss" not in name)


def test_states_stacked_by_vmap_are_read_within_it():
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), state_of(1, 3), state_of(2, 2))
    found = jax.vmap(lambda state: jaxmtl.scalars(state, [1.0, 2.0]))(states)
    assert found["share/1"].tolist() == [0.75, 0.5]


def test_what_the_state_does_not_hold_is_left_out():
    assert set(jaxmtl.scalars(jaxmtl.mgda().init(jnp.zeros(2)), [1.0, 2.0])) == {"loss/0", "loss/1"}


def test_bad_input_gets_a_sentence():
    two = state_of(1, 2)
    for state, losses, message in [
        (optax.adam(0.1).init(jnp.zeros(2)), [1.0, 2.0], "but it holds none: pass the state of"),
        (two, [1.0, 2.0, 3.0], r"losses holds 3 values, but the task weights of the balancer have"),
        ((two, state_of(1)), [1.0, 2.0], r"of the balancer at '1' have shape \(1,\): pass the"),
        (jax.tree.map(lambda leaf: jnp.stack([leaf]), two), [1.0, 2.0], "Where jax.vmap made"),
        (two, {"a": {"b": 1.0}, "a/b": 2.0}, "Two scalars would have the name 'loss/a/b'"),
        ({"a": {"b": two, "c": two}, "a/b": two}, [1.0, 2.0], "have the name 'a/b/weight/0'"),
        (two, {"a": "1.0"}, "losses must hold one real number per task"),
        (two, {}, "losses must hold one scalar per task"),
    ]:
        with pytest.raises(ValueError, match=message):
            jaxmtl.scalars(state, losses)
