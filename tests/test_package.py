"""What the package says of itself: names, descriptions, modules that load on first use."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxmtl
from jaxmtl import methods


def test_the_docstring_names_everything_public():
    missing = [name for name in jaxmtl.__all__ if f"``{name}``" not in jaxmtl.__doc__]
    assert not missing


def test_what_needs_further_packages_loads_on_first_use():
    code = """
import sys, jaxmtl
assert not {"matplotlib", "sklearn", "jaxmtl.problems"} & set(sys.modules)
assert jaxmtl.problems.PROBLEMS and jaxmtl.plotting.plot_curves and jaxmtl.methods.METHODS
try:
    jaxmtl.plots
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "module 'jaxmtl' has no attribute 'plots'", done.stderr


@pytest.mark.slow
def test_the_first_step_of_a_process_is_compiled_once():
    code = """
import jax, jax.numpy as jnp, jaxmtl
traced = []
def losses_fn(x):
    traced.append(x)
    return {"a": jnp.sum(x**2), "b": jnp.sum(x)}
balancer, x = jaxmtl.upgrad(num_tasks=2), jnp.ones(3)
step, state = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer)), balancer.init(x)
step(state, x)
first = len(traced)
step(state, x)
print(first > 0 and first == len(traced))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_method_made_by_its_name_says_its_name(name):
    balancer = methods.make(name, 3)
    assert repr(balancer).startswith(f"{name}(")
    grads = jnp.eye(3, 4)
    needed = {"independent_grads": (grads, grads), "ntk_traces": jnp.ones(3)}
    extra = {argument: needed[argument] for argument in methods.METHODS[name].needs}
    state = balancer.init(jnp.zeros(4))
    updates, _ = jax.eval_shape(
        lambda grads: balancer.update(grads, state, losses=jnp.ones(3), **extra), grads
    )
    assert updates.shape == (4,)


def test_a_method_made_by_its_name_draws_by_its_key():
    def draw(key):
        balancer = methods.make("rlw", 3, key)
        return balancer.update(jnp.eye(3), balancer.init(jnp.zeros(3)))[0].tolist()

    assert draw(None) == draw(0) == draw(jax.random.key(0)) != draw(1)


def test_an_unknown_method_is_told_its_neighbours():
    with pytest.raises(ValueError, match=r"'mdga'; did you mean mgda.*methods are equal,"):
        methods.make("mdga", 3)
    with pytest.raises(ValueError, match=r"no method 'zzz'\. The methods are equal,"):
        methods.make("zzz", 3)
    with pytest.raises(ValueError, match="num_tasks must be a whole number"):
        methods.make("mgda", 2.5)


def test_balancers_say_how_they_were_made():
    inner = jaxmtl.on_shared(jaxmtl.mgda(num_tasks=3), {"trunk": True, "head": False})
    assert repr(inner) == "on_shared(mgda(num_tasks=3), shared={'trunk': True, 'head': False})"
    assert repr(jaxmtl.every(inner, 2)) == f"every({inner}, k=2)"
    learned = jaxmtl.gradnorm(2, optimizer=optax.adam(0.1), alpha=jnp.ones(()))
    assert repr(learned).startswith("gradnorm(num_tasks=2, alpha=<float32[]>, optimizer=<Gradient")
    assert repr(jaxmtl.nash_mtl(num_tasks=2)) == "nash_mtl(num_tasks=2)"
    scheduled = jaxmtl.static({"a": 1.0, "b": optax.constant_schedule(1.0), "c": lambda step: 2.0})
    assert repr(scheduled) == "static(weights={'a': 1.0, 'b': <function>, 'c': <function>})"
    long = repr(jaxmtl.static([1.0] * 100))
    assert len(long) < 100
    assert long.endswith("...)")
    weighting = jaxmtl.mgda(num_tasks=2).weighting
    assert repr(jaxmtl.make_balancer(weighting)).startswith("make_balancer(<mgda.")


def test_a_number_without_its_name_gets_a_sentence():
    with pytest.raises(
        TypeError, match=r"mgda\(\*, .*num_tasks\) cannot be called so.*num_tasks=3"
    ):
        jaxmtl.mgda(3)
    with pytest.raises(TypeError, match=r"cannot be called so.*'tasks'"):
        jaxmtl.mgda(tasks=3)
