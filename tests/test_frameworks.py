"""One training step in every framework, against the same network by hand in NumPy float64.

Each trains Linear, normalisation, dropout and two heads: statistics that must advance once a step,
and one dropout mask for all tasks.
"""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state

import jaxmtl

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 3)).astype(np.float32)
Y = {"big": 10 * np.sin(X @ [1.0, 2.0, -1.0]) + 20, "small": 0.1 * np.cos(X @ [0.0, 1.0, 2.0])}
BATCH = {"x": X, **{name: y.astype(np.float32) for name, y in Y.items()}}
RATE, KEEP, WIDTH, EPS, MOMENTUM = 0.03, 0.75, 8, 1e-5, 0.9


def make_balancer(shared=lambda path: "heads" not in path):
    """The sum of the logarithms, the second twice; each head has its own gradient."""
    weighted = jaxmtl.prioritise(jaxmtl.real_time_loss(), {"big": 1.0, "small": 2.0})
    return jaxmtl.on_shared(weighted, shared)


def make_optimizer():
    """SGD on the gradient that the balancer makes of the stacked ones."""
    return optax.chain(make_balancer(), optax.sgd(RATE))


def squared_errors(outputs, batch):
    return {name: jnp.mean((outputs[name] - batch[name]) ** 2) for name in outputs}


def step_by_hand(p, dropped, axis):
    """Losses, parameters after the step, and the mean and variance of the normalised layer.

    Arguments:
      p: the parameters, "w" (3, WIDTH), "b", "scale", "bias" and one vector a head, in float64.
      dropped: (32, WIDTH) mask of the features that survive.
      axis: 0 normalises over the batch, 1 over the features.
    """
    x, mask = X.astype(np.float64), dropped / KEEP
    h = x @ p["w"] + p["b"]
    mean, var = h.mean(axis, keepdims=True), h.var(axis, keepdims=True)
    z = (h - mean) / np.sqrt(var + EPS)
    features = (z * p["scale"] + p["bias"]) * mask
    losses, new, shared = {}, {}, []
    for name in ("big", "small"):
        errors = features @ p[name] - BATCH[name]
        losses[name] = np.mean(errors**2)
        new[name] = p[name] - RATE * features.T @ (2 * errors / len(x))
        d = np.outer(2 * errors / len(x), p[name]) * mask
        dz = d * p["scale"]
        dh = dz - dz.mean(axis, keepdims=True) - z * (dz * z).mean(axis, keepdims=True)
        dh = dh / np.sqrt(var + EPS)
        shared.append({"w": x.T @ dh, "b": dh.sum(0), "scale": (d * z).sum(0), "bias": d.sum(0)})
    for key in ("w", "b", "scale", "bias"):
        new[key] = p[key].copy()
        weights = 1 / losses["big"], 2 / losses["small"]
        new[key] -= RATE * sum(w * g[key] for w, g in zip(weights, shared, strict=True))
    return losses, new, (mean, var)


def check_step(before, after, losses, features, axis=0):
    """Compare a step with the one by hand, whose dropout mask is read off the features."""
    expected_losses, expected, statistics = step_by_hand(before, np.asarray(features) != 0, axis)
    for name, value in expected_losses.items():
        np.testing.assert_allclose(losses[name], value, rtol=1e-4)
    for key, value in expected.items():
        np.testing.assert_allclose(after[key], value, rtol=1e-3, atol=1e-5, err_msg=key)
    return statistics


def check_descent(history):
    """Both losses fall to less than half, the average of ten steps against that of ten."""
    for name in ("big", "small"):
        curve = np.array([losses[name] for losses in history])
        assert curve[-10:].mean() < 0.5 * curve[:10].mean(), name


def as_double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


# flax NNX: nnx.Optimizer forwards the losses; nnx.merge(copy=True) inside the function.


