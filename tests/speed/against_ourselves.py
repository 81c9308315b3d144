"""Whole training steps beside a plain one, the Gramian beside its floor, compile times."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import jaxmtl
from tests.speed.measure import Ratio, compare

WIDTH, DEPTH, BATCH = 512, 6, 128


def encode(shared: Any, x: jax.Array) -> jax.Array:
    """A trunk of square layers."""
    for i in range(DEPTH):
        x = jnp.tanh(x @ shared[f"w{i}"])
    return x


def decode(heads: jax.Array, features: jax.Array, x: jax.Array) -> jax.Array:
    """One linear head and squared error for each task."""
    del x
    return jnp.mean((features @ heads - 1) ** 2, axis=0)


def losses_fn(params: Any, x: jax.Array) -> jax.Array:
    """All losses."""
    return decode(params["heads"], encode(params["shared"], x), x)


def model(num_tasks: int) -> tuple[Any, jax.Array]:
    """Parameters and a batch."""
    keys = jax.random.split(jax.random.key(0), DEPTH + 2)
    draw = jax.random.normal
    shared = {f"w{i}": draw(keys[i], (WIDTH, WIDTH)) / WIDTH**0.5 for i in range(DEPTH)}
    heads = draw(keys[-1], (WIDTH, num_tasks)) / WIDTH**0.5
    return {"shared": shared, "heads": heads}, draw(keys[-2], (BATCH, WIDTH))


def steps(tasks: tuple[int, ...] = (2, 8)) -> Iterator[Ratio]:
    """Steps of an MLP: a plain sum of the losses over ours, 1 where balancing costs nothing."""
    for num_tasks in tasks:
        params, x = model(num_tasks)
        plain = jax.jit(jax.grad(lambda p: jnp.sum(losses_fn(p, x))))  # noqa: B023
        gls = jaxmtl.gls(num_tasks=num_tasks)
        upgrad = jaxmtl.upgrad(num_tasks=num_tasks)

        def routed(balancer: Any, calls: int = 1, **options: Any) -> Callable[[], Any]:
            route = jax.jit(jaxmtl.value_and_balanced_grad(losses_fn, balancer, **options))
            state = [balancer.init(params)]  # noqa: B023

            def call() -> Any:
                for _ in range(calls):
                    _, grad, state[0] = route(state[0], params, x)  # noqa: B023
                return grad

            return call

        by_features = jax.jit(jaxmtl.value_and_features_grad(encode, decode, upgrad))
        of_features = upgrad.init(params["shared"])
        separate = jax.jit(
            lambda p: [jax.grad(lambda p, i=i: losses_fn(p, x)[i])(p) for i in range(num_tasks)]  # noqa: B023
        )
        cases = {
            "gls (losses only)": (routed(gls), lambda f=plain, p=params: f(p)),
            "upgrad, features": (
                lambda f=by_features, s=of_features, p=params, x=x: f(
                    s, p["shared"], p["heads"], x
                )[1],
                lambda f=plain, p=params: f(p),
            ),
            "upgrad, stacked": (routed(upgrad), lambda f=plain, p=params: f(p)),
            "upgrad, stacked, beside T gradients": (
                routed(upgrad),
                lambda f=separate, p=params: f(p),
            ),
            "upgrad, lean": (routed(upgrad, memory="lean"), lambda f=plain, p=params: f(p)),
            "every(upgrad, 10), ten steps": (
                routed(jaxmtl.every(upgrad, 10), calls=10),
                lambda f=plain, p=params: [f(p) for _ in range(10)],
            ),
        }
        for case, (ours, theirs) in cases.items():
            yield compare("training step", f"{case}, T = {num_tasks}", ours, theirs, seconds=2)


def floor(tasks: tuple[int, ...] = (2, 8, 32), size: int = 4 * 10**6) -> Iterator[Ratio]:
    """Gramian and combination beside the larger of two bounds: copies, and products."""
    block = jnp.ones((1024, 1024))
    product = jax.jit(lambda a: a @ a)
    big = jnp.ones(32 * 10**6)
    copy = jax.jit(lambda a: a + 1)
    rate = 2 * 1024**3 / (1e-3 * compare("", "", lambda: product(block), lambda: copy(big)).ours)
    speed = 8 * big.size / (1e-3 * compare("", "", lambda: copy(big), lambda: copy(big)).ours)
    for num_tasks in tasks:
        stack = jax.random.normal(jax.random.key(0), (num_tasks, size))
        balancer = jaxmtl.normalize(num_tasks=num_tasks)
        update, state = jax.jit(balancer.update), balancer.init(stack[0])
        moved = 4 * size * (2 * num_tasks + 1) / speed
        counted = 2 * num_tasks * (num_tasks + 1) * size / rate
        ours = compare("", "", lambda u=update, g=stack, s=state: u(g, s)[0], lambda: 0).ours
        bound = 1e3 * max(moved, counted)
        ratio = bound / ours
        case = f"T = {num_tasks}, P = {size:.0e}"
        yield Ratio("Gramian and combination beside the floor", case, ours, bound, *[ratio] * 3)


def compile_times() -> Iterator[Ratio]:
    """Compiling the step at T = 32 beside T = 2; above 1 is worse."""
    times = []
    for num_tasks in (2, 32):
        params, x = model(num_tasks)
        balancer = jaxmtl.upgrad(num_tasks=num_tasks)
        route = jaxmtl.value_and_balanced_grad(losses_fn, balancer)
        start = time.perf_counter()
        jax.jit(route).lower(balancer.init(params), params, x).compile()
        times.append(1e3 * (time.perf_counter() - start))
    ratio = times[0] / times[1]
    yield Ratio("compile time of the step", "T = 32 beside T = 2", times[1], times[0], *[ratio] * 3)
