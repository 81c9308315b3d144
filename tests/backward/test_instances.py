"""One loss an example: Gramians and gradients against float64, on networks drawn at random."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import jaxmtl
from jaxmtl.backward import _instances
from jaxmtl.backward._examples_apart import per_example_terms
from jaxmtl.backward._instances import gramian_by_examples, stack_gradients
from jaxmtl.backward._linearise import linearise
from jaxmtl.backward._outer_products import is_cheaper_written_out
from tests.references import relative_error
from tests.stages import later

N, S, D, VOCABULARY = 5, 4, 6, 7
SEED = np.random.default_rng(0)
BATCH = {
    "tokens": SEED.integers(VOCABULARY, size=(N, S)).astype(np.int32),
    "labels": SEED.integers(VOCABULARY, size=(N, S)).astype(np.int32),
    "kept": (SEED.uniform(size=(N, S, D)) < 0.8).astype(np.float64),
    "mask": np.maximum(SEED.uniform(size=(N, S)) < 0.7, np.arange(S) == 0).astype(np.float64),
}

pytestmark = pytest.mark.usefixtures("quick_compiler", "without_stack")


@pytest.fixture
def without_stack(monkeypatch):
    """Small networks of many positions would have their gradients written out."""
    monkeypatch.setattr(_instances, "is_cheaper_written_out", lambda found: False)


def dense(p, h, batch):
    return jnp.tanh(h @ p["w"] + p["b"][None, None])


def affine(p, h, batch):
    return h * p["b"][None, None] + p["a"] * h


def used_from_both_sides(p, h, batch):
    return jnp.tanh(jnp.tanh(h @ p["w"]) @ p["w"].T)


def used_in_two_places(p, h, batch):
    return jnp.tanh(h @ p["w"] + jnp.mean(p["w"], axis=0)[None, None])


def attention(p, h, batch):
    q, k, v = jnp.split(h @ p["wide"], 3, axis=-1)
    weights = jax.nn.softmax(jnp.einsum("nsd,ntd->nst", q, k), axis=-1)
    return h + jnp.einsum("nst,ntd->nsd", weights, v)


def heads(p, h, batch):
    split = jnp.einsum("nsd,dhk->nshk", h, p["w"].reshape(D, 2, D // 2))
    return jnp.tanh(split).reshape(h.shape)


def layer_norm(p, h, batch):
    h = h - jnp.mean(h, axis=-1, keepdims=True)
    return h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-3) * p["b"][None, None]


def scan_over_layers(p, h, batch):
    layer = jax.checkpoint(lambda h, w: (h + jnp.tanh(h @ w), None))
    return lax.scan(layer, h, p["layers"])[0]


def recurrent(p, h, batch):
    def cell(state, x):
        state = jnp.tanh(x + state @ p["w"] + p["b"][None])
        return state, state

    start = jnp.zeros_like(h[:, 0])
    return jnp.moveaxis(lax.scan(cell, start, jnp.moveaxis(h, 1, 0))[1], 0, 1)


def rematerialised(p, h, batch):
    return jax.checkpoint(lambda w, h: jnp.sin(h @ w))(p["w"], h)


def low_rank(p, h, batch):
    return jnp.tanh(h @ (p["w"] + p["wide"][:, :2] @ p["layers"][0, :2]))


def weight_norm(p, h, batch):
    return jnp.tanh(h @ (p["w"] / jnp.sqrt(jnp.sum(p["w"] ** 2, axis=0))[None]))


def merged_axes(p, h, batch):
    flat = h.reshape(-1, D)
    return jnp.tanh(flat @ p["w"] + p["b"][None]).reshape(h.shape)


def shifted(p, h, batch):
    before = jnp.pad(h[:, :-1], ((0, 0), (1, 0), (0, 0)))
    return jnp.tanh(h + before @ p["w"]) + 0.1 * jnp.cumsum(h, axis=1)[:, ::-1]


def convolution(p, h, batch):
    kernel = p["layers"][:, :, : D // 2]  # for two groups
    numbers = ("NWC", "WIO", "NWC")
    grouped = lax.conv_general_dilated(
        h, p["layers"], (1,), "SAME", rhs_dilation=(2,), dimension_numbers=numbers
    )
    apart = lax.conv_general_dilated(
        h, kernel.swapaxes(1, 2), (1,), "SAME", dimension_numbers=numbers, feature_group_count=2
    )
    return jnp.tanh(grouped + apart)


def stacked(p, h, batch):
    both = jnp.stack([h, jnp.tanh(h @ p["w"])], axis=1)
    first, second = jnp.unstack(both, axis=1)
    return jnp.sum(both, axis=1) + first * second


def segments(p, h, batch):
    sums = jax.vmap(lambda one, where: jax.ops.segment_sum(one, where, 3))(h, batch["labels"] % 3)
    alike = jnp.zeros_like(h).at[:, jnp.array([1, 2, 1, 0])].add(h @ p["w"])
    return jnp.tanh(alike.at[:, 3].set(0.5) + sums[:, jnp.array([0, 2, 2, 1])])


def delayed(p, h, batch):
    def cell(state, x):
        return jnp.tanh(x @ p["w"]), state

    start = jnp.zeros_like(h[:, 0])
    return jnp.moveaxis(lax.scan(cell, start, jnp.moveaxis(h, 1, 0))[1], 0, 1) + h


def dropout(p, h, batch):
    return h * batch["kept"]


def frozen_statistics(p, h, batch):
    """Batch statistics that no gradient flows through."""
    return (h - lax.stop_gradient(jnp.mean(h, axis=(0, 1)))[None, None]) * p["b"][None, None]


LAYERS = (
    *(dense, affine, used_from_both_sides, used_in_two_places, attention, heads, layer_norm),
    *(scan_over_layers, recurrent, rematerialised, low_rank, weight_norm, merged_axes, shifted),
    *(convolution, dropout, frozen_statistics, stacked, segments, delayed),
)
SHAPES = {"w": (D, D), "b": (D,), "a": (), "wide": (D, 3 * D), "layers": (3, D, D)}


def network(seed):
    """Parameters and losses of some layers; every second one shares its parameters with others."""
    rng = np.random.default_rng(seed)
    layers = [LAYERS[seed % len(LAYERS)], *rng.choice(np.array(LAYERS), size=rng.integers(1, 4))]
    names = ["shared" if rng.uniform() < 0.4 else str(i) for i in range(len(layers))]
    params = {
        name: {key: rng.normal(size=shape) / 2 for key, shape in SHAPES.items()}
        for name in dict.fromkeys(names)
    }
    params["table"] = rng.normal(size=(VOCABULARY, D))

    def losses(params, batch):
        h = params["table"][batch["tokens"]]
        for name, layer in zip(names, layers, strict=True):
            h = layer(params[name], h, batch)
        logits = h @ params["table"].T
        errors = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return jnp.sum(errors * batch["mask"], axis=1) / jnp.sum(batch["mask"], axis=1)

    return params, losses


def in_float64(losses, params, batch):
    """The gradient of each loss, one backward pass each: (N, P) in float64."""
    with jax.enable_x64(True):
        value, pull = jax.vjp(lambda p: losses(p, batch), params)
        rows = [jax.tree.leaves(pull(unit)[0]) for unit in jnp.eye(len(value))]
    return np.array([np.concatenate([np.ravel(leaf) for leaf in row]) for row in rows])


def in_float32(tree):
    return jax.tree.map(lambda x: x if x.dtype == np.int32 else np.asarray(x, np.float32), tree)


def found_of(losses, params, batch):
    """The Gramian by examples and the stacked gradients, in one program."""

    @jax.jit
    def compute(params, batch):
        at = linearise(losses, 0, False, (params, batch), {})
        all_of_them = [True] * len(jax.tree.leaves(params))
        gram = gramian_by_examples(at, all_of_them, jnp.float32, lean=False)
        return gram, stack_gradients(at, None)

    return compute(in_float32(params), in_float32(batch))


def check(losses, params, batch, apart=True):
    exact = in_float64(losses, params, batch)
    gram, rows = found_of(losses, params, batch)
    assert (gram is not None) == apart
    rows = [np.reshape(leaf, (len(exact), -1)) for leaf in jax.tree.leaves(rows)]
    rows = np.concatenate(rows, axis=1).astype(np.float64)
    assert max(map(relative_error, rows, exact)) < 5e-6
    if apart:
        lengths = np.linalg.norm(exact, axis=1)

        def largest_error(found):
            return np.max(np.abs(found - exact @ exact.T) / np.outer(lengths, lengths))

        # Of some networks, what float32 rounds off on the way forward is more than that.
        assert largest_error(gram[0]) < max(2e-6, 2 * largest_error(rows @ rows.T))
        assert np.all(gram[1])


NAMES = [layer.__name__ for layer in LAYERS]
SOON = ["dense", "used_in_two_places", "attention", "scan_over_layers", "recurrent", "merged_axes"]


@pytest.mark.parametrize("layer", later(NAMES, soon=[*SOON, "convolution"]))
def test_each_layer(layer):
    params, losses = network(NAMES.index(layer))
    check(losses, params, BATCH)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(len(LAYERS), len(LAYERS) + 100))
def test_networks_drawn_at_random(seed):
    params, losses = network(seed)
    check(losses, params, BATCH)


@pytest.mark.parametrize(
    ("numbers", "options"),
    [
        (("NHWC", "HWIO", "NHWC"), {"window_strides": (1, 1), "padding": "VALID"}),
        (("NHWC", "HWIO", "NHWC"), {"window_strides": (2, 3), "padding": "SAME"}),
        (("NCHW", "OIHW", "NCHW"), {"window_strides": (1, 2), "padding": [(2, 0), (-1, 3)]}),
        (("NHWC", "OIHW", "NCHW"), {"rhs_dilation": (2, 1), "lhs_dilation": (1, 2)}),
        (("NHWC", "HWIO", "NHWC"), {"feature_group_count": 2, "window_strides": (2, 1)}),
    ],
)
def test_convolutions(numbers, options):
    rng = np.random.default_rng(0)
    groups = options.get("feature_group_count", 1)
    sizes = {"N": 3, "H": 7, "W": 8, "C": 4, "I": 4 // groups, "O": 6}
    image = rng.normal(size=[sizes[c] for c in numbers[0]])
    kernel = rng.normal(size=[{**sizes, "H": 3, "W": 2}[c] for c in numbers[1]])
    options = {"window_strides": (1, 1), "padding": [(0, 0), (1, 0)]} | options

    def losses(params, batch):
        out = lax.conv_general_dilated(
            batch["x"], params["kernel"], dimension_numbers=numbers, **options
        )
        pooled = lax.reduce_window(out, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
        return jnp.sum(jnp.sin(out), axis=(1, 2, 3)) + jnp.sum(pooled**2, axis=(1, 2, 3))

    check(losses, {"kernel": kernel}, {"x": image})


def test_entries_of_its_own_for_each_example():
    rng = np.random.default_rng(0)

    def losses(params, batch):
        return jnp.sum((params["codes"] @ params["w"] - batch["x"]) ** 2, axis=1)

    params = {"codes": rng.normal(size=(4, 3)), "w": rng.normal(size=(3, 2))}
    check(losses, params, {"x": rng.normal(size=(4, 2))})


def batch_statistics(h):
    return h - jnp.mean(h, axis=0, keepdims=True)


def neighbours(h):
    return h + jnp.roll(h, 1, axis=0)


def chosen_by_number(h):
    return h[jnp.arange(4), jnp.array([0, 2, 1, 0])][:, None]


@pytest.mark.parametrize("mix", [batch_statistics, neighbours, chosen_by_number])
def test_what_mixes_examples_is_noticed_and_told(mix, caplog):
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 3)), "v": rng.normal(size=(3, 3))}

    def losses(params, batch):
        return jnp.sum(mix(jnp.tanh(batch["x"] @ params["w"]) @ params["v"]) ** 2, axis=1)

    with caplog.at_level(logging.INFO, logger="jaxmtl"):
        check(losses, params, {"x": rng.normal(size=(4, 3))}, apart=False)
    assert "4 losses in one array are balanced by a gradient each, since they are" in caplog.text


def test_several_outputs_are_no_examples():
    """A loss an output, each a mean over the batch: all share what comes before."""
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 2)), "v": rng.normal(size=(2, 4))}

    def losses(params, batch):
        return jnp.mean((jnp.tanh(batch["x"] @ params["w"]) @ params["v"]) ** 2, axis=0)

    check(losses, params, {"x": rng.normal(size=(9, 3))}, apart=False)


def dense_losses(params, x):
    return jnp.sum(jnp.tanh(x @ params["w"]) @ params["v"], axis=1) ** 2


def test_a_gramian_by_layers_holds_no_gradient_of_an_example():
    """The stack of these would take 16 times the parameters; one backward pass takes them once."""
    params = {"w": jnp.ones((200, 100)), "v": jnp.ones((100, 3))}
    x = jnp.ones((16, 200))
    step = jax.jit(jaxmtl.value_and_balanced_grad(dense_losses, jaxmtl.normalize(num_tasks=16)))
    state = jaxmtl.normalize(num_tasks=16).init(params)
    memory = step.lower(state, params, x).compile().memory_analysis().temp_size_in_bytes
    assert memory < 4 * 20300  # one of 16 gradients


@pytest.mark.parametrize(("positions", "cheaper"), [(1, False), (64, True)])
def test_gradients_are_written_out_where_that_takes_fewer_operations(positions, cheaper):
    def losses(params):
        x = jnp.ones((8, positions, 16))
        return jnp.sum(jnp.tanh(x @ params["w"]), axis=(1, 2))

    value, pull = jax.vjp(losses, {"w": jnp.ones((16, 16))})
    terms = per_example_terms(lambda c: pull(c)[0], value, most=256)
    assert is_cheaper_written_out(terms) == cheaper


def test_what_is_pinned_to_devices_stays_apart():
    mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 2)), "v": rng.normal(size=(2, 2))}

    def losses(params, batch):
        params = jax.lax.with_sharding_constraint(params, place)
        h = jax.lax.with_sharding_constraint(jnp.tanh(batch["x"] @ params["w"]), place)
        return jnp.sum((h @ params["v"]) ** 2, axis=1)

    check(losses, params, {"x": rng.normal(size=(4, 3))})


def linear(params, x, y):
    return (x @ params - y) ** 2


def data(examples=6, size=3):
    rng = np.random.default_rng(1)
    params, x, y = (
        rng.normal(size=size),
        rng.normal(size=(examples, size)),
        rng.normal(size=examples),
    )
    return params, x, y, 2 * (x @ params - y)[:, None] * x


@pytest.mark.parametrize("memory", ["stacked", "lean"])
@pytest.mark.parametrize("name", later(["mgda", "upgrad", "normalize"], soon=["mgda", "normalize"]))
def test_balanced_gradients_are_those_of_the_stack(name, memory):
    params, x, y, exact = data()
    balancer = getattr(jaxmtl, name)(num_tasks=6)
    fun = jaxmtl.per_example(linear, in_axes=(None, 0, 0))
    step = jax.jit(jaxmtl.value_and_balanced_grad(fun, balancer, memory=memory))
    arrays = jax.tree.map(jnp.float32, (params, x, y))
    losses, grad, state = step(balancer.init(arrays[0]), *arrays)
    np.testing.assert_allclose(losses, (x @ params - y) ** 2, rtol=1e-4)
    expected, same = balancer.update(jnp.float32(exact), balancer.init(arrays[0]))
    np.testing.assert_allclose(grad, expected, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(
        state.task_weights @ exact, same.task_weights @ exact, rtol=2e-4, atol=1e-5
    )


RULES = {
    "a constant added to the length": lambda xp, w, g: g / (xp.linalg.norm(g) + 0.5),
    "the parameter added": lambda xp, w, g: g + 0.1 * w,
    "clipped": lambda xp, w, g: xp.clip(g, -1, 1),
    "reversed": lambda xp, w, g: -g,
}


@pytest.mark.parametrize("rule", RULES)
def test_a_backward_rule_of_ones_own_is_applied_to_each_gradient(rule, caplog):
    @jax.custom_vjp
    def identity(w):
        return w

    identity.defvjp(lambda w: (w, w), lambda w, g: (RULES[rule](jnp, w, g),))
    fn = jaxmtl.per_example(lambda w, x: jax.nn.relu(x @ identity(w)))
    w, x = np.ones(3), np.array([[4.0, 0.3, 0.0], [-1.0, 0.0, 0.2], [-0.1, 0.5, 0.7]])
    expected = np.stack([RULES[rule](np, w, row * (row @ w > 0)) for row in x])
    w, x = jnp.asarray(w, jnp.float32), jnp.asarray(x, jnp.float32)
    _, grads = jax.jit(jaxmtl.value_and_task_grads(fn))(w, x)
    np.testing.assert_allclose(grads, expected, rtol=1e-5, atol=1e-6)
    balancer = jaxmtl.normalize(num_tasks=3)
    with caplog.at_level(logging.INFO, logger="jaxmtl"):
        found = jax.jit(jaxmtl.value_and_balanced_grad(fn, balancer))(balancer.init(w), w, x)
    assert "jax.custom_vjp" in caplog.text
    weights = np.asarray(found[2].task_weights, np.float64)
    np.testing.assert_allclose(found[1], weights @ expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("turns", "written_out"), [(0, True), (3, True), (9, False)])
def test_loops_within_loops_are_written_out_to_a_bound(turns, written_out, caplog):
    def repeated(function, times):
        return lambda h: lax.scan(lambda h, _: (function(h), None), h, None, length=times)[0]

    def loss(w, x):
        return jnp.sum(repeated(repeated(lambda h: jnp.tanh(h @ w), 8), turns)(x))

    w, x = jnp.asarray(SEED.normal(size=(2, 2)), jnp.float32), jnp.asarray(BATCH["mask"][:, :2])
    fn = jaxmtl.per_example(loss)
    with caplog.at_level(logging.INFO, logger="jaxmtl"):
        _, grads = jax.jit(jaxmtl.value_and_task_grads(fn))(w, x)
    assert ("turns" in caplog.text) != written_out
    expected = [jax.grad(loss)(w, row) for row in x]
    np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-5)


def test_absent_and_broken_examples():
    params, x, y, exact = data()
    balancer = jaxmtl.normalize(num_tasks=6)
    fun = jaxmtl.per_example(linear, in_axes=(None, 0, 0))
    step = jax.jit(jaxmtl.value_and_balanced_grad(fun, balancer))
    arrays = jax.tree.map(jnp.float32, (params, x, y))
    present = np.array([True, False, True, True, False, True])
    _, grad, state = step(balancer.init(arrays[0]), *arrays, active=jnp.array(present))
    units = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(grad, np.sum(units[present], axis=0), rtol=1e-4)
    assert np.all(state.task_weights[~present] == 0)
    broken = arrays[1].at[2, 0].set(np.inf)
    kept = step(state, arrays[0], broken, arrays[2])[2]
    assert jax.tree.all(jax.tree.map(np.array_equal, kept, state))


def test_per_example_is_a_losses_fn():
    params, x, y, exact = data()
    fun = jaxmtl.per_example(linear, in_axes=(None, 0, 0))
    losses, grads = jaxmtl.value_and_task_grads(fun)(*jax.tree.map(jnp.float32, (params, x, y)))
    np.testing.assert_allclose(losses, (x @ params - y) ** 2, rtol=1e-4)
    np.testing.assert_allclose(grads, exact, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxmtl.per_example(3), "loss_of_one must be a function"),
        (lambda: jaxmtl.per_example(linear, in_axes=0)(*data()[:3]), "in_axes must be a tuple"),
        (lambda: jaxmtl.per_example(linear, in_axes=(None, 0))(*data()[:3]), "but 3 were passed"),
        (lambda: jaxmtl.per_example(linear, in_axes=(None, "0")), "but it holds '0'"),
        (lambda: jaxmtl.per_example(linear, in_axes=(None, None, None)), "no argument runs over"),
        (
            lambda: jaxmtl.per_example(lambda p, x: x * p, in_axes=(None, 0))(1.0, np.ones((3, 2))),
            "must return one scalar",
        ),
    ],
)
def test_mistakes_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
