"""Programs rewritten for XLA's CPU compiler: the numbers stay, the slow forms go."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Jaxpr

import jaxmtl
from jaxmtl.backward import _cpu_layouts
from jaxmtl.backward._cpu_layouts import laid_out, largest_result
from jaxmtl.backward._linearise import CACHE
from tests.references import as_vector, relative_error

pytestmark = pytest.mark.usefixtures("quick_compiler")


def operations(function, *args):
    """All operations of a function's program for CPU, those inside of others too."""

    def parts(eqn):
        targets = eqn.params.get("branches_platforms")
        if targets is None:
            return list(eqn.params.values())
        branches = zip(targets, eqn.params["branches"], strict=True)
        return [branch for target, branch in branches if "cpu" in (target or ())]

    def of(jaxpr):
        for eqn in jaxpr.eqns:
            yield eqn
            for inner in jax.tree.leaves(parts(eqn)):
                inner = getattr(inner, "jaxpr", inner)
                if isinstance(inner, Jaxpr):
                    yield from of(inner)

    return list(of(jax.make_jaxpr(function)(*args).jaxpr))


def named(name, function, *args):
    return [eqn for eqn in operations(function, *args) if eqn.primitive.name == name]


def convolve(x, k, stride=1, padding=0, dilation=1, groups=1):
    """Straight from the definition, in NumPy: (batch, *space, features), (*space, in, out)."""
    space = range(x.ndim - 2)
    x = np.pad(x, [(0, 0), *[(padding, padding)] * len(space), (0, 0)])
    sizes = [(x.shape[1 + a] - dilation * (k.shape[a] - 1) - 1) // stride + 1 for a in space]
    out = np.zeros((x.shape[0], *sizes, k.shape[-1]))
    inputs, outputs = k.shape[-2], k.shape[-1] // groups
    for tap in itertools.product(*map(range, k.shape[:-2])):
        window = tuple(
            slice(dilation * t, dilation * t + stride * (n - 1) + 1, stride)
            for t, n in zip(tap, sizes, strict=True)
        )
        for g in range(groups):
            ins, outs = (slice(g * n, (g + 1) * n) for n in (inputs, outputs))
            out[..., outs] += x[:, *window, ins] @ k[(*tap, slice(None), outs)]
    return out


LAYOUTS = {
    "NWC": ("NWC", "WIO", "NWC"),
    "NHWC": ("NHWC", "HWIO", "NHWC"),
    "NCHW": ("NCHW", "OIHW", "NCHW"),
    "mixed": ("HNWC", "IHWO", "CNHW"),
    "NDHWC": ("NDHWC", "DHWIO", "NDHWC"),
}
OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2},
    {"groups": 2, "padding": 1},
    {"groups": 4, "stride": 2},
]


# Each layout and each option soon, the other pairs of them later.
PAIRS = [
    pytest.param(
        layout,
        option,
        id=f"{layout}-{option}",
        marks=[] if not option or layout == "mixed" else [pytest.mark.slow],
    )
    for layout in LAYOUTS
    for option in OPTIONS
]


