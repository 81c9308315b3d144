"""The README's examples run as they stand."""

import functools
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import jaxmtl
from tests.references import as_vector, relative_error

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_first_example_runs_as_pasted_and_trains(capsys):
    names = {}
    exec(BLOCKS[0], names)
    assert "depth" in capsys.readouterr().out
    start = {"trunk": {"w": names["w"]}, "depth": jnp.ones(8), "labels": jnp.ones(8)}
    for name, loss in names["losses_fn"](start, names["batch"]).items():
        assert names["losses"][name] < loss, name
    assert np.all(optax.tree.get(names["opt_state"], "task_weights") > 0)
    (lean,) = [block for block in BLOCKS if 'memory="lean"' in block]
    exec(lean, names)
    assert jax.tree.structure(names["grad"]) == jax.tree.structure(names["params"])
    assert np.all(names["state"].task_weights > 0)
    (in_pieces,) = [block for block in BLOCKS if "optax.microbatch(" in block]
    exec(in_pieces, names)
    for i, task in enumerate(("depth", "labels")):
        whole = jax.grad(lambda p, task=task: names["losses_fn"](p, names["batch"])[task])
        expected = as_vector(whole(names["params"]))
        grad = as_vector(jax.tree.map(lambda leaf, i=i: leaf[i], names["grads"]))
        assert relative_error(grad, expected) < 1e-5


def test_one_loss_an_example_pays_for_no_other():
    (block,) = [block for block in BLOCKS if "jaxmtl.per_example(" in block]
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 6), (4,)))
    names = {"jax": jax, "jaxmtl": jaxmtl, "params": jnp.zeros(6), "x": x, "y": y}
    exec(block, names)
    rows = -2 * np.asarray(y, np.float64)[:, None] * np.asarray(x)
    assert np.any(rows @ rows.T < 0)
    assert np.all(rows @ np.asarray(names["grad"]) > -1e-5)


@pytest.mark.slow
def test_the_comparison_of_one_s_own(tmp_path, monkeypatch, capsys):
    (block,) = [block for block in BLOCKS if "jaxmtl.compare(" in block]
    names = {}
    exec(BLOCKS[0].partition("balancer =")[0], names)
    monkeypatch.chdir(tmp_path)
    short = functools.partial(jaxmtl.compare, steps=20, seeds=3, progress=False)
    monkeypatch.setattr(jaxmtl, "compare", short)
    exec(block, names | {"init": lambda key: names["params"], "arrays": names["batch"]})
    assert "upgrad, every 10" in capsys.readouterr().out
    assert (tmp_path / "results" / "comparison.json").exists()


X = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2, name="head")(x)


def losses_of(model, batch):
    outputs = jax.vmap(model)(batch) if isinstance(model, eqx.Module) else model(batch)
    return {"big": jnp.mean((outputs[:, 0] - 9) ** 2), "small": jnp.mean(outputs[:, 1] ** 2)}


def stand_ins(framework):
    """What a block takes from its surroundings, and one call of its step on them."""
    balancer = jaxmtl.uncertainty(2)
    names = {"jax": jax, "optax": optax, "jaxmtl": jaxmtl, "balancer": balancer}
    optimizer = optax.chain(balancer, optax.adam(0.1))
    if framework == "nnx":
        names |= {"losses_of": losses_of, "model": nnx.Linear(3, 2, rngs=nnx.Rngs(0))}
        return names, lambda n: n["step"](n["model"], n["optimizer"], X)
    if framework == "equinox":
        model = eqx.nn.Linear(3, 2, key=jax.random.key(0))
        state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
        names |= {"losses_of": losses_of, "optimizer": optimizer, "carry": (model, state)}

        def call(n):
            *n["carry"], losses = n["step"](*n["carry"], X)
            return losses

        return names, call
    model = Linen()
    params = model.init(jax.random.key(0), X)["params"]
    names["losses_fn"] = lambda p, x: losses_of(lambda x: model.apply({"params": p}, x), x)

    def call(n):
        create = n["TrainState"].create
        n.setdefault("carry", create(apply_fn=model.apply, params=params, tx=optimizer))
        n["carry"], losses = n["step"](n["carry"], X)
        return losses

    return names, call


@pytest.mark.parametrize(
    ("framework", "mark"),
    [("nnx", "nnx.Optimizer"), ("linen", "train_state"), ("equinox", "import equinox")],
)
def test_the_blocks_for_the_frameworks_train(framework, mark):
    (code,) = [block for block in BLOCKS if mark in block]
    names, call = stand_ins(framework)
    exec(code, names)
    history = [call(names) for _ in range(40)]
    for name in ("big", "small"):
        assert history[-1][name] < history[0][name], name


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (Path(__file__).parent.parent / target).exists(), target