class Network(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, WIDTH, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, momentum=MOMENTUM, epsilon=EPS, rngs=rngs)
        self.dropout = nnx.Dropout(1 - KEEP, rngs=rngs)
        self.heads = nnx.Dict(
            {name: nnx.Linear(WIDTH, 1, use_bias=False, rngs=rngs) for name in ("big", "small")}
        )

    def features(self, x):
        return self.dropout(self.norm(self.linear(x)))

    def __call__(self, x):
        features = self.features(x)
        return {name: head(features)[:, 0] for name, head in self.heads.items()}


def nnx_losses(graphdef, rest, batch):
    def losses_fn(params):
        model = nnx.merge(graphdef, params, rest, copy=True)
        return squared_errors(model(batch["x"]), batch), nnx.state(model, nnx.Not(nnx.Param))

    return losses_fn


@nnx.jit
def nnx_step(model, optimizer, batch):
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    evaluate = jaxmtl.value_and_task_grads(nnx_losses(graphdef, rest, batch), has_aux=True)
    (losses, rest), grads = evaluate(params)
    nnx.update(model, rest)
    optimizer.update(model, grads, losses=losses)
    return losses


def read_nnx(model):
    heads = {name: head.kernel[...][:, 0] for name, head in model.heads.items()}
    linear, norm = model.linear, model.norm
    return as_double(
        {
            "w": linear.kernel[...],
            "b": linear.bias[...],
            "scale": norm.scale[...],
            "bias": norm.bias[...],
            **heads,
        }
    )


def test_nnx():
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, make_optimizer(), wrt=nnx.Param)
    mean, var, history = np.zeros(WIDTH), np.ones(WIDTH), []
    for step in range(100):
        if step < 3:
            before, features = read_nnx(model), nnx.clone(model).features(X)
        history.append(jax.device_get(nnx_step(model, optimizer, BATCH)))
        if step < 3:
            statistics = check_step(before, read_nnx(model), history[-1], features)
            mean = MOMENTUM * mean + (1 - MOMENTUM) * statistics[0][0]
            var = MOMENTUM * var + (1 - MOMENTUM) * statistics[1][0]
            np.testing.assert_allclose(model.norm.mean[...], mean, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(model.norm.var[...], var, rtol=1e-4)
            assert model.dropout.rngs.count[...] == step + 1
    check_descent(history)
    np.testing.assert_array_equal(optimizer.step[...], 100)


def test_nnx_by_the_cheap_route():
    """As on the site: the balancer's state is apart, and the optimizer a plain one."""
    model, balancer = Network(nnx.Rngs(0)), make_balancer()
    optimizer = nnx.Optimizer(model, optax.sgd(RATE), wrt=nnx.Param)
    state = balancer.init(nnx.state(model, nnx.Param))

    @nnx.jit
    def step(model, optimizer, state, batch):
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        losses_fn = nnx_losses(graphdef, rest, batch)
        evaluate = jaxmtl.value_and_balanced_grad(losses_fn, balancer, has_aux=True)
        (losses, rest), grad, state = evaluate(state, params)
        nnx.update(model, rest)
        optimizer.update(model, grad)
        return state, losses

    for number in range(2):
        before, features = read_nnx(model), nnx.clone(model).features(X)
        state, losses = step(model, optimizer, state, BATCH)
        check_step(before, read_nnx(model), losses, features)
        assert model.dropout.rngs.count[...] == number + 1


def test_nnx_dropout_draws_one_mask_for_all_tasks_and_another_one_each_step():
    model = Network(nnx.Rngs(0))
    model.heads["small"].kernel[...] = model.heads["big"].kernel[...]
    twice = {"x": X, "big": BATCH["big"], "small": BATCH["big"]}
    rows = []
    for _ in range(2):
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        evaluate = jax.jit(
            jaxmtl.value_and_task_grads(nnx_losses(graphdef, rest, twice), has_aux=True)
        )
        (_, rest), grads = evaluate(params)
        nnx.update(model, rest)
        kernel = np.asarray(grads["linear"]["kernel"][...])
        np.testing.assert_array_equal(kernel[0], kernel[1])
        rows.append(kernel[0])
    assert np.any(rows[0] != rows[1])


# flax Linen: TrainState.apply_gradients drops the losses, a subclass passes them on.


class LinenNetwork(nn.Module):
    @nn.compact
    def __call__(self, x, only_features=False):
        h = nn.Dense(WIDTH, name="linear")(x)
        h = nn.BatchNorm(False, momentum=MOMENTUM, epsilon=EPS, name="norm")(h)
        h = nn.Dropout(1 - KEEP, deterministic=False)(h)
        if only_features:
            return h
        names = ("big", "small")
        return {n: nn.Dense(1, use_bias=False, name=f"heads_{n}")(h)[:, 0] for n in names}


class TrainState(train_state.TrainState):
    batch_stats: dict
    key: jax.Array

    def apply_gradients(self, *, grads, losses, **changes):
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params, losses=losses)
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **changes)


