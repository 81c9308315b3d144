"""Train one problem with many methods: the experiment behind ``jaxmtl.compare``.

Every method trains the same network, from the same initial parameters, on the same batches and with
the same random keys. The task weights come from the gradients of the shared leaves; all others
receive their own task's gradient. A single-task reference is the same network trained on one loss
alone.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmtl._task_values import task_vector
from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._programs import operations, read_program, rewritten_or_plain
from jaxmtl.backward._routes import value_and_balanced_grad
from jaxmtl.backward._task_grads import value_and_task_grads
from jaxmtl.balancing._base import Balancer
from jaxmtl.balancing._gram import gramian
from jaxmtl.balancing._leaf_roles import selected_only
from jaxmtl.combinators._shared import on_shared
from jaxmtl.comparison._batches import Batches, over_seeds
from jaxmtl.comparison._completed import Completed, example
from jaxmtl.comparison._contestants import Contestant, constant_weights
from jaxmtl.comparison._outcome import Outcome, what_broke
from jaxmtl.diagnostics import report

MOST_CHUNKS = 20
MIN_CHUNK = 10  # steps, unless there are fewer
SHORTEST = 1e-3  # seconds that a chunk takes to be timed, ten times what starting it takes
MOST_BYTES = 2**33


class Trainer:
    """One problem, and what all runs on it share: data, initial parameters, compiled programs."""

    def __init__(
        self, completed: Completed, *, steps: int, seeds: int, seeds_at_once: int | None = None
    ):
        self.completed = completed
        self.problem = completed.problem
        self.steps = steps
        self.seeds = seeds
        self._check_size()
        # Equal chunks, so that one program serves them all; between two, progress shows.
        most = max(1, min(MOST_CHUNKS, steps // MIN_CHUNK))
        self.chunks = max(n for n in range(1, most + 1) if steps % n == 0)
        self.batches = Batches(
            self.problem, chunks=self.chunks, chunk=steps // self.chunks, seeds=seeds
        )
        self.keys = jax.random.split(jax.random.key(0), seeds)
        start = over_seeds(completed.start, (0,), (0, 0), seeds)
        self.params, self.state = jax.jit(start)(self.keys)
        wanted = self._fewest() if seeds_at_once is None else min(seeds_at_once, seeds)
        self.at_once = max(n for n in range(1, wanted + 1) if seeds % n == 0)
        self.groups = [range(i, i + self.at_once) for i in range(0, seeds, self.at_once)]
        self._test, self._validation = jax.device_put((self.problem.test, self.problem.validation))
        self._measure = jax.jit(over_seeds(completed.measure, (0, 0, None), 0, self.at_once))
        self._see = jax.jit(over_seeds(self._seen, (0, 0, 0, 0, None), (0, 0), self.at_once))
        self._programs: dict[Any, tuple[Any, Any]] = {}

    def train(self, contestant: Contestant, advance: Callable[[int], None]) -> Outcome:
        """Train all seeds of one contestant; ``advance(n)`` is called after every n steps."""
        parts = [self._train_group(contestant, group, advance) for group in self.groups]
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
            float(sum(map(np.median, seconds))) * self.chunks / self.steps,
            np.concatenate(times),
            float(np.mean(conflicts)),
            _median(ratios[ratios > 0]),  # zero where there were no gradients
            _temporary_bytes(self._compile(contestant.make, jnp.asarray(contestant.constants))[1]),
            what_broke(losses, self.problem.tasks or ()),
            None if validation[0] is None else np.concatenate(validation),
            None
            if isinstance(self.problem.optimizer, optax.GradientTransformation)
            else self.problem.learning_rate,
        )

    def _train_group(
        self, contestant: Contestant, group: range, advance: Callable[[int], None]
    ) -> Any:
        """Train the seeds that are trained at once."""
        constants = jnp.asarray(contestant.constants, jnp.float32)
        start, run = self._compile(contestant.make, constants)
        keys, params, state = self._of_group(group)
        carry = params, state, start(constants, keys, params)
        records, seconds, times, seen = [], [], [], []
        for number, chosen in enumerate(self.batches.of_seeds(group)):
            first = jax.tree.map(lambda leaf: leaf[0], chosen)
            found = self._see(*carry[:2], keys, first, self.batches.arrays)
            seen.append(jax.tree.map(np.asarray, found))
            begin = jnp.asarray(number * self.batches.chunk, jnp.int32)
            arguments = constants, keys, carry, chosen, begin, self.batches.arrays
            (carry, record), took = _timed(run, *arguments)
            records.append(jax.tree.map(np.asarray, record))
            seconds.append(took)
            if contestant.make is constant_weights:
                times.append(1.0)  # the program that is the unit
            elif number % 2 and (unit := self._seconds_of_equal(group, chosen)) >= SHORTEST:
                times.append(took / unit)
            advance(self.batches.chunk * len(group))
        records = [np.concatenate(side) for side in zip(*records, strict=True)]
        metrics, validation = (
            None if split is None else np.asarray(self._measure(*carry[:2], split), np.float64)
            for split in (self._test, self._validation)
        )
        seen = [np.concatenate(side) for side in zip(*seen, strict=True)]
        return records, metrics, validation, seconds, times, seen

    def _of_group(self, group: range) -> Any:
        chosen = slice(group.start, group.stop)
        shared = self.keys, self.params, self.state
        return jax.tree.map(lambda leaf: leaf[chosen], shared)

    def _seconds_of_equal(self, group: range, chosen: PyTree) -> float:
        """Time a chunk with constant weights."""
        constants = jnp.ones(len(self.problem.tasks or ()))
        start, run = self._compile(constant_weights, constants)
        keys, params, state = self._of_group(group)
        carry = params, state, jax.block_until_ready(start(constants, keys, params))
        begin = jnp.zeros((), jnp.int32)
        return _timed(run, constants, keys, carry, chosen, begin, self.batches.arrays)[1]

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

    def _in_sorted_order(self, *arguments: Any) -> Any:
        """The losses in the order of the constants, which are given by position."""
        return jax.tree.map(lambda leaf: leaf, self.completed.losses(*arguments))

    def _check_size(self) -> None:
        """Refuse what would not fit into memory, before it is tried."""
        params = jax.tree.leaves(self.completed.params)
        copies = len(self.problem.tasks or ()) + 3  # gradients; Adam's moments
        drawn = 0 if callable(self.problem.train) else self.steps * self.problem.batch
        numbers = drawn + copies * sum(leaf.size for leaf in params)
        if (size := 4 * self.seeds * numbers) > MOST_BYTES:
            raise ValueError(
                f"seeds={self.seeds} and steps={self.steps} take {size / 2**30:.3g} GiB of memory,"
                f" more than the {MOST_BYTES / 2**30:.3g} that a comparison may take: choose fewer."
            )

    def _fewest(self) -> int:
        """One seed at a time where there are convolutions: XLA runs batched kernels slowly."""
        batch, keys = example(self.problem), self.keys[0]
        params, state = jax.tree.map(lambda leaf: leaf[0], (self.params, self.state))

        def convolved() -> bool:
            program, _, _ = read_program(self.completed.losses, params, state, batch, keys)
            return any(e.primitive.name == "conv_general_dilated" for e in operations(program))

        return 1 if rewritten_or_plain(convolved, lambda: False) else self.seeds

    def _optimizer(self) -> optax.GradientTransformation:
        if isinstance(self.problem.optimizer, optax.GradientTransformation):
            return self.problem.optimizer
        rate = optax.cosine_decay_schedule(self.problem.learning_rate, self.steps)
        return self.problem.optimizer(rate)

    def _compile(self, make: Callable[[Array, Array], Balancer], constants: Array) -> Any:
        """Compile the start and one chunk of training, once for each way to make a balancer."""
        if make in self._programs:
            return self._programs[make]
        optimizer = self._optimizer()

        def balancer_of(constants: Array, key: Array) -> Balancer:
            return on_shared(make(constants, key), self.completed.shared, heads="own")

        def start(constants: Array, key: Array, params: PyTree) -> PyTree:
            return balancer_of(constants, key).init(params), optimizer.init(params)

        def run(
            constants: Array, key: Array, carry: PyTree, chosen: PyTree, begin: Array, data: PyTree
        ) -> Any:
            losses_fn = self._in_sorted_order if make is constant_weights else self.completed.losses
            balanced_grad = value_and_balanced_grad(
                losses_fn, balancer_of(constants, key), has_aux=True
            )

            def step(carry: Any, chosen: Any) -> Any:
                params, state, (balancer_state, opt_state) = carry
                number, row = chosen
                batch = self.batches.pick(row, data)
                active = None if self.problem.active is None else self.problem.active(batch)
                (losses, state), grad, balancer_state = balanced_grad(
                    balancer_state,
                    params,
                    state,
                    batch,
                    jax.random.fold_in(key, number),
                    active=active,
                )
                updates, opt_state = optimizer.update(grad, opt_state, params)
                params = optax.apply_updates(params, updates)
                values = task_vector("losses", losses).astype(jnp.float32)
                record = values, balancer_state.task_weights
                return (params, state, (balancer_state, opt_state)), record

            numbers = begin + jnp.arange(self.batches.chunk, dtype=jnp.int32)
            return jax.lax.scan(step, carry, (numbers, chosen))

        start_all = jax.jit(over_seeds(start, (None, 0, 0), (0, 0), self.at_once))
        axes = (None, 0, 0, 1, None, None)
        run_all = jax.jit(over_seeds(run, axes, (0, 1), self.at_once))
        group = self.groups[0]
        keys, params, state = self._of_group(group)
        carry = params, state, start_all(constants, keys, params)
        chosen = next(self.batches.of_seeds(group))
        begin = jnp.zeros((), jnp.int32)
        arguments = constants, keys, carry, chosen, begin, self.batches.arrays
        self._programs[make] = start_all, run_all.lower(*arguments).compile()
        return self._programs[make]


def _timed(program: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Call, wait for the result, and return it with the seconds that took."""
    clock = time.perf_counter()
    result = jax.block_until_ready(program(*arguments))
    return result, time.perf_counter() - clock


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _temporary_bytes(program: Any) -> int | None:
    found = program.memory_analysis()
    return getattr(found, "temp_size_in_bytes", None)
