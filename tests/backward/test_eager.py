"""Without jit: nothing is compiled anew at each call, and the same numbers come out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmtl
from jaxmtl import diagnostics, pareto, solvers
from tests.references import as_vector, gradients, relative_error
from tests.stages import later
from tests.test_every_method import LOSSES, NAMES, PARAMS, as_tree, make, needed

pytestmark = pytest.mark.usefixtures("quick_compiler")

COMPILED = []


def _count(event, duration, **kwargs):
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(duration)


jax.monitoring.register_event_duration_secs_listener(_count)


def compiled_at_the_third_call(function):
    """How many programs are compiled at the third call of a function that returns its state."""
    for _ in range(2):
        function()
    before = len(COMPILED)
    function()
    return len(COMPILED) - before


@pytest.mark.parametrize(
    "name", later(NAMES, soon=["static", "uncertainty", "pcgrad", "mgda", "moco"])
)
def test_an_update_compiles_nothing_the_third_time(name):
    balancer = jaxmtl.report_only(make(name))
    grads, losses = as_tree(gradients(0, 3, 10)), jnp.asarray(LOSSES[:3])
    state = balancer.init(PARAMS)
    extra = needed(name, grads)

    def step():
        nonlocal state
        _, state = balancer.update(grads, state, losses=losses, **extra)

    assert compiled_at_the_third_call(step) == 0


COMBINED = {
    "every": lambda: jaxmtl.every(jaxmtl.upgrad(num_tasks=3), 2),
    "warm_up": lambda: jaxmtl.warm_up(jaxmtl.pcgrad(0, num_tasks=3), 4, ramp=2),
    "smooth": lambda: jaxmtl.smooth(jaxmtl.prioritise(jaxmtl.mgda(num_tasks=3), [1, 2, 3.0]), 0.5),
    "with_fixed": lambda: jaxmtl.with_fixed(jaxmtl.mgda(), ["balanced", 0.5, "balanced"]),
    "on_shared": lambda: jaxmtl.on_shared(
        jaxmtl.skip_broken(jaxmtl.mgda()), {"a": True, "b": False}
    ),
}


@pytest.mark.parametrize("combined", later(COMBINED, soon=["every", "on_shared"]))
def test_a_combinator_in_a_chain_compiles_nothing_the_third_time(combined):
    clip = jaxmtl.per_task(optax.clip_by_global_norm(1.0), 3)
    optimizer = optax.chain(clip, COMBINED[combined](), optax.adam(0.1))
    grads, losses = as_tree(gradients(0, 3, 10)), jnp.asarray(LOSSES[:3])
    state = optimizer.init(PARAMS)

    def step():
        nonlocal state
        _, state = optimizer.update(grads, state, PARAMS, losses=losses)

    step()  # held weights: two steps of each kind
    assert compiled_at_the_third_call(step) == 0


GRAM = jnp.asarray(gradients(0, 4, 10) @ gradients(0, 4, 10).T, jnp.float32)
SOLVED = {
    "min_norm": lambda: solvers.min_norm(GRAM),
    "complementarity": lambda: solvers.complementarity(GRAM, -GRAM[0]),
    "dual_cone": lambda: solvers.dual_cone(GRAM, GRAM[0]),
    "worst_case": lambda: solvers.worst_case(GRAM, GRAM[0], 0.5),
    "barrier": lambda: solvers.barrier(GRAM, 2.0),
    "eigen": lambda: solvers.eigen(GRAM),
    "linear_program": lambda: solvers.linear_program(GRAM[0], GRAM, GRAM[1]),
    "report": lambda: diagnostics.report(GRAM, GRAM[0]),
    "hypervolume": lambda: pareto.hypervolume(GRAM[:, :2], GRAM[0, :2] + 9),
}


@pytest.mark.parametrize("name", later(SOLVED, soon=["min_norm", "eigen", "report"]))
def test_a_solver_compiles_nothing_the_third_time(name):
    assert compiled_at_the_third_call(SOLVED[name]) == 0


def network(params, x, y):
    """A convolution, a normalisation, a jitted part and a dense layer.

    (Of a loop, ``jax.grad`` itself compiles the way back anew at each call.)
    """
    h = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    h = jax.nn.relu(h - jnp.mean(h, axis=(1, 2), keepdims=True))
    z = jnp.mean(h, axis=(1, 2))
    out = _deeper(z, params["deep"]) @ params["dense"]
    return {"sum": jnp.mean((out[:, 0] - y) ** 2), "log": jnp.mean(jax.nn.softplus(out[:, 1]))}


@jax.jit
def _deeper(z, weights):
    return jnp.tanh(z @ weights)


def inputs():
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 1, 4), "deep": (4, 4), "dense": (4, 2)}
    params = {n: jnp.asarray(rng.normal(size=shape), jnp.float32) for n, shape in shapes.items()}
    x, y = rng.normal(size=(5, 6, 6, 1)), rng.normal(size=5)
    return params, jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


def routes():
    params, x, y = inputs()
    mgda = jaxmtl.mgda(num_tasks=2)
    held = jaxmtl.every(mgda, 2)
    balanced = functools.partial(jaxmtl.value_and_balanced_grad, network)
    calls = {
        "rows": jaxmtl.value_and_task_grads(network),
        "rows one by one": jaxmtl.value_and_task_grads(network, chunk_size=1),
        "rows two by two": jaxmtl.value_and_task_grads(network, chunk_size=2),
        "stacked": functools.partial(balanced(mgda), mgda.init(params)),
        "lean": functools.partial(balanced(mgda, memory="lean"), mgda.init(params)),
        "losses alone": functools.partial(
            balanced(jaxmtl.real_time_loss()), jaxmtl.real_time_loss().init(params)
        ),
        "held": functools.partial(balanced(held), held.init(params)),
    }
    return {name: functools.partial(call, params, x, y) for name, call in calls.items()}


@pytest.mark.parametrize("route", later(routes(), soon=["rows two by two", "lean", "held"]))
def test_a_route_compiles_nothing_the_third_time(route):
    call = routes()[route]
    assert compiled_at_the_third_call(call) == 0


@pytest.mark.parametrize("route", later(routes(), soon=["rows two by two", "lean"]))
def test_the_same_with_and_without_jit(route):
    call = routes()[route]
    expected = jax.jit(lambda: call()[:2])()
    with jax.disable_jit():
        disabled = call()[:2]
    for result in (call()[:2], disabled):
        assert relative_error(as_vector(result[1]), as_vector(expected[1])) < 1e-5
        for loss, name in [(result[0][name], name) for name in expected[0]]:
            np.testing.assert_allclose(loss, expected[0][name], rtol=1e-6)