@pytest.mark.parametrize(("layout", "options"), PAIRS)
def test_convolutions_and_their_derivatives_are_fast_ones_and_right(layout, options):
    rng = np.random.default_rng(0)
    images, kernels, results = LAYOUTS[layout]
    ndim, groups = len(images) - 2, options.get("groups", 1)
    shapes = (3, *[7, 6, 5][:ndim], 4), (*[3, 2, 3][:ndim], 4 // groups, 8)
    (x, dx), (k, dk) = ([rng.normal(size=shape) for _ in range(2)] for shape in shapes)
    last = ("N" + images.translate(str.maketrans("", "", "NC")) + "C",)
    last += (kernels.translate(str.maketrans("", "", "IO")) + "IO", last[0])

    def moved(array, source, target):
        return jnp.asarray(np.einsum(f"{source}->{target}", array), jnp.float32)

    def run(x, k):
        n = ndim
        return lax.conv_general_dilated(
            x,
            k,
            (options.get("stride", 1),) * n,
            [(options.get("padding", 0),) * 2] * n,
            rhs_dilation=(options.get("dilation", 1),) * n,
            feature_group_count=groups,
            dimension_numbers=(images, kernels, results),
        )

    args = moved(x, last[0], images), moved(k, last[1], kernels)
    _, pull_back = jax.vjp(run, *args)
    exact = convolve(x, k, **options)
    found = np.asarray(jax.jit(laid_out(run))(*args), np.float64)
    assert relative_error(found, np.einsum(f"{last[2]}->{results}", exact)) < 1e-6

    ct = rng.normal(size=exact.shape)
    along = np.sum(ct * convolve(dx, k, **options)), np.sum(ct * convolve(x, dk, **options))
    ct = moved(ct, last[2], results)
    for pulled in (pull_back, jax.jit(jax.vmap(pull_back))):
        rows = ct if pulled is pull_back else ct[None]
        fast = laid_out(pulled)
        of_x, of_k = (
            np.asarray(g, np.float64).reshape(a.shape)
            for g, a in zip(jax.jit(fast)(rows), args, strict=True)
        )
        size = np.linalg.norm(of_x) * np.linalg.norm(dx) + np.linalg.norm(of_k) * np.linalg.norm(dk)
        slopes = (
            np.sum(of_x * np.asarray(moved(dx, last[0], images))),
            np.sum(of_k * np.asarray(moved(dk, last[1], kernels))),
        )
        np.testing.assert_allclose(slopes, along, atol=1e-6 * size)
        for eqn in named("conv_general_dilated", fast, rows):
            lhs, rhs, _ = eqn.params["dimension_numbers"]
            assert lhs == (0, ndim + 1, *range(1, ndim + 1)), eqn
            assert rhs == (ndim + 1, ndim, *range(ndim)), eqn


def test_convolutions_are_found_wherever_they_are():
    def conv(x):
        return lax.conv(x, jnp.ones((3, 3, 3, 3)), (1, 1), "SAME").mean((2, 3))

    def everywhere(x):
        a = jax.jit(conv)(x)
        b = lax.map(lambda shift: conv(x + shift), jnp.ones(2)).sum(0)
        c = lax.cond(jnp.sum(a) > 0, conv, lambda x: -conv(x), x)
        d = lax.while_loop(lambda c: jnp.sum(c) < 0, lambda c: c + conv(x), a**2)
        return a + b + c + d + jax.checkpoint(conv)(x)

    x = jax.random.normal(jax.random.key(0), (2, 3, 8, 8))
    found = named("conv_general_dilated", laid_out(everywhere), x)
    assert len(found) == len(named("conv_general_dilated", everywhere, x)) == 6
    assert {eqn.params["dimension_numbers"].lhs_spec for eqn in found} == {(0, 3, 1, 2)}
    np.testing.assert_allclose(jax.jit(laid_out(everywhere))(x), everywhere(x), rtol=2e-5)


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (2, 1, 5, 3)])
def test_the_derivative_of_a_product_turns_no_cotangent(shape):
    rng = np.random.default_rng(0)
    x, w, ct = (rng.normal(size=s).astype(np.float32) for s in (shape, (3, 4), (*shape[:-1], 4)))
    _, pull_back = jax.vjp(lambda w: x @ w, jnp.asarray(w))
    assert named("transpose", pull_back, ct)
    assert not named("transpose", laid_out(pull_back), ct)
    exact = x.reshape(-1, 3).T.astype(np.float64) @ ct.reshape(-1, 4)
    assert relative_error(np.asarray(laid_out(pull_back)(ct)[0], np.float64), exact) < 1e-6


@pytest.mark.parametrize("num_tasks", [1, 2, 8, 9])
@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3)])
def test_the_derivatives_of_a_product_for_a_few_tasks_are_products_each(shape, num_tasks):
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=s).astype(np.float32) for s in (shape, (3, 4)))
    cts = rng.normal(size=(num_tasks, *shape[:-1], 4)).astype(np.float32)
    _, pull_back = jax.vjp(lambda w: x @ w, jnp.asarray(w))
    each = jax.vmap(pull_back)
    assert len(named("transpose", each, cts)) == len(named("dot_general", each, cts)) == 1
    few = num_tasks <= 8
    assert len(named("transpose", laid_out(each), cts)) == (0 if few else 1)
    products = named("dot_general", laid_out(each), cts)
    assert len(products) == (num_tasks if few else 1)
    assert {eqn.params["preferred_element_type"] for eqn in products} == {jnp.dtype("float32")}
    columns = x.reshape(-1, 3).T.astype(np.float64)
    exact = np.stack([columns @ ct.reshape(-1, 4) for ct in cts])
    assert relative_error(np.asarray(jax.jit(laid_out(each))(cts)[0], np.float64), exact) < 1e-6


