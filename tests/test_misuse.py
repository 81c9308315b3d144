"""Every public function, every argument, every wrong kind: a sentence, and before any tracing.

A new function gets all of it by standing in ``CALLS``, with arguments that are right.
"""

import inspect
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

import jaxmtl
from jaxmtl import diagnostics, methods, pareto, plotting, problems, solvers, theory
from jaxmtl.problems.digits import digits
from jaxmtl.problems.toy import pareto_set, toy_losses

PARAMS, GRADS, ONES = jnp.zeros(2), jnp.eye(2), np.ones(2)
BALANCER = jaxmtl.mgda(num_tasks=2)
WEIGHTING = jaxmtl.Weighting(lambda dtype: (), lambda given, state: (0, state), frozenset(), 2)
HEADS = {"a": PARAMS, "b": PARAMS}


def losses_fn(params):
    total = sum(map(jnp.sum, jax.tree.leaves(params)))
    return {"a": total**2, "b": total}


def decode(heads, features):
    return {name: jnp.sum(head) + losses_fn(features)["a"] for name, head in heads.items()}


def on_shapes(function, **options):
    """The same function, of which nothing is computed."""

    def call(**arguments):
        jax.eval_shape(lambda: function(**arguments, **options))

    call.__signature__, call.__name__ = inspect.signature(function), function.__name__
    return call


def built(part, name):
    """``make_balancer`` of one part, which is made of the arguments."""

    def call(**arguments):
        parts = {"weighting": WEIGHTING} | {name: part(**arguments)}
        jaxmtl.make_balancer(**parts)

    call.__signature__, call.__name__ = inspect.signature(part), part.__name__
    return call


def update(grads, state, losses, active):
    BALANCER.update(grads, state, losses=losses, active=active)


def step(state, extra):
    jaxmtl.value_and_balanced_grad(losses_fn, BALANCER)(state, PARAMS, extra=extra)


def features_step(state, extra):
    route = jaxmtl.value_and_features_grad(lambda z: z, decode, BALANCER)
    route(state, PARAMS, HEADS, extra=extra)


def returned(losses):
    jaxmtl.value_and_task_grads(lambda params: losses)(PARAMS)


def per_task_update(grads, state):
    jaxmtl.per_task(optax.trace(0.9), 2).update(grads, state)


def methods_calls():
    own = {
        "static": {"weights": [1.0, 2.0]},
        "prior_loss": {"values": [1.0, 2.0]},
        "krum": {"num_byzantine": 0},
        "trimmed_mean": {"num_trimmed": 0},
        "fairgrad": {"alpha": 2.0},
        "vqgan_adaptive": {"adversary": [False, True]},
        "dwa": {"window": 2},
        "metabalance": {"main": 0},
        "auxiliary_cosine": {"main": 0},
        "auto_lambda": {"main": 0},
        "pcd": {"main": 0},
        "lagrangian": {"bounds": [None, 1.0]},
        "residual_attention": {"num_points": 2},
    }
    for name in methods.METHODS:
        factory = getattr(jaxmtl, name)
        known = {"num_tasks": 2, "key": 0, **own.get(name, {})}
        yield (
            factory,
            {k: v for k, v in known.items() if k in inspect.signature(factory).parameters},
        )