@jax.jit
def linen_step(state, batch):
    def losses_fn(params):
        outputs, changed = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            batch["x"],
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(state.key, state.step)},
        )
        return squared_errors(outputs, batch), changed["batch_stats"]

    evaluate = jaxmtl.value_and_task_grads(losses_fn, has_aux=True)
    (losses, batch_stats), grads = evaluate(state.params)
    return state.apply_gradients(grads=grads, losses=losses, batch_stats=batch_stats), losses


def make_linen(state_class):
    model = LinenNetwork()
    variables = model.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, X)
    more = {"batch_stats": variables["batch_stats"], "key": jax.random.key(2)}
    if state_class is train_state.TrainState:
        more = {}
    return state_class.create(
        apply_fn=model.apply, params=variables["params"], tx=make_optimizer(), **more
    )


def read_linen(params):
    heads = {name: params[f"heads_{name}"]["kernel"][:, 0] for name in ("big", "small")}
    linear = {"w": params["linear"]["kernel"], "b": params["linear"]["bias"]}
    return as_double({**linear, **params["norm"], **heads})


def test_linen():
    state, history = make_linen(TrainState), []
    mean = np.zeros(WIDTH)
    for step in range(100):
        before = state
        state, losses = linen_step(state, BATCH)
        history.append(jax.device_get(losses))
        if step < 3:
            features, _ = before.apply_fn(
                {"params": before.params, "batch_stats": before.batch_stats},
                X,
                True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(before.key, step)},
            )
            after = read_linen(state.params)
            statistics = check_step(read_linen(before.params), after, losses, features)
            mean = MOMENTUM * mean + (1 - MOMENTUM) * statistics[0][0]
            np.testing.assert_allclose(
                state.batch_stats["norm"]["mean"], mean, rtol=1e-4, atol=1e-6
            )
    check_descent(history)
    assert state.step == 100


class CheapState(train_state.TrainState):
    batch_stats: dict
    balancer_state: jaxmtl.BalancerState
    key: jax.Array


def test_linen_by_the_cheap_route():
    """flax's own ``apply_gradients`` takes the balanced gradient."""
    balancer, stacked = make_balancer(), make_linen(TrainState)
    state = CheapState.create(
        apply_fn=stacked.apply_fn,
        params=stacked.params,
        tx=optax.sgd(RATE),
        batch_stats=stacked.batch_stats,
        balancer_state=balancer.init(stacked.params),
        key=stacked.key,
    )

    @jax.jit
    def step(state, batch):
        def losses_fn(params):
            outputs, changed = state.apply_fn(
                {"params": params, "batch_stats": state.batch_stats},
                batch["x"],
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(state.key, state.step)},
            )
            return squared_errors(outputs, batch), changed["batch_stats"]

        evaluate = jaxmtl.value_and_balanced_grad(losses_fn, balancer, has_aux=True)
        (losses, stats), grad, balancer_state = evaluate(state.balancer_state, state.params)
        changes = {"batch_stats": stats, "balancer_state": balancer_state}
        return state.apply_gradients(grads=grad, **changes), losses

    after, losses = step(state, BATCH)
    features, _ = state.apply_fn(
        {"params": state.params, "batch_stats": state.batch_stats},
        X,
        True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.fold_in(state.key, 0)},
    )
    statistics = check_step(read_linen(state.params), read_linen(after.params), losses, features)
    mean = (1 - MOMENTUM) * statistics[0][0]
    np.testing.assert_allclose(after.batch_stats["norm"]["mean"], mean, rtol=1e-4, atol=1e-6)


