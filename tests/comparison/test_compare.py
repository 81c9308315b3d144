"""``compare`` on problems of a user's own: with a state, with iterators, what is refused."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

import jaxmtl
from jaxmtl.comparison import _batches, _training
from jaxmtl.comparison._batches import Batches
from jaxmtl.comparison._completed import complete
from jaxmtl.comparison._contestants import contestants
from jaxmtl.comparison._outcome import what_broke
from jaxmtl.comparison._training import Trainer

pytestmark = pytest.mark.usefixtures("quick_compiler")

X = np.linspace(-1, 1, 48, dtype=np.float32)[:, None]
DATA = {"x": X, "sine": np.sin(3 * X), "square": 30 * X**2}
# Two chunks of ten steps, and one of three.
STEPS = 23
QUICK = {"seeds": 3, "steps": STEPS, "progress": False}


def init(key):
    return {
        "trunk": jax.random.normal(key, (1, 6)),
        "heads": {name: jnp.zeros((6, 1)) for name in ("sine", "square")},
    }


def losses_fn(params, batch):
    h = jnp.tanh(batch["x"] @ params["trunk"])
    return {n: jnp.mean((h @ head - batch[n]) ** 2) for n, head in params["heads"].items()}


PROBLEM = jaxmtl.Problem(init=init, losses=losses_fn, train=DATA, batch=16, learning_rate=0.05)


@pytest.fixture(scope="module")
def found():
    methods = ["equal", ("own", lambda T, key: jaxmtl.every(jaxmtl.pcgrad(key, num_tasks=T), 5))]
    return jaxmtl.compare(PROBLEM, methods, **QUICK)


def test_the_least_that_a_user_gives(found):
    assert list(found.metrics) == ["equal", "own"]
    assert found.complete
    assert found.setting.tasks == ("sine", "square")
    for name in ("equal", "own"):
        assert found.metrics[name]["sine"].shape == found.delta_m[name].shape == (3,)
    table = found.table(140)
    assert "sine" in table.splitlines()[1]
    assert "loss ↓" in table
    assert repr(found) == found.table()
    assert found.setting.balanced == ("trunk",)
    assert found.setting.own == ("heads/sine", "heads/square")
    assert "balanced leaves: 1 of 3" in table.splitlines()[0]
    page = found._repr_html_()
    assert page.count("<tr>") == page.count("</tr>") == 4  # header, single tasks, two methods
    assert '<td style="text-align: left">own</td>' in page
    assert all(sentence in table.replace("\n", " ") for sentence in found.verdict)


def test_training_is_what_a_loop_by_hand_gives(found):
    """The first seed of equal weights, step by step, in NumPy's order of batches."""
    keys = jax.random.split(jax.random.key(0), 3)
    rows = np.random.default_rng(0).integers(48, size=(STEPS, 3, 16), dtype=np.int32)[:, 0]
    params = init(keys[0])
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, STEPS))
    state = optimizer.init(params)

    def objective(params, batch):
        losses = losses_fn(params, batch)
        total = sum(losses.values())
        # The trunk descends the mean, each head its own loss.
        frozen = {"trunk": jax.lax.stop_gradient(params["trunk"]), "heads": params["heads"]}
        shared = {"trunk": params["trunk"], "heads": jax.lax.stop_gradient(params["heads"])}
        mean = sum(losses_fn(shared, batch).values()) / 2
        return mean + sum(losses_fn(frozen, batch).values()), total

    for chosen in rows:
        batch = {name: array[chosen] for name, array in DATA.items()}
        grads = jax.grad(objective, has_aux=True)(params, batch)[0]
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    expected = losses_fn(params, DATA)
    for task, value in expected.items():
        np.testing.assert_allclose(found.metrics["equal"][task][0], value, rtol=1e-4)


def test_saved_and_read_again(found, tmp_path):
    paths = found.save(tmp_path / "deep")
    assert [path.name for path in paths] == ["comparison.json", "comparison.png"]
    again = jaxmtl.compare.load(paths[0])
    assert again.table(160) == found.table(160)
    assert again.verdict == found.verdict
    np.testing.assert_allclose(again.delta_m["own"], found.delta_m["own"])
    assert again.plot().get_size_inches()[0] > 5
    with pytest.raises(FileNotFoundError):
        jaxmtl.compare.load(tmp_path / "nothing.json")
    (tmp_path / "other.json").write_text('{"problem": 1}')
    with pytest.raises(ValueError, match="does not hold the numbers of a comparison"):
        jaxmtl.compare.load(tmp_path / "other.json")