def test_products_that_are_read_twice_or_have_batches_stay():
    a, b = jnp.ones((4, 3)), jnp.ones((3, 5))

    def twice(a, b):
        product = a @ b
        return product, product.T

    def batched(a, b):
        return jnp.swapaxes(jnp.stack([a, a]) @ jnp.stack([b, b]), 1, 2)

    def rotated(a, b):
        return jnp.transpose(jnp.stack([a, a]) @ b, (1, 2, 0))

    def rows_summed(a, b):
        return jnp.transpose(jnp.tensordot(jnp.stack([a, a]), b[:2], ((0,), (0,))), (0, 2, 1))

    def empty(a, b):
        return jnp.transpose(jnp.tensordot(jnp.stack([a, a])[:0], b, 1), (0, 2, 1))

    def scaled(a, b):
        return jnp.transpose(lax.dot_general(jnp.sum(b), a, (((), ()), ((), ()))), (1, 0))

    for function in (twice, batched, rotated, rows_summed, empty, scaled):
        assert named("transpose", laid_out(function), a, b)
        same = jax.tree.map(np.array_equal, laid_out(function)(a, b), function(a, b))
        assert jax.tree.all(same)


def test_names_constants_and_structures_pass():
    constant = jnp.arange(3.0)

    def function(tree):
        return {"sum": tree["a"] + constant, "same": tree["b"], "constant": constant}

    tree = {"a": jnp.ones(3), "b": jnp.zeros((2, 2))}
    assert jax.tree.all(jax.tree.map(np.array_equal, laid_out(function)(tree), function(tree)))


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [8, CACHE // 4 // 64])
def test_large_backward_passes_run_one_after_the_other(num_tasks, batch):
    """And with the numbers of small ones: losses that have a closed form."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(batch, 64)), jnp.float32)

    def losses(w):
        return jnp.mean(jnp.sum(x * w[None], axis=1)) * jnp.arange(1.0, num_tasks + 1)

    w = jnp.ones(64)
    function = jaxmtl.value_and_task_grads(losses)
    loops = bool(named("scan", function, w))
    assert loops == (batch > 8 and num_tasks > 1)
    _, grads = jax.jit(function)(w)
    exact = np.outer(np.arange(1, num_tasks + 1), np.asarray(x, np.float64).mean(0))
    assert relative_error(np.asarray(grads, np.float64), exact) < 1e-5


def test_the_largest_result_is_found_inside():
    def function(x):
        return lax.map(lambda s: jnp.sum(jnp.outer(x, x) * s), jnp.ones(3)).sum()

    assert largest_result(function, jnp.ones(10)) == 10 * 10 * 4


@pytest.mark.slow
def test_every_on_convolutions_chooses_between_branches():
    def losses(params, x):
        h = lax.conv(x, params["w"], (1, 1), "SAME")
        out = jnp.mean(jax.nn.relu(h), axis=(2, 3)) @ params["heads"]
        return {"a": jnp.mean((out[:, 0] - 1) ** 2), "b": jnp.mean(jnp.abs(out[:, 1] + 1))}

    params = {"w": 0.3 * jax.random.normal(jax.random.key(1), (4, 2, 3, 3)), "heads": jnp.eye(4, 2)}
    images = jax.random.normal(jax.random.key(2), (3, 2, 8, 8))
    balancer = jaxmtl.every(jaxmtl.mgda(num_tasks=2), 2)
    for options in ({}, {"chunk_size": 1}, {"memory": "lean"}):
        route = jaxmtl.value_and_balanced_grad(losses, balancer, **options)
        state = balancer.init(params)
        assert named("cond", route, state, params, images)
        for eqn in named("conv_general_dilated", route, state, params, images):
            assert eqn.params["dimension_numbers"].lhs_spec == (0, 3, 1, 2)
        values, grads = jaxmtl.value_and_task_grads(losses)(params, images)
        expected, _ = balancer.update(grads, state, losses=values)
        _, grad, _ = jax.jit(route)(state, params, images)
        assert relative_error(as_vector(grad), as_vector(expected)) < 1e-5


def test_each_side_of_a_turned_product_keeps_its_precision():
    def turned(a, b):
        return jnp.transpose(lax.dot(a, b, precision=("highest", "default")))

    (product,) = named("dot_general", laid_out(turned), jnp.ones((4, 3)), jnp.ones((3, 5)))
    assert product.params["precision"] == (lax.Precision.DEFAULT, lax.Precision.HIGHEST)


def test_a_product_with_a_parameter_that_is_not_known_stays(monkeypatch):
    def turned(a, b):
        return jnp.transpose(a @ b)

    monkeypatch.setattr(_cpu_layouts, "_OF_A_PRODUCT", {"dimension_numbers", "precision"})
    assert named("transpose", laid_out(turned), jnp.ones((4, 3)), jnp.ones((3, 5)))