def test_linens_own_train_state_serves_methods_that_read_no_losses():
    """Others say what is missing."""
    params = {"w": jnp.zeros(2)}
    grads = {"w": jnp.array([[3.0, 0.0], [0.0, 4.0]])}
    for balancer in (jaxmtl.normalize(num_tasks=2), jaxmtl.real_time_loss(num_tasks=2)):
        state = train_state.TrainState.create(
            apply_fn=None, params=params, tx=optax.chain(balancer, optax.sgd(1.0))
        )
        if "losses" not in balancer.weighting.reads:
            np.testing.assert_allclose(state.apply_gradients(grads=grads).params["w"], [-1, -1])
            continue
        with pytest.raises(ValueError, match="but the argument losses is missing"):
            state.apply_gradients(grads=grads)


# Equinox: differentiate the arrays of a partition.


class Module(eqx.Module):
    linear: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    dropout: eqx.nn.Dropout
    heads: dict[str, eqx.nn.Linear]

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.linear = eqx.nn.Linear(3, WIDTH, key=keys[0])
        self.norm = eqx.nn.LayerNorm(WIDTH, eps=EPS)
        self.dropout = eqx.nn.Dropout(1 - KEEP)
        self.heads = {
            name: eqx.nn.Linear(WIDTH, 1, use_bias=False, key=k)
            for name, k in zip(("big", "small"), keys[1:], strict=True)
        }

    def features(self, x, key):
        return self.dropout(jax.vmap(self.norm)(jax.vmap(self.linear)(x)), key=key)

    def __call__(self, x, key):
        features = self.features(x, key)
        return {name: jax.vmap(head)(features)[:, 0] for name, head in self.heads.items()}


OPTIMIZER = make_optimizer()


@eqx.filter_jit
def equinox_step(model, opt_state, batch, key):
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def losses_fn(params):
        return squared_errors(eqx.combine(params, static)(batch["x"], key), batch)

    losses, grads = jaxmtl.value_and_task_grads(losses_fn)(params)
    updates, opt_state = OPTIMIZER.update(grads, opt_state, params, losses=losses)
    return eqx.apply_updates(model, updates), opt_state, losses


def read_equinox(model):
    heads = {name: head.weight[0] for name, head in model.heads.items()}
    linear = {"w": model.linear.weight.T, "b": model.linear.bias}
    return as_double({**linear, "scale": model.norm.weight, "bias": model.norm.bias, **heads})


def test_equinox():
    model, history = Module(jax.random.key(0)), []
    opt_state = OPTIMIZER.init(eqx.filter(model, eqx.is_inexact_array))
    for step in range(100):
        before, key = model, jax.random.key(step)
        model, opt_state, losses = equinox_step(model, opt_state, BATCH, key)
        history.append(jax.device_get(losses))
        if step < 3:
            after, features = read_equinox(model), before.features(X, key)
            check_step(read_equinox(before), after, losses, features, axis=1)
    check_descent(history)


def test_equinox_by_the_cheap_route():
    model, balancer, key = Module(jax.random.key(0)), make_balancer(), jax.random.key(1)

    @eqx.filter_jit
    def step(model, state, batch, key):
        params, static = eqx.partition(model, eqx.is_inexact_array)

        def losses_fn(params):
            return squared_errors(eqx.combine(params, static)(batch["x"], key), batch)

        losses, grad, state = jaxmtl.value_and_balanced_grad(losses_fn, balancer)(state, params)
        updates = jax.tree.map(lambda leaf: -RATE * leaf, grad)
        return eqx.apply_updates(model, updates), losses

    state = balancer.init(eqx.filter(model, eqx.is_inexact_array))
    after, losses = step(model, state, BATCH, key)
    features = model.features(X, key)
    check_step(read_equinox(model), read_equinox(after), losses, features, axis=1)


# Keras: the model as a function of lists of arrays.