CALLS = [
    *methods_calls(),
    (jaxmtl.on_shared, {"balancer": BALANCER, "shared": True}),
    (jaxmtl.prioritise, {"balancer": BALANCER, "priorities": [1.0, 2.0]}),
    (jaxmtl.with_fixed, {"balancer": BALANCER, "weights": ["balanced", "balanced", 1.0]}),
    (jaxmtl.every, {"balancer": BALANCER, "k": 2}),
    (jaxmtl.smooth, {"balancer": BALANCER, "decay": 0.5}),
    (jaxmtl.warm_up, {"balancer": BALANCER, "steps": 2}),
    (jaxmtl.in_turn, {"balancer": BALANCER}),
    (jaxmtl.skip_broken, {"balancer": BALANCER}),
    (jaxmtl.skip_rounding, {"balancer": BALANCER}),
    (jaxmtl.with_ridge, {"balancer": BALANCER}),
    (jaxmtl.report_only, {"balancer": BALANCER}),
    (jaxmtl.per_task, {"tx": optax.clip(1.0), "num_tasks": 2}),
    (jaxmtl.make_balancer, {"weighting": WEIGHTING}),
    (built(jaxmtl.Weighting, "weighting"), WEIGHTING._asdict()),
    (built(jaxmtl.Timing, "timing"), {}),
    (built(jaxmtl.Preparation, "preparation"), {"init": max, "update": max}),
    (built(jaxmtl.Reporting, "reporting"), {"init": max, "update": max}),
    (jaxmtl.value_and_task_grads, {"fun": losses_fn}),
    (jaxmtl.value_and_balanced_grad, {"fun": losses_fn, "balancer": BALANCER}),
    (jaxmtl.value_and_features_grad, {"encode": max, "decode": decode, "balancer": BALANCER}),
    (jaxmtl.per_example, {"loss_of_one": max, "in_axes": (None, 0)}),
    (jaxmtl.shared_leaves, {"fun": losses_fn, "params": HEADS["a"]}),
    (on_shapes(jaxmtl.masked_mean), {"values": ONES, "mask": ONES > 0}),
    (on_shapes(jaxmtl.ntk_traces), {"residuals_fn": lambda p: p, "params": PARAMS, "key": 0}),
    (on_shapes(jaxmtl.uncertainty_loss), {"losses": ONES, "log_variances": ONES}),
    (on_shapes(jaxmtl.group_advantages), {"rewards": np.ones((4, 2)), "group_size": 2}),
    (jaxmtl.famo_after_step, {"opt_state": jaxmtl.famo(2).init(PARAMS), "losses": ONES}),
    (jaxmtl.find_state, {"opt_state": BALANCER.init(PARAMS)}),
    (jaxmtl.by_task, {"losses": {"a": 1.0, "b": 2.0}, "values": ONES}),
    (on_shapes(update), {"grads": GRADS, "state": BALANCER.init(PARAMS), "losses": 0, "active": 0}),
    (on_shapes(step), {"state": BALANCER.init(PARAMS), "extra": None}),
    (on_shapes(features_step), {"state": BALANCER.init(PARAMS), "extra": None}),
    (on_shapes(returned), {"losses": (1.0, 2.0)}),
    (on_shapes(per_task_update), {"grads": GRADS, "state": None}),
    (jaxmtl.scalars, {"opt_state": BALANCER.init(PARAMS), "losses": ONES}),
    (jaxmtl.Problem, {"init": max, "losses": max, "train": ONES}),
    (methods.make, {"name": "mgda", "num_tasks": 2}),
    (methods.describe, {"name": "mgda"}),
    (on_shapes(diagnostics.report), {"gramian": GRADS, "weights": ONES}),
    (on_shapes(pareto.dominates), {"point": ONES, "other": ONES}),
    (on_shapes(pareto.non_dominated), {"points": GRADS}),
    (on_shapes(pareto.hypervolume), {"points": GRADS, "reference": ONES}),
    (pareto.preferences, {"num_tasks": 2, "divisions": 2}),
    (solvers.barrier, {"gramian": GRADS}),
    (solvers.complementarity, {"matrix": GRADS, "offset": ONES}),
    (on_shapes(solvers.dual_cone), {"gramian": GRADS, "weights": ONES}),
    (solvers.eigen, {"matrix": GRADS}),
    (solvers.linear_program, {"objective": ONES, "matrix": GRADS, "bound": ONES}),
    (solvers.min_norm, {"gramian": GRADS}),
    (solvers.pseudo_solve, {"matrix": GRADS, "offset": ONES}),
    (solvers.equilibrate, {"gramian": GRADS}),
    (solvers.simplex, {"point": ONES}),
    (solvers.worst_case, {"gramian": GRADS, "shares": ONES, "radius": 0.5}),
    (theory.zero_output_cross_entropy, {"num_classes": 3}),
    (theory.zero_output_squared_error, {"targets": ONES}),
    (theory.prior_cross_entropy, {"frequencies": ONES}),
    (theory.prior_binary_cross_entropy, {"frequencies": ONES / 2}),
    (theory.prior_squared_error, {"targets": ONES}),
    (problems.load, {"name": "toy"}),
    (digits, {"tasks": ("left",)}),
    (on_shapes(toy_losses), {"point": PARAMS}),
    (pareto_set, {"num": 3}),
    (plotting.plot_curves, {"series": {"a": ONES}}),
    (plotting.plot_bars, {"values": {"a": ONES}}),
    (plotting.plot_task_weights, {"weights": np.ones((1, 3, 2)), "tasks": ["a", "b"]}),
    (plotting.plot_cosines, {"cosines": GRADS, "tasks": ["a", "b"]}),
    (
        plotting.plot_heat_map,
        {"values": GRADS, "rows": ["a", "b"], "columns": ["a", "b"], "limits": (0, 1)},
    ),
    (plotting.plot_trajectories, {"paths": np.ones((1, 3, 2))}),
    (plotting.plot_simplex_path, {"weights": np.ones((3, 3))}),
    (plotting.plot_front, {"points": {"a": np.ones((3, 2))}}),
]
# What shapes arrays.
STATIC = {
    "num_tasks",
    "num_points",
    "num_byzantine",
    "num_selected",
    "num_trimmed",
    "main",
}
HELPERS = {"nearest", "suggestion", "use_safe_cpu_compiler"}

