"""Programs that cannot be rewritten: the plain way, told once, with every number right."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from jaxmtl.backward import _programs
from tests.backward.test_task_rows import LOSSES, check_rows
from tests.references import as_vector, relative_error
from tests.stages import later

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture
def tomorrow(monkeypatch):
    """A JAX that no longer lets its programs be read."""

    def fail(*args, **options):
        raise AttributeError("no such thing as a program")

    monkeypatch.setattr(_programs.jax, "make_jaxpr", fail)
    _programs._tell_once.cache_clear()
    yield
    _programs._tell_once.cache_clear()


def warned():
    return pytest.warns(RuntimeWarning, match="no such thing as a program.*The results are correct")


# All rows go through one vmap there, and a way back that is not linear makes something of zeros.
@pytest.mark.parametrize(
    "kind",
    later(
        [kind for kind in LOSSES if kind != "a way back that is not linear"],
        soon=["separate heads", "entangled", "in a loop", "a group of none"],
    ),
)
def test_the_plain_way_gives_the_gradients_of_every_program(kind, tomorrow):
    with warned() as caught:
        check_rows(kind, {})
    assert len(caught) == 1


def test_the_plain_way_in_chunks(tomorrow):
    with warned():
        check_rows("entangled", {"chunk_size": 2})


def convolutional(params, images):
    h = jax.lax.conv(images, params["w"], (1, 1), "SAME")
    out = jnp.mean(jax.nn.relu(h), axis=(2, 3)) @ params["heads"]
    return {"a": jnp.mean((out[:, 0] - 1) ** 2), "b": jnp.mean(jnp.abs(out[:, 1] + 1))}


CONVOLUTIONS = {
    "w": 0.3 * np.random.default_rng(1).normal(size=(4, 2, 3, 3)),
    "heads": np.eye(4, 2),
}
IMAGES = np.random.default_rng(2).normal(size=(3, 2, 8, 8))


def routes(fun, params, data):
    """The balanced gradient by every route, of one method that reads the Gramian."""
    balancer = jaxmtl.mgda(num_tasks=2)
    losses, grads = jaxmtl.value_and_task_grads(fun)(params, data)
    yield balancer.update(grads, balancer.init(params), losses=losses)[0]
    for method, options in [
        (balancer, {}),
        (balancer, {"memory": "lean"}),
        (jaxmtl.every(balancer, 2), {}),
    ]:
        route = jaxmtl.value_and_balanced_grad(fun, method, **options)
        yield jax.jit(route)(method.init(params), params, data)[1]


@pytest.mark.slow
def test_every_route_has_a_plain_way(tomorrow):
    def as_type(dtype):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (CONVOLUTIONS, IMAGES))

    with jax.enable_x64(True):
        params, images = as_type(jnp.float64)
        rows = [
            as_vector(jax.grad(lambda p, n=n: convolutional(p, images)[n])(params)) for n in "ab"
        ]
    # The shortest point between two gradients, in closed form.
    between = rows[0] - rows[1]
    share = np.clip(-(rows[1] @ between) / (between @ between), 0, 1)
    expected = rows[1] + share * between
    with warned():
        found = list(routes(convolutional, *as_type(jnp.float32)))
    for grad in found:
        assert relative_error(as_vector(grad), expected) < 1e-5


def test_features_and_shared_leaves_read_no_program(tomorrow):
    balancer = jaxmtl.normalize()
    step = jaxmtl.value_and_features_grad(
        lambda shared, x: shared * x,
        lambda heads, z, x: {name: jnp.sum(head * z) for name, head in heads.items()},
        balancer,
    )
    heads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([0.0, 0.5])}
    with warned():
        _, (shared, of_heads), _ = step(balancer.init(jnp.ones(2)), jnp.ones(2), heads, jnp.ones(2))
    np.testing.assert_allclose(shared, [1, 1], rtol=1e-6)
    np.testing.assert_allclose(of_heads["a"], [1, 1])
    params = {"trunk": jnp.ones(2), "head": jnp.ones(2)}
    shared = jaxmtl.shared_leaves(
        lambda p: (jnp.sum(p["trunk"]), jnp.sum(p["trunk"] * p["head"])), params
    )
    assert shared == {"trunk": True, "head": False}


def test_an_error_of_the_users_own_comes_out_as_it_is():
    def losses(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        jaxmtl.value_and_balanced_grad(losses, jaxmtl.every(jaxmtl.mgda(num_tasks=2), 2))(
            jaxmtl.every(jaxmtl.mgda(num_tasks=2), 2).init(jnp.ones(2)), jnp.ones(2)
        )
    assert caught.value.__context__ is None


# A process of its own each, since names are looked up when a module is imported.
SCRIPT = """
import warnings
import jax, jax.numpy as jnp, numpy as np
import jax.extend.core as core
warnings.simplefilter("always")
{change}
import jaxmtl
jaxmtl.use_safe_cpu_compiler()
triple = lambda x: 3 * x
{operation}

def losses(p, x):
    z = jnp.tanh(triple(x @ p["trunk"]))
    return {{"a": jnp.mean(z @ p["a"]), "b": jnp.sum(triple(z) @ p["b"])}}

rng = np.random.default_rng(0)
p = {{"trunk": rng.normal(size=(3, 4)), "a": rng.normal(size=4), "b": rng.normal(size=4)}}
x = rng.normal(size=(5, 3))
narrow = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)
with warnings.catch_warnings(record=True) as caught:
    for function in (lambda f: f, jax.jit):
        _, grads = function(jaxmtl.value_and_task_grads(losses))(narrow(p), narrow(x))
        z = np.tanh(3 * x @ p["trunk"])
        for row, name, factor in ((0, "a", 1 / 5), (1, "b", 3)):
            to_trunk = 3 * x.T @ (factor * p[name] * (1 - z**2))
            expected = {{"trunk": to_trunk, "a": 0 * p["a"], "b": 0 * p["b"]}}
            expected[name] = factor * z.sum(axis=0)
            for leaf, exact in expected.items():
                error = np.max(np.abs(np.asarray(grads[leaf][row], np.float64) - exact))
                assert error <= 3e-6 * max(np.max(np.abs(exact)), 1), (name, leaf, error)
print(len(caught), *(w.message for w in caught))
"""

# Linear, and nothing but its rules is known of it.
UNKNOWN = """
from jax.interpreters import ad, batching, mlir
triple_p = core.Primitive("triple")
triple_p.def_impl(lambda x: 3 * x)
triple_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(triple_p, mlir.lower_fun(lambda x: 3 * x, multiple_results=False))
ad.deflinear2(triple_p, lambda ct, _: [triple_p.bind(ct)])
batching.defvectorized(triple_p)
triple = triple_p.bind
"""

CHANGES = {
    "two classes swapped": ("core.Jaxpr, core.ClosedJaxpr = core.ClosedJaxpr, core.Jaxpr", ""),
    "an unknown operation": ("", UNKNOWN),
    "a missing name": ("del core.jaxpr_as_fun", ""),
    "a missing class": ("del core.ClosedJaxpr", ""),
    "a missing module": (
        "import sys; del jax.extend.core; sys.modules['jax.extend.core'] = None",
        "",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_jax_of_tomorrow_costs_no_gradient(change):
    before, operation = CHANGES[change]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(change=before, operation=operation)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, *message = done.stdout.split()
    assert int(count) <= 1, message
    if change in ("a missing name", "a missing module"):
        assert "cannot rewrite a program" in done.stdout