def read_keras(model, values):
    values = {v.path: value for v, value in zip(model.trainable_variables, values, strict=True)}
    named = {"w": "linear/kernel", "b": "linear/bias", "scale": "norm/gamma", "bias": "norm/beta"}
    heads = {name: values[f"heads_{name}/kernel"][:, 0] for name in ("big", "small")}
    return as_double({key: values[path] for key, path in named.items()} | heads)


def test_keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    layers = keras.layers
    inputs = keras.Input((3,))
    h = layers.Dense(WIDTH, name="linear")(inputs)
    h = layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPS, name="norm")(h)
    h = layers.Dropout(1 - KEEP)(h)
    heads = {n: layers.Dense(1, use_bias=False, name=f"heads_{n}")(h) for n in ("big", "small")}
    model = keras.Model(inputs, heads | {"features": h})
    shared = ["heads" not in variable.path for variable in model.trainable_variables]
    balancer, optimizer = make_balancer(shared), keras.optimizers.SGD(RATE)
    optimizer.build(model.trainable_variables)

    def losses_fn(trainable, rest, batch):
        outputs, rest = model.stateless_call(trainable, rest, batch["x"], training=True)
        features = outputs.pop("features")
        losses = squared_errors({name: out[:, 0] for name, out in outputs.items()}, batch)
        return losses, (rest, features)

    @jax.jit
    def step(trainable, rest, state, opt_state, batch):
        evaluate = jaxmtl.value_and_balanced_grad(losses_fn, balancer, has_aux=True)
        (losses, (rest, features)), grad, state = evaluate(state, trainable, rest, batch)
        trainable, opt_state = optimizer.stateless_apply(opt_state, grad, trainable)
        return trainable, rest, state, opt_state, losses, features

    trainable = [variable.value for variable in model.trainable_variables]
    rest = [variable.value for variable in model.non_trainable_variables]
    opt_state = [variable.value for variable in optimizer.variables]
    state, masks = balancer.init(trainable), []
    for _ in range(2):
        before = read_keras(model, trainable)
        with jax.numpy_rank_promotion("allow"):  # Keras's layers add their biases so
            trainable, rest, state, opt_state, losses, features = step(
                trainable, rest, state, opt_state, BATCH
            )
        check_step(before, read_keras(model, trainable), losses, features)
        masks.append(np.asarray(features) != 0)
    assert np.any(masks[0] != masks[1])


# Plain trees of parameters.


def test_plain_trees():
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "trunk": {
            "w": jax.random.normal(keys[0], (3, WIDTH)),
            "b": jnp.zeros(WIDTH),
            "scale": jnp.ones(WIDTH),
            "bias": jnp.zeros(WIDTH),
        },
        "heads": {"big": jnp.ones(WIDTH) / 2, "small": jax.random.normal(keys[1], (WIDTH,)) / 2},
    }

    def features(trunk, x, key):
        h = x @ trunk["w"] + trunk["b"][None]
        z = jax.nn.standardize(h, axis=0, epsilon=EPS)
        mask = jax.random.bernoulli(key, KEEP, h.shape)
        return (z * trunk["scale"][None] + trunk["bias"][None]) * mask / KEEP

    def losses_fn(params, batch, key):
        h = features(params["trunk"], batch["x"], key)
        return squared_errors({name: h @ v for name, v in params["heads"].items()}, batch)

    @jax.jit
    def step(params, opt_state, batch, key):
        losses, grads = jaxmtl.value_and_task_grads(losses_fn)(params, batch, key)
        updates, opt_state = OPTIMIZER.update(grads, opt_state, params, losses=losses)
        return optax.apply_updates(params, updates), opt_state, losses

    opt_state, history = OPTIMIZER.init(params), []
    for t in range(200):  # most of them on a plateau whose end rounding errors decide
        before, key = params, jax.random.key(t)
        params, opt_state, losses = step(params, opt_state, BATCH, key)
        history.append(jax.device_get(losses))
        if t < 3:
            old, new = (as_double({**p["trunk"], **p["heads"]}) for p in (before, params))
            check_step(old, new, losses, features(before["trunk"], X, key))
    check_descent(history)