def test_an_iterator_of_the_same_batches_gives_the_same_numbers(found):
    rows = np.random.default_rng(0).integers(48, size=(STEPS, 3, 16), dtype=np.int32)

    def batches(seed):
        for chosen in rows[:, seed]:
            yield {name: array[chosen] for name, array in DATA.items()}

    problem = dataclasses.replace(PROBLEM, train=batches, test=DATA)
    streamed = jaxmtl.compare(problem, ["equal"], references=False, **QUICK)
    for task in ("sine", "square"):
        np.testing.assert_allclose(
            streamed.metrics["equal"][task], found.metrics["equal"][task], rtol=1e-6
        )
    assert streamed.delta_m == {}
    shown = streamed.table(120).splitlines()
    assert not any(line.startswith("single-task") for line in shown)
    assert "Δm" not in shown[1]


def draw(key):
    rows = jax.random.randint(key, (16,), 0, 48)
    return {name: jnp.asarray(array)[rows] for name, array in DATA.items()}


def test_batches_from_a_key_are_those_of_a_loop_by_hand():
    """Two of three seeds at a time give the same; the points are new at each step."""
    problem = dataclasses.replace(PROBLEM, train=None, sample=draw, test=DATA)
    drawn = jaxmtl.compare(problem, ["equal"], references=False, **QUICK)
    assert "batch" not in drawn.setting.training
    for seed, key in enumerate(jax.random.split(jax.random.key(1), 3)):
        steps = [jax.jit(draw)(jax.random.fold_in(key, step)) for step in range(STEPS)]
        assert len({float(batch["x"][0, 0]) for batch in steps}) > 3
        replayed = dataclasses.replace(PROBLEM, train=lambda _, steps=steps: steps, test=DATA)
        by_hand = Trainer(complete(replayed), steps=STEPS, seeds=1)
        by_hand.keys = jax.random.split(jax.random.key(0), 3)[seed : seed + 1]
        equal = contestants(by_hand.problem, ["equal"])[0]
        metrics = by_hand.train(equal, 0.05, lambda n: None).metrics[0]
        for task, value in zip(("sine", "square"), metrics, strict=True):
            np.testing.assert_allclose(drawn.metrics["equal"][task][seed], value, rtol=1e-5)
    alone = jaxmtl.compare(problem, ["equal"], references=False, seeds_at_once=1, **QUICK)
    for task, values in drawn.metrics["equal"].items():
        np.testing.assert_allclose(alone.metrics["equal"][task], values, rtol=1e-5)


def batches_in_chunks(steps, **parts):
    problem = dataclasses.replace(PROBLEM, **parts)
    return Batches(problem, steps=steps, seeds=3, at_once=3).lengths


def test_chunks_are_short_however_many_steps(monkeypatch):
    assert batches_in_chunks(1009) == [51] * 19 + [40]
    assert batches_in_chunks(7) == [7]
    assert batches_in_chunks(800) == [40] * 20

    def stream(seed):
        while True:
            yield {"x": np.zeros(100, np.float32)}

    monkeypatch.setattr(_batches, "MOST_BYTES", 5 * 3 * 400)
    assert batches_in_chunks(1009, train=stream, test=DATA) == [5] * 201 + [4]


