"""One gradient a step, ``in_turn``, on the network and the losses of ConFIG's Burgers example."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmtl
from tests.speed.measure import Ratio, compare

LAYERS = (2, 50, 50, 50, 50, 50, 1)
VISCOSITY = 0.01 / np.pi
DEAREST = "residual"


def turns() -> Iterator[Ratio]:
    """Plain steps with Adam on the dearest of three losses, over ours."""
    what = "one gradient a step beside a plain step of the dearest loss"
    inner = jaxmtl.conflict_free(num_tasks=3)
    plain, balancer = _plain(), jaxmtl.in_turn(inner)
    yield compare(
        what, "Burgers, three steps, one of each", _thrice(_step(balancer)), _thrice(plain)
    )
    dearest = _turn_of(balancer, 2), _plain(held=True)
    yield compare(what, "Burgers, the turn of the dearest", *dearest)
    yield compare(what, "Burgers, three gradients a step", _step(inner), plain)


def losses_fn(params: Any, points: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Mean squares of the equation, the start -sin(pi x), and zero at either end; in this order."""

    def u(x: jax.Array, t: jax.Array) -> jax.Array:
        h = jnp.stack([x, t])
        for kernel, bias in params[:-1]:
            h = jnp.tanh(h @ kernel + bias)
        kernel, bias = params[-1]
        return (h @ kernel + bias)[0]

    u_x = jax.grad(u)

    def residual(x: jax.Array, t: jax.Array) -> jax.Array:
        u_t, u_xx = jax.grad(u, 1)(x, t), jax.grad(u_x)(x, t)
        return u_t + u(x, t) * u_x(x, t) - VISCOSITY * u_xx

    def square(of_point: Callable[..., jax.Array], name: str) -> jax.Array:
        return jnp.mean(jax.vmap(of_point)(*points[name]) ** 2)

    return {
        "boundary": square(u, "boundary"),
        "initial": square(lambda x, t: u(x, t) + jnp.sin(jnp.pi * x), "initial"),
        "residual": square(residual, "residual"),
    }


def _start() -> tuple[Any, dict[str, jax.Array]]:
    rng = np.random.default_rng(0)

    def uniform(low: float, high: float, number: int) -> jax.Array:
        return jnp.asarray(rng.uniform(low, high, number), jnp.float32)

    points = {
        "boundary": jnp.stack([jnp.sign(uniform(-1, 1, 50)), uniform(0, 1, 50)]),
        "initial": jnp.stack([uniform(-1, 1, 50), jnp.zeros(50)]),
        "residual": jnp.stack([uniform(-1, 1, 2000), uniform(0, 1, 2000)]),
    }
    params = [
        (
            jnp.asarray(rng.normal(size=(a, b)) * np.sqrt(2 / (a + b)), jnp.float32),
            jnp.full(b, 0.001),
        )
        for a, b in itertools.pairwise(LAYERS)
    ]
    return params, points


def _stepper(state: Any, grad_fn: Callable[..., Any], *, held: bool = False) -> Callable[[], Any]:
    """A jitted step with Adam; with ``held``, from one state and the same parameters each time."""
    params, points = _start()
    optimizer = optax.adam(1e-4)

    def step(params: Any, state: Any, opt_state: Any, points: Any) -> Any:
        grad, state = grad_fn(state, params, points)
        updates, opt_state = optimizer.update(grad, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state

    jitted = jax.jit(step, donate_argnums=() if held else (0, 1, 2))
    kept = [(params, state, optimizer.init(params))]

    def call() -> Any:
        found = jitted(*kept[0], points)
        if not held:
            kept[0] = found
        return found

    return call


def _plain(*, held: bool = False) -> Callable[[], Any]:
    def dearest(params: Any, points: Any) -> jax.Array:
        return losses_fn(params, points)[DEAREST]

    return _stepper((), lambda state, *args: (jax.grad(dearest)(*args), state), held=held)


def _step(balancer: jaxmtl.Balancer) -> Callable[[], Any]:
    route = jaxmtl.value_and_balanced_grad(losses_fn, balancer)
    return _stepper(balancer.init(_start()[0]), lambda *args: route(*args)[1:])


def _turn_of(balancer: jaxmtl.Balancer, task: int) -> Callable[[], Any]:
    """The step of one task's turn, again and again."""
    route = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer))
    params, points = _start()
    state = balancer.init(params)
    for _ in range(3 + task):
        _, _, state = route(state, params, points)
    return _stepper(state, lambda *args: route(*args)[1:], held=True)


def _thrice(step: Callable[[], Any]) -> Callable[[], Any]:
    def call() -> Any:
        for _ in range(3):
            result = step()
        return result

    return call
