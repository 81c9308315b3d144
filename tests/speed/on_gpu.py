"""What to measure on a GPU: kernels beside XLA's loops, the floor, and waits of the host."""

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import jaxmtl
from jaxmtl.methods import METHODS, make
from jaxmtl.solvers import (
    _one_launch,
    barrier,
    dual_cone,
    eigen,
    linear_program,
    min_norm,
    worst_case,
)
from tests.speed.measure import Ratio, compare

SOLVERS: dict[str, Callable[[jax.Array], Any]] = {
    "min_norm": min_norm,
    "dual_cone": lambda g: dual_cone(g, jnp.full(len(g), 1 / len(g))),
    "dual_cone of each": lambda g: dual_cone(g, jnp.eye(len(g)) / len(g)),
    "worst_case": lambda g: worst_case(g, jnp.full(len(g), 1 / len(g)), 0.5),
    "barrier": barrier,
    "eigen": eigen,
    "linear_program": lambda g: linear_program(g[0], g, jnp.zeros(len(g))),
}
# Events of a profile at which the host reads from the device, as CUDA's tracer names them.
COPIES_TO_HOST = ("MemcpyD2H", "Memcpy D2H", "memcpyDtoH", "Memcpy DtoH")


def gram(num_tasks: int) -> jax.Array:
    """Of Gaussian gradients that conflict a little."""
    j = np.random.default_rng(0).normal(size=(num_tasks, 4 * num_tasks + 16))
    j -= 0.5 * j.mean(axis=0)
    return jnp.asarray(j @ j.T, jnp.float32)


def compiled(solve: Callable[[jax.Array], Any], argument: jax.Array, loops: bool) -> Any:
    """A solver as it is compiled here, or as XLA's loops."""
    jax.clear_caches()
    limit = 0 if loops else _one_launch.MOST_ENTRIES
    with mock.patch.object(_one_launch, "MOST_ENTRIES", limit):
        found = jax.jit(solve).lower(argument).compile()
    jax.clear_caches()
    return found


def kernels(tasks: tuple[int, ...] = (2, 8, 32, 64)) -> Iterator[Ratio]:
    """Each solver as one launch; above 1, XLA's loops take longer."""
    for num_tasks in tasks:
        argument = gram(num_tasks)
        for name, solve in SOLVERS.items():
            one, many = (compiled(solve, argument, loops) for loops in (False, True))
            apart = max(
                float(jnp.max(jnp.abs(a - b)))
                for a, b in zip(one(argument)[:1], many(argument)[:1], strict=True)
            )
            yield compare(
                "a solver's kernel beside XLA's loops",
                f"{name}, T = {num_tasks}",
                lambda f=one, g=argument: f(g),
                lambda f=many, g=argument: f(g),
            )._replace(note=f"results differ by {apart:.0e}")


def floor(
    tasks: tuple[int, ...] = (2, 8, 32), sizes: tuple[int, ...] = (10**6, 10**8, 10**9)
) -> Iterator[Ratio]:
    """Gramian and combination of a bfloat16 stack beside the time that its bytes take.

    They read the stack twice and write the update once; the rate is that of adding 1 in place. What
    does not fit the memory is left out.
    """
    free = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 2 * 10**9)
    number = min(10**9, free // 8)
    numbers = [jnp.ones(number, jnp.bfloat16)]
    in_place = jax.jit(lambda a: a + 1, donate_argnums=0)

    def add() -> Any:
        numbers[0] = in_place(numbers[0])
        return numbers[0]

    bandwidth = 4 * number / compare("", "", add, lambda: 0, seconds=2).ours  # bytes a millisecond
    numbers.clear()
    for num_tasks in tasks:
        balancer = jaxmtl.normalize(num_tasks=num_tasks)
        for size in sizes:
            if 2 * size * (num_tasks + 2) > 0.9 * free:
                continue
            key = jax.random.key(0)
            stack = jax.jit(
                lambda key, shape=(num_tasks, size): jax.random.normal(key, shape, jnp.bfloat16)
            )(key)
            update, state = jax.jit(balancer.update), balancer.init(stack[0])
            ours = compare("", "", lambda u=update, g=stack, s=state: u(g, s), lambda: 0).ours
            bound = 2 * size * (2 * num_tasks + 1) / bandwidth
            yield Ratio(
                "Gramian and combination of bfloat16 beside the floor",
                f"T = {num_tasks}, P = {size:.0e}",
                ours,
                bound,
                *[bound / ours] * 3,
                f"{1e-6 * bandwidth:.0f} GB/s",
            )


def waits(
    tasks: tuple[int, ...] = (8, 32), names: Sequence[str] = tuple(METHODS)
) -> Iterator[Ratio]:
    """Copies from the device to the host in the updates of each method: 1 where there is none."""
    for num_tasks in tasks:
        grads, losses = jax.random.normal(jax.random.key(0), (num_tasks, 1000)), jnp.ones(num_tasks)
        values = {"losses": losses, "ntk_traces": losses, "independent_grads": (grads, grads)}
        for name in names:
            balancer = make(name, num_tasks)
            given = {key: values[key] for key in ("losses", *METHODS[name].needs)}
            call = functools.partial(jax.jit(balancer.update), grads, balancer.init(grads[0]))
            count = len([e for e in events(call, given) if e.startswith(COPIES_TO_HOST)])
            yield Ratio(
                "copies to the host in ten updates",
                f"{name}, T = {num_tasks}",
                count,
                0,
                *[1 / (1 + count)] * 3,
                f"{count} copies",
            )


def events(function: Callable[..., Any], given: dict[str, Any]) -> list[str]:
    """The names of all that the profiler sees in ten calls of a function that is compiled."""
    jax.block_until_ready(function(**given))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready([function(**given) for _ in range(10)])
        (file,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(file)).planes
        return [event.name for plane in planes for line in plane.lines for event in line.events]