WRONG = {
    "nothing": None,
    "text": "text",
    "texts": ["a", "b"],
    "a bool": True,
    "a number below zero": -1.5,
    "a fraction": 0.5,
    "a whole number": 2,
    "not a number": math.nan,
    "NumPy's not a number": np.float32("nan"),
    "beyond any float": 10**400,
    "a complex number": 1j,
    "a function": lambda *_: None,
    "a factory": jaxmtl.mgda,
    "a balancer": BALANCER,
    "an optimizer": optax.sgd(0.1),
    "a matrix": np.ones((3, 2)),
    "three numbers": np.ones(3),
    "an array of texts": np.array(["a", "b"]),
    "an empty list": [],
    "a dict of texts": {"a": "b"},
    "an object": object(),
    "a random key": jax.random.key(0),
}
# What is right where an annotation has this in it, and so not tried.
RIGHT = {
    "None": {"nothing"},
    "int": {"a whole number", "beyond any float"},
    "float": {"a whole number", "a fraction", "a number below zero"},
    "bool": {"a bool"},
}
OF_JAX = ("Incompatible", "The truth value", "Cannot", "All input arrays")
# What may be right.
MAY_BE_RIGHT = {
    "Callable": {"a function", "a factory"},
    "Balancer": {"a balancer"},
    "GradientTransformation": {"an optimizer"},
    "Array": {"a matrix", "three numbers", "a fraction", "a whole number"} | {"a bool"},
    "str": {"text"},
    "Sequence": {"texts", "an empty list"},
    "Any": set(WRONG),
    "_empty": set(WRONG),
    "frozenset": {"texts", "an empty list"},
    "tuple": {"texts", "an empty list"},
}


@pytest.mark.parametrize(("function", "right"), CALLS, ids=[call[0].__name__ for call in CALLS])
def test_every_wrong_kind_of_every_argument_is_refused_in_a_sentence(function, right):
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        kind = str(parameter.annotation)
        right_ones = set().union(*(kinds for part, kinds in RIGHT.items() if part in kind))
        fits = set().union(*(kinds for part, kinds in MAY_BE_RIGHT.items() if part in kind))
        if name == "key":
            right_ones.add("a random key")
        for what in WRONG.keys() - right_ones:
            try:
                function(**(right | {name: WRONG[what]}))
            except Exception as error:
                came = error
            else:
                assert what in fits, f"{name} may not be {what}"
                continue
            # A factory in the place of a function is called, and has its own sentence.
            is_sentence = isinstance(came, ValueError) or "cannot be called so" in str(came)
            ours = str(came).endswith((".", ".)")) and not str(came).startswith(OF_JAX)
            assert is_sentence, (name, what, repr(came))
            assert ours, (name, what, repr(came))
    plt.close("all")


@pytest.mark.parametrize(("method", "right"), list(methods_calls()))
def test_what_has_to_be_static_says_so(method, right):
    for name in right.keys() - {"adversary", "weights", "values"}:
        others = tuple(inspect.signature(method).parameters.keys() - {name})
        injected = optax.inject_hyperparams(method, static_args=others)(**right)
        if name in STATIC:
            with pytest.raises(ValueError, match=rf"{name} must .* list it in static_args"):
                jax.eval_shape(injected.init, PARAMS)
        else:
            jax.eval_shape(injected.init, PARAMS)


def test_every_public_function_is_listed():
    modules = jaxmtl, methods, pareto, solvers, theory, diagnostics, plotting
    public = {
        name
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith("_")
        and inspect.isroutine(value)
        and value.__module__.startswith("jaxmtl")
        and (module in (jaxmtl, solvers, plotting) or value.__module__ == module.__name__)
    }
    assert public - HELPERS == {function.__name__ for function, _ in CALLS} & public
