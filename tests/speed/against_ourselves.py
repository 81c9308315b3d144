"""Whole training steps beside a plain one, the Gramian beside its floor, compile times."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxmtl
from tests.speed.measure import Ratio, compare
from tests.speed.models import MODELS, Jax, Model, losses_fn

Step = Callable[[], Any]


def steps(tasks: tuple[int, ...] = (2, 8)) -> Iterator[Ratio]:
    """Whole steps with Adam: a plain sum of the losses over ours; 1 where balancing is free."""
    for kind, make in MODELS.items():
        for num_tasks in tasks:
            model, upgrad = make(num_tasks), jaxmtl.upgrad(num_tasks=num_tasks)
            plain, plain_apart = _plain(model), _plain(model, _losses_apart)
            stacked = _balanced(model, upgrad)
            cases: dict[str, tuple[Step, Step]] = {
                "gls": (_balanced(model, jaxmtl.gls(num_tasks=num_tasks)), plain),
                "upgrad, features": (_features(model, upgrad), plain),
                "upgrad, stacked": (stacked, plain),
                "upgrad, stacked, beside T backward": (stacked, separate(model, num_tasks)),
                "upgrad, lean": (_balanced(model, upgrad, memory="lean"), plain),
                "upgrad, a batch a task": (_balanced(model, upgrad, _losses_apart), plain_apart),
                "every(upgrad, 10), ten": (
                    _repeated(_balanced(model, jaxmtl.every(upgrad, 10))),
                    _repeated(plain),
                ),
            }
            for case, (ours, theirs) in cases.items():
                name = f"{kind}, {case}, T = {num_tasks}"
                yield compare("training step beside a plain one", name, ours, theirs, seconds=1.5)


def stepper(model: Model, state: Any, grad_fn: Callable[[Any, Any, Any], Any]) -> Step:
    """A jitted step with Adam, its buffers donated, from ``(state, params, x)`` to a gradient."""
    optimizer, x = optax.adam(1e-3), jnp.asarray(model.batch)

    def step(params: Any, state: Any, opt_state: Any, x: jax.Array) -> Any:
        grad, state = grad_fn(state, params, x)
        updates, opt_state = optimizer.update(grad, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state

    jitted = jax.jit(step, donate_argnums=(0, 1, 2))
    params = first_params(model)
    kept = [(params, state, optimizer.init(params))]

    def call() -> Any:
        kept[0] = jitted(*kept[0], x)
        return kept[0]

    return call


def first_params(model: Model) -> Any:
    """Parameters to begin from, anew at each call, since a step takes over their memory."""
    return jax.tree.map(jnp.array, {"trunk": model.params, "heads": model.heads})


def _losses_apart(trunk: Any, params: Any, x: jax.Array) -> dict[str, jax.Array]:
    """The losses of tasks that have a batch each."""
    return {
        task: losses_fn(trunk, {"trunk": params["trunk"], "heads": {task: w}}, x + i)[task]
        for i, (task, w) in enumerate(params["heads"].items())
    }


def _plain(model: Model, losses: Callable[..., Any] = losses_fn) -> Step:
    def total(params: Any, x: jax.Array) -> jax.Array:
        return sum(losses(model.trunk, params, x).values())

    return stepper(model, (), lambda state, params, x: (jax.grad(total)(params, x), state))


def _balanced(
    model: Model,
    balancer: jaxmtl.Balancer,
    losses: Callable[..., Any] = losses_fn,
    **options: Any,
) -> Step:
    route = jaxmtl.value_and_balanced_grad(partial(losses, model.trunk), balancer, **options)
    return stepper(model, balancer.init(first_params(model)), lambda *args: route(*args)[1:])


def _features(model: Model, balancer: jaxmtl.Balancer) -> Step:
    def decode(heads: Any, features: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        del x
        return {task: jnp.mean((features @ w - 1) ** 2) for task, w in heads.items()}

    route = jaxmtl.value_and_features_grad(
        lambda trunk, x: model.trunk(Jax, trunk, x), decode, balancer
    )

    def grad_fn(state: Any, params: Any, x: jax.Array) -> Any:
        _, (trunk, heads), state = route(state, params["trunk"], params["heads"], x)
        return {"trunk": trunk, "heads": heads}, state

    return stepper(model, balancer.init(first_params(model)["trunk"]), grad_fn)


def separate(model: Model, num_tasks: int) -> Step:
    """One forward and T backward passes, and nothing else: the sum of what they return."""

    def grad_fn(state: Any, params: Any, x: jax.Array) -> Any:
        losses, pull_back = jax.vjp(lambda p: losses_fn(model.trunk, p, x), params)
        one_hot = (jax.tree.unflatten(jax.tree.structure(losses), e) for e in jnp.eye(num_tasks))
        grads = [pull_back(cotangent)[0] for cotangent in one_hot]
        # Without it, XLA adds up the cotangents and goes back once.
        grads = jax.lax.optimization_barrier(grads)
        return jax.tree.map(lambda *leaves: sum(leaves), *grads), state

    return stepper(model, (), grad_fn)


def _repeated(step: Step) -> Step:
    def call() -> Any:
        for _ in range(10):
            result = step()
        return result

    return call


def floor(tasks: tuple[int, ...] = (2, 8, 32), size: int = 4 * 10**6) -> Iterator[Ratio]:
    """Gramian and combination beside the larger of two bounds: bytes moved, and products.

    The bound in bytes reads the stack twice and writes the update once, at the rate of adding 1 in
    place; that in products takes half the symmetric matrix, at the rate of a square product.
    """
    block, numbers = jnp.ones((1024, 1024)), [jnp.ones(64 * 10**6)]
    product = jax.jit(lambda a: a @ a)
    in_place = jax.jit(lambda a: a + 1, donate_argnums=0)

    def add() -> Any:
        numbers[0] = in_place(numbers[0])
        return numbers[0]

    rates = compare("", "", lambda: product(block), add, seconds=2)
    flops, bytes_ = 2 * 1024**3 / rates.ours, 8 * numbers[0].size / rates.theirs  # a millisecond
    for num_tasks in tasks:
        stack = jax.random.normal(jax.random.key(0), (num_tasks, size))
        balancer = jaxmtl.normalize(num_tasks=num_tasks)
        update, state = jax.jit(balancer.update), balancer.init(stack[0])
        bound = max(
            4 * size * (2 * num_tasks + 1) / bytes_, num_tasks * (num_tasks + 3) * size / flops
        )
        ours = compare("", "", lambda u=update, g=stack, s=state: u(g, s), lambda: 0).ours
        case = f"T = {num_tasks}, P = {size:.0e}"
        what = "Gramian and combination beside the floor"
        yield Ratio(what, case, ours, bound, *[bound / ours] * 3)


def compile_times() -> Iterator[Ratio]:
    """Compiling the step at T = 2 over T = 32; below 1, the larger takes longer."""
    for kind, make in MODELS.items():
        of_32, of_2 = _compilation(make(32), 32), _compilation(make(2), 2)
        yield compare("compile time, T = 2 over T = 32", kind, of_32, of_2)


def _compilation(model: Model, num_tasks: int) -> Step:
    balancer = jaxmtl.upgrad(num_tasks=num_tasks)
    params = {**first_params(model), "heads": jnp.stack(list(model.heads.values()))}
    args = balancer.init(params), params, jnp.asarray(model.batch)

    def call() -> None:
        def losses(params: Any, x: jax.Array) -> jax.Array:
            errors = model.trunk(Jax, params["trunk"], x) @ params["heads"].T - 1
            return jnp.mean(errors**2, axis=0)

        # A function of its own each time, or tracing would be found done.
        jax.jit(jaxmtl.value_and_balanced_grad(losses, balancer)).lower(*args).compile()

    return call