def with_state(at):
    """Batch statistics, a count of steps and dropout, in plain JAX."""

    def start(key):
        return init(key), {"mean": jnp.zeros(6), "steps": jnp.zeros((), jnp.int32)}

    def losses(params, state, batch, key):
        h = jnp.tanh(batch["x"] @ params["trunk"])
        mean = 0.9 * state["mean"] + 0.1 * jnp.mean(h, axis=0)
        h = (h - mean[None]) * jax.random.bernoulli(key, 0.8, h.shape)
        values = {n: jnp.mean((h @ head - batch[n]) ** 2) for n, head in params["heads"].items()}
        return values, {"mean": jax.lax.stop_gradient(mean), "steps": state["steps"] + 1}

    def metrics(params, state, split):
        h = jnp.tanh(split["x"] @ params["trunk"]) - state["mean"][None]
        values = {n: jnp.mean((h @ head - split[n]) ** 2) for n, head in params["heads"].items()}
        return values | {"sine": state["steps"].astype(jnp.float32)} if at == "steps" else values

    return jaxmtl.Problem(
        init=start, losses=losses, metrics=metrics, train=DATA, batch=16, stateful=True
    )


@pytest.mark.slow
def test_a_network_with_a_state_and_random_keys():
    counted = jaxmtl.compare(with_state("steps"), ["equal"], references=False, **QUICK)
    np.testing.assert_array_equal(counted.metrics["equal"]["sine"], STEPS)
    found = jaxmtl.compare(with_state("end"), ["equal"], references=False, **QUICK)
    one_by_one = jaxmtl.compare(
        with_state("end"), ["equal"], references=False, seeds_at_once=1, **QUICK
    )
    for task, values in found.metrics["equal"].items():
        np.testing.assert_allclose(one_by_one.metrics["equal"][task], values, rtol=1e-5)
        assert len(set(values.tolist())) == 3


@pytest.mark.slow
def test_one_seed_at_a_time_where_there_are_convolutions():
    def losses(params, batch):
        image = batch["x"].reshape(-1, 1, 1, 1)
        h = jax.lax.conv(image, params["kernel"], (1, 1), "SAME")
        return {"a": jnp.mean(h**2), "b": jnp.mean(jnp.sin(h))}

    problem = jaxmtl.Problem(
        init=lambda key: {"kernel": jax.random.normal(key, (2, 1, 1, 1))},
        losses=losses,
        train=DATA,
        batch=4,
    )
    trainer = _training.Trainer(complete(problem), steps=2, seeds=3)
    assert trainer.at_once == 1
    assert _training.Trainer(complete(PROBLEM), steps=2, seeds=3).at_once == 3
    assert _training.Trainer(complete(PROBLEM), steps=2, seeds=4, seeds_at_once=3).at_once == 2


@pytest.mark.slow
def test_a_method_that_diverges_is_a_row_that_says_so():
    def explodes(T, key):
        return jaxmtl.static([1e30] * T)

    def linear(params, batch):
        h = batch["x"] @ params["trunk"]
        return {n: jnp.mean((h @ head - batch[n]) ** 2) for n, head in params["heads"].items()}

    problem = dataclasses.replace(PROBLEM, losses=linear, optimizer=optax.sgd, learning_rate=1e-3)
    found = jaxmtl.compare(problem, ["equal", ("explodes", explodes)], **QUICK)
    assert "explodes: not finite from step 2 on, in 3 of 3 seeds" in found.table(160)
    assert np.all(~np.isfinite(found.metrics["explodes"]["sine"]))
    assert np.all(np.isfinite(found.metrics["equal"]["sine"]))
    assert any("diverged: explodes on 3 of 3 seeds" in sentence for sentence in found.verdict)


@pytest.mark.slow
def test_tasks_may_be_missing():
    def active(batch):
        return {"sine": True, "square": jnp.mean(batch["x"]) > 10}

    problem = dataclasses.replace(PROBLEM, active=active)
    found = jaxmtl.compare(problem, ["equal"], references=False, **QUICK)
    np.testing.assert_array_equal(found.outcomes["equal"].weights[:, 1], 0)


@pytest.mark.slow
def test_the_learning_rate_is_chosen_on_validation():
    problem = dataclasses.replace(PROBLEM, validation=DATA)
    rates = [1e-6, 0.05]
    found = jaxmtl.compare(problem, ["equal"], learning_rates=rates, **QUICK)
    assert found.outcomes["equal"].learning_rate == 0.05
    table = found.table(160)
    assert "1e-06 or 0.05" in table
    assert "learning" in table
    assert "Learning rate: the best on validation." in table
    alone = jaxmtl.compare(PROBLEM, ["equal"], **QUICK)
    for task, values in alone.metrics["equal"].items():
        np.testing.assert_array_equal(found.metrics["equal"][task], values)


