"""Train one problem with many methods: the experiment behind ``jaxmtl.compare``.

Every method trains the same network, from the same initial parameters, on the same batches and with
the same random keys. The task weights are computed from the gradients of the shared leaves; all
others receive their own task's gradient. A single-task reference is the same network trained on one
loss alone.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._programs import operations, read_program, rewritten_or_plain
from jaxmtl.backward._task_grads import value_and_task_grads
from jaxmtl.balancing._gram import gramian
from jaxmtl.balancing._leaf_roles import selected_only
from jaxmtl.comparison._batches import MOST_CHUNKS, Batches, over_seeds
from jaxmtl.comparison._completed import Completed, example
from jaxmtl.comparison._contestants import Contestant, constant_weights
from jaxmtl.comparison._outcome import Outcome, what_broke
from jaxmtl.comparison._program import training
from jaxmtl.diagnostics import report

SHORTEST = 1e-3  # shortest time measured, in seconds; ten times the start of a program
ENOUGH = 1e-2  # time over which steps with constant weights are measured, in seconds
MOST_BYTES = 2**33


class Trainer:
    """One problem, and what all runs on it share: data, keys, compiled programs."""

    def __init__(
        self, completed: Completed, *, steps: int, seeds: int, seeds_at_once: int | None = None
    ):
        self.completed = completed
        self.problem = completed.problem
        self.steps = steps
        self.seeds = seeds
        wanted = self._fewest() if seeds_at_once is None else min(seeds_at_once, seeds)
        self._check_size(wanted)
        self.at_once = max(n for n in range(1, wanted + 1) if seeds % n == 0)
        self.groups = [range(i, i + self.at_once) for i in range(0, seeds, self.at_once)]
        self.batches = Batches(self.problem, steps=steps, seeds=seeds, at_once=self.at_once)
        self.keys = jax.random.split(jax.random.key(0), seeds)
        self._start = jax.jit(over_seeds(completed.start, (0,), (0, 0), self.at_once))
        self._test, self._validation = jax.device_put((self.problem.test, self.problem.validation))
        self._measure = jax.jit(over_seeds(completed.measure, (0, 0, None), 0, self.at_once))
        self._see = jax.jit(over_seeds(self._seen, (0, 0, 0, 0, None), (0, 0), self.at_once))
        self._programs: dict[Any, tuple[Any, Any]] = {}
        self._unit_steps = self.batches.chunk

    def train(self, contestant: Contestant, rate: float, advance: Callable[[int], None]) -> Outcome:
        """Train all seeds of one contestant; ``advance(n)`` is called after every n steps."""
        parts = [self._train_group(contestant, rate, group, advance) for group in self.groups]
        records, metrics, validation, seconds, times, seen = zip(*parts, strict=True)
        losses, weights = (np.concatenate(side, axis=1) for side in zip(*records, strict=True))
        conflicts, ratios = (np.concatenate(side) for side in zip(*seen, strict=True))
        with np.errstate(all="ignore"):  # of weights that sum to zero, or are not finite
            shares = weights / weights.sum(axis=-1, keepdims=True)
        return Outcome(
            np.concatenate(metrics),
            losses.mean(axis=1),
            weights.mean(axis=1),
            shares.mean(axis=1),
            float(sum(map(np.median, seconds))),
            np.concatenate(times),
            float(np.mean(conflicts)),
            _median(ratios[ratios > 0]),  # zero if there were no gradients
            _temporary_bytes(self._compile(contestant)[1]),
            what_broke(losses, self.problem.tasks or ()),
            None if validation[0] is None else np.concatenate(validation),
            None if isinstance(self.problem.optimizer, optax.GradientTransformation) else rate,
        )

    def _train_group(
        self, contestant: Contestant, rate: float, group: range, advance: Callable[[int], None]
    ) -> Any:
        """Train the seeds that are trained at once."""
        run, shared, carry = self._begin(contestant, rate, group)
        records, seconds, times, seen, done = [], [], [], [], 0
        seldom = -(-len(self.batches.lengths) // MOST_CHUNKS)
        for number, chosen in enumerate(self.batches.of_seeds(group)):
            length = self.batches.lengths[number]
            if number % seldom == 0:
                first = jax.tree.map(lambda leaf: leaf[0], chosen)
                found = self._see(*carry[:2], shared[2], first, self.batches.arrays)
                seen.append(jax.tree.map(np.asarray, found))
            numbers = jnp.int32(done), jnp.int32(length)
            (carry, record), took = _timed(
                run, *shared, carry, chosen, *numbers, self.batches.arrays
            )
            records.append(jax.tree.map(lambda x, n=length: np.asarray(x[:n]), record))
            seconds.append(took / length)
            if contestant.make is constant_weights:
                times.append(1.0)  # the program that is the unit
            elif (
                number % 2 and (unit := self._seconds_of_equal(group, chosen)) and took >= SHORTEST
            ):
                times.append(took / length / unit)
            done += length
            advance(length * len(group))
        records = [np.concatenate(side) for side in zip(*records, strict=True)]
        metrics, validation = (
            None if split is None else np.asarray(self._measure(*carry[:2], split), np.float64)
            for split in (self._test, self._validation)
        )
        seen = [np.concatenate(side) for side in zip(*seen, strict=True)]
        return records, metrics, validation, seconds, times, seen

    def _begin(self, contestant: Contestant, rate: float, group: range) -> Any:
        """The program of some seeds, its arguments at every chunk, and its start."""
        start, run = self._compile(contestant)
        constants = jnp.asarray(contestant.constants, jnp.float32)
        shared = constants, jnp.float32(rate), self._keys_of(group)
        params, state = self._start(shared[2])
        return run, shared, (params, state, start(*shared, params))

    def _keys_of(self, group: range) -> Array:
        return self.keys[group.start : group.stop]

    def _seconds_of_equal(self, group: range, chosen: PyTree) -> float:
        """Time a step with constant weights; 0 if that is too short to measure."""
        ones = np.ones(len(self.problem.tasks or ()))
        equal = Contestant("equal", constant_weights, ones)
        run, shared, carry = self._begin(equal, 0, group)
        jax.block_until_ready(carry)
        numbers = jnp.int32(0), jnp.int32(self._unit_steps)
        took = _timed(run, *shared, carry, chosen, *numbers, self.batches.arrays)[1]
        step = took / self._unit_steps
        self._unit_steps = int(np.clip(np.ceil(ENOUGH / step), 1, self.batches.chunk))
        return step if took >= SHORTEST else 0.0

    def _seen(
        self, params: PyTree, state: PyTree, key: Array, chosen: PyTree, arrays: PyTree
    ) -> tuple[Array, Array]:
        """The share of conflicting pairs, and the longest over the shortest gradient."""
        batch = self.batches.pick(chosen, arrays)
        of_tasks = value_and_task_grads(self.completed.losses, has_aux=True)
        _, grads = of_tasks(params, state, batch, key)
        measured = selected_only((self.completed.shared,), grads)
        gram = gramian(jax.tree.leaves(measured))
        found = report(gram, jnp.ones(len(gram), gram.dtype))
        return found.conflicts, found.norm_ratio

    def _check_size(self, at_once: int) -> None:
        """Refuse a comparison that would not fit into memory, before it starts."""
        params = jax.tree.leaves(self.completed.params)
        tasks = len(self.problem.tasks or ())
        copies = tasks + 3  # gradients; Adam's moments
        recorded = 6 * tasks * self.steps * self.seeds  # losses and weights, joined, their means
        numbers = recorded + at_once * copies * sum(leaf.size for leaf in params)
        if (size := 4 * numbers) > MOST_BYTES:
            raise ValueError(
                f"seeds={self.seeds} and steps={self.steps} take {size / 2**30:.3g} GiB of memory,"
                f" more than the {MOST_BYTES / 2**30:.3g} that a comparison may take: choose fewer."
            )

    def _fewest(self) -> int:
        """One seed at a time if there are convolutions: XLA runs batched kernels slowly."""
        batch, key = example(self.problem), jax.random.key(0)
        params, state = jax.eval_shape(self.completed.start, key)

        def convolved() -> bool:
            program, _, _ = read_program(self.completed.losses, params, state, batch, key)
            return any(e.primitive.name == "conv_general_dilated" for e in operations(program))

        return 1 if rewritten_or_plain(convolved, lambda: False) else self.seeds

    def _compile(self, contestant: Contestant) -> Any:
        """Compile the start and a chunk of training, once for each way to make a balancer."""
        make = contestant.make
        if make in self._programs:
            return self._programs[make]
        start, run = training(self.completed, self.batches, self.steps, make)
        start_all = jax.jit(over_seeds(start, (None, None, 0, 0), 0, self.at_once))
        axes = (None, None, 0, 0, 1, None, None, None)
        run_all = jax.jit(over_seeds(run, axes, (0, 1), self.at_once))
        group = self.groups[0]
        constants, rate = jnp.asarray(contestant.constants, jnp.float32), jnp.float32(0)
        keys = self._keys_of(group)
        params, state = self._start(keys)
        carry = params, state, start_all(constants, rate, keys, params)
        numbers = jnp.int32(0), jnp.int32(0)
        chosen = next(self.batches.of_seeds(group))
        arguments = constants, rate, keys, carry, chosen, *numbers, self.batches.arrays
        self._programs[make] = start_all, run_all.lower(*arguments).compile()
        return self._programs[make]


def _timed(program: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Call, wait for the result, and return it with the seconds it took."""
    clock = time.perf_counter()
    result = jax.block_until_ready(program(*arguments))
    return result, time.perf_counter() - clock


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _temporary_bytes(program: Any) -> int | None:
    found = program.memory_analysis()
    return getattr(found, "temp_size_in_bytes", None)