def test_interrupted_it_returns_what_has_finished(monkeypatch, capsys):
    train = _training.Trainer.train

    def interrupted(self, contestant, rate, advance):
        if contestant.name == "mgda":
            raise KeyboardInterrupt
        return train(self, contestant, rate, advance)

    monkeypatch.setattr(_training.Trainer, "train", interrupted)
    found = jaxmtl.compare(PROBLEM, ["equal", "mgda"], seeds=1, steps=4)
    assert list(found.metrics) == ["equal"]
    assert not found.complete
    assert "3 of 4 runs finished" in capsys.readouterr().out


def changed(**parts):
    return lambda: jaxmtl.compare(dataclasses.replace(PROBLEM, **parts), ["equal"], **QUICK)


def batches_of(*shapes):
    def train(seed):
        for shape in shapes:
            yield {name: np.ones(shape, np.float32) for name in DATA}

    return train


def stateful(start=lambda key: (init(key), {"steps": jnp.int32(0)}), state=lambda state: state):
    def losses(params, before, batch, key):
        return losses_fn(params, batch), state(before)

    return changed(init=start, losses=losses, stateful=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxmtl.compare("digits"), r"must be a jaxmtl\.Problem"),
        (lambda: jaxmtl.compare(PROBLEM, "equal"), "methods must be a list of names"),
        (lambda: jaxmtl.compare(PROBLEM, []), "methods must be a list of names"),
        (lambda: jaxmtl.compare(PROBLEM, ["mdga"]), "did you mean mgda"),
        (lambda: jaxmtl.compare(PROBLEM, ["equal", "equal"]), "equal come twice"),
        (lambda: jaxmtl.compare(PROBLEM, ["ntk"]), "ntk needs ntk_traces at every step"),
        (lambda: jaxmtl.compare(PROBLEM, ["static"]), "static needs targets"),
        (
            lambda: jaxmtl.compare(PROBLEM, [("mine", lambda T, key: jaxmtl.mgda())]),
            "built with the number of tasks",
        ),
        (lambda: jaxmtl.compare(PROBLEM, [("mine", jaxmtl.mgda())]), "a pair of a name and a"),
        (lambda: jaxmtl.compare(PROBLEM, seeds=0), "seeds must be a whole number"),
        (lambda: jaxmtl.compare(PROBLEM, learning_rates=[0.1]), "chosen on validation"),
        (changed(batch=0), "batch must be a whole number of at least 1"),
        (changed(losses=None), "losses must be a function"),
        (changed(losses=lambda p, b: {"a": jnp.sum(p["trunk"])}), "at least two losses"),
        (changed(losses=lambda p, b: {"a": p["trunk"], "b": 1.0}), "has shape"),
        (changed(maximize={"sine": True}), "maximize must have one entry for each task"),
        (changed(metrics=lambda p, s: {"sine": 1.0}), "metrics must return one scalar for each"),
        (changed(metrics=lambda p, s: {"sine": jnp.ones(2), "square": 1.0}), "must be a scalar"),
        (changed(shared=lambda path: path == "tail"), "No leaf is selected as shared"),
        (changed(shared={"nothing": True}), "does not fit"),
        (changed(train={"x": X, "y": X[:3]}), "first axis runs over the examples"),
        (changed(train=batches_of((2, 1))), "test is needed if batches come from a function"),
        (changed(train=None, sample=draw), "test is needed if batches come from a function"),
        (changed(sample=draw), "needs train.* or sample.*, but it has both"),
        (changed(train=None), "needs train.* or sample.*, but it has neither"),
        (changed(train=None, sample=DATA, test=DATA), r"sample must be a function \(key\)"),
        (
            changed(train=None, sample=lambda: DATA, test=DATA),
            r"sample is called as sample\(key\), but it takes \(\)\.$",
        ),
        (changed(train=batches_of(), test=DATA), "gave no batch"),
        (changed(train=batches_of((2, 1), (3, 1)), test=DATA), "must have the same shapes"),
        (changed(stateful=True), r"it takes \(params, batch\). With stateful=False it would"),
        (
            changed(losses=lambda p, s, b, k: (losses_fn(p, b), s)),
            r"called as losses\(params, batch\), but it takes \(p, s, b, k\). With stateful=True",
        ),
        (changed(metrics=lambda p, s, split: {}), r"metrics is called as metrics\(params, split\)"),
        (changed(train=iter([DATA])), "which can be read only once: pass the function that makes"),
        (changed(prior_values={"sine": 1.0}), "prior_values must have one entry for each task"),
        (changed(standardisation={"a": 1.0}), "standardisation must have one entry for each task"),
        (stateful(lambda key: (1, init(key), {})), "must return a pair.*returned a tuple of 3"),
        (stateful(state=lambda s: {}), "steps was int32.. and became absent"),
        (stateful(state=lambda s: s["steps"] + 1.0), "must return a state of the structure"),
        (stateful(state=lambda s: {"steps": s["steps"] + 1.0}), "int32.. and became float32"),
        (changed(tasks=("a", "b")), "but the losses have the names"),
        (
            changed(losses=lambda p, b: {n: jnp.sum(h) for n, h in p["heads"].items()}),
            "nothing to balance",
        ),
    ],
)
def test_mistakes_are_one_sentence_each(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        z = linen.BatchNorm(use_running_average=not train, momentum=0.9)(linen.Dense(6)(x))
        return {name: linen.Dense(1, name=name)(z) for name in ("sine", "square")}


def of_linen():
    model = Linen()

    def start(key):
        variables = model.init(key, X, train=False)
        return variables["params"], variables["batch_stats"]

    def errors(outputs, batch):
        return {name: jnp.mean((out - batch[name]) ** 2) for name, out in outputs.items()}

    def losses(params, state, batch, key):
        variables = {"params": params, "batch_stats": state}
        outputs, new = model.apply(variables, batch["x"], train=True, mutable=["batch_stats"])
        return errors(outputs, batch), new["batch_stats"]

    def metrics(params, state, split):
        variables = {"params": params, "batch_stats": state}
        return errors(model.apply(variables, split["x"], train=False), split)

    return jaxmtl.Problem(
        init=start, losses=losses, metrics=metrics, train=DATA, batch=16, stateful=True
    )


class Equinox(eqx.Module):
    trunk: eqx.nn.Linear
    heads: dict

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.trunk = eqx.nn.Linear(1, 6, key=keys[0])
        self.heads = {
            n: eqx.nn.Linear(6, 1, key=k) for n, k in zip(("sine", "square"), keys[1:], strict=True)
        }

    def __call__(self, x):
        z = jnp.tanh(self.trunk(x))
        return [head(z) for head in self.heads.values()]


def of_equinox():
    static = eqx.partition(Equinox(jax.random.key(0)), eqx.is_inexact_array)[1]

    def losses(params, batch):
        first, second = jax.vmap(eqx.combine(params, static))(batch["x"])
        return {
            "sine": jnp.mean((first - batch["sine"]) ** 2),
            "square": jnp.mean((second - batch["square"]) ** 2),
        }

    return jaxmtl.Problem(
        init=lambda key: eqx.filter(Equinox(key), eqx.is_inexact_array),
        losses=losses,
        train=DATA,
        batch=16,
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [of_linen, of_equinox])
def test_networks_of_other_libraries(make):
    found = jaxmtl.compare(make(), ["equal", "normalize"], **QUICK)
    assert all(np.all(np.isfinite(sample)) for sample in found.delta_m.values())
    shared = jax.tree.leaves(complete(make()).shared)
    assert any(shared)
    assert not all(shared)


def test_losses_that_wait_for_their_first_turn_did_not_break():
    losses = np.ones((4, 2, 3))
    losses[0, :, 1:], losses[1, :, 2] = np.inf, np.inf
    assert what_broke(losses, ("a", "b", "c")) == ""
    losses[3, 1, 2] = np.inf
    assert what_broke(losses, ("a", "b", "c")) == "not finite from step 3 on, in 1 of 2 seeds: c"
    losses[:, 0, 0] = np.inf
    assert what_broke(losses, ("a", "b", "c")) == "not finite from step 0 on, in 2 of 2 seeds: a"
