"""Train one problem with many methods: the experiment behind ``python -m jaxmtl``.

Every method trains the same network, from the same initial parameters and on the same batches, with
Adam and a cosine decay. The weights come from the gradients of the shared trunk; each head, where
there are any, receives its own task's gradient. A single-task reference is the same network trained
on one loss alone.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._routes import value_and_balanced_grad
from jaxmtl.balancing._base import Balancer
from jaxmtl.combinators._shared import on_shared
from jaxmtl.comparison._contestants import Contestant, constant_weights
from jaxmtl.problems._problem import Problem

MOST_CHUNKS = 20
MIN_CHUNK = 10  # steps, unless there are fewer
SHORTEST = 1e-3  # seconds that a chunk takes to be timed, ten times what starting it takes
MOST_BYTES = 2**33


class Outcome(NamedTuple):
    """What came of training.

    Attributes:
      losses: (steps, seeds, T) training losses.
      weights: (steps, seeds, T) task weights.
      metrics: (seeds, T) metrics on the test split.
      seconds_per_step: of all seeds together, without compilation.
      relative_times: (measurements,) times of a chunk of steps, each in units of that of equal
        weights run right after it, so that whatever else the machine does weighs on both.
    """

    losses: np.ndarray
    weights: np.ndarray
    metrics: np.ndarray
    seconds_per_step: float
    relative_times: np.ndarray


class Comparison:
    """One problem, and what all runs on it share: data, initial parameters, compiled programs."""

    def __init__(self, problem: Problem, *, steps: int, seeds: int):
        self.problem = problem
        self.steps = steps
        self.seeds = seeds
        self._check_size()
        # Equal chunks, so that one program serves them all; between two, progress shows.
        most = max(1, min(MOST_CHUNKS, steps // MIN_CHUNK))
        self.chunks = max(n for n in range(1, most + 1) if steps % n == 0)
        self.optimizer = optax.adam(optax.cosine_decay_schedule(problem.learning_rate, steps))
        self.train_split, self.test_split = jax.device_put((problem.train, problem.test))
        self.keys = jax.random.split(jax.random.key(0), seeds)
        self.params = jax.jit(jax.vmap(problem.init))(self.keys)
        examples = len(jax.tree.leaves(problem.train)[0])
        self.batches = np.random.default_rng(0).integers(
            examples,
            size=(self.chunks, steps // self.chunks, seeds, problem.batch),
            dtype=np.int32,
        )
        self._evaluate = jax.jit(jax.vmap(problem.metrics, in_axes=(0, None)))
        self._programs: dict[Any, tuple[Any, Any]] = {}

    def train(self, contestant: Contestant, advance: Callable[[int], None]) -> Outcome:
        """Train all seeds of one contestant; ``advance(n)`` is called after every n steps."""
        constants = jnp.asarray(contestant.constants, jnp.float32)
        start, run = self._compile(contestant.make, constants)
        params, state = self.params, start(constants, self.keys, self.params)
        records, seconds, relative_times = [], [], []
        for number, rows in enumerate(self.batches):
            (params, state, record), took = _timed(
                run, constants, self.keys, params, state, rows, self.train_split
            )
            records.append(jax.tree.map(np.asarray, record))
            seconds.append(took)
            if contestant.make is constant_weights:
                relative_times.append(1.0)  # the program that is the unit
            elif number % 2 and (unit := self._seconds_of_equal(rows)) >= SHORTEST:
                relative_times.append(took / unit)
            advance(len(rows))
        losses, weights = (np.concatenate(parts) for parts in zip(*records, strict=True))
        metrics = self._evaluate(params, self.test_split)
        return Outcome(
            losses,
            weights,
            np.stack([np.asarray(metrics[task]) for task in self.problem.tasks], axis=-1),
            float(np.median(seconds)) * self.chunks / self.steps,
            np.array(relative_times),
        )

    def _seconds_of_equal(self, rows: np.ndarray) -> float:
        """Time a chunk with constant weights."""
        constants = jnp.ones(len(self.problem.tasks))
        start, run = self._compile(constant_weights, constants)
        state = start(constants, self.keys, self.params)
        arguments = constants, self.keys, self.params, jax.block_until_ready(state), rows
        return _timed(run, *arguments, self.train_split)[1]

    def _check_size(self) -> None:
        """Refuse what would not fit into memory, before it is tried."""
        params = jax.tree.leaves(jax.eval_shape(self.problem.init, jax.random.key(0)))
        copies = len(self.problem.tasks) + 3  # gradients; Adam's moments
        numbers = self.steps * self.problem.batch + copies * sum(leaf.size for leaf in params)
        if (size := 4 * self.seeds * numbers) > MOST_BYTES:
            raise ValueError(
                f"seeds={self.seeds} and steps={self.steps} take {size / 2**30:.3g} GiB of memory,"
                f" more than the {MOST_BYTES / 2**30:.3g} that a comparison may take: choose fewer."
            )

    def _compile(self, make: Callable[[Array, Array], Balancer], constants: Array) -> Any:
        """Compile the start and one chunk of training, once for each way to make a balancer."""
        if make in self._programs:
            return self._programs[make]

        def balancer_of(constants: Array, key: Array) -> Balancer:
            return on_shared(make(constants, key), {"trunk": True, "heads": False}, heads="own")

        def start(constants: Array, key: Array, params: PyTree) -> PyTree:
            return balancer_of(constants, key).init(params), self.optimizer.init(params)

        def run(
            constants: Array, key: Array, params: PyTree, state: PyTree, rows: Array, data: PyTree
        ) -> Any:
            balanced_grad = value_and_balanced_grad(
                self.problem.losses, balancer_of(constants, key)
            )

            def step(carry: Any, picked: Array) -> Any:
                params, (balancer_state, opt_state) = carry
                batch = jax.tree.map(lambda array: array[picked], data)
                losses, grad, balancer_state = balanced_grad(balancer_state, params, batch)
                updates, opt_state = self.optimizer.update(grad, opt_state, params)
                params = optax.apply_updates(params, updates)
                record = jnp.stack(jax.tree.leaves(losses)), balancer_state.task_weights
                return (params, (balancer_state, opt_state)), record

            (params, state), record = jax.lax.scan(step, (params, state), rows)
            return params, state, record

        start_all = jax.jit(jax.vmap(start, in_axes=(None, 0, 0)))
        run_all = jax.jit(jax.vmap(run, in_axes=(None, 0, 0, 0, 1, None), out_axes=(0, 0, 1)))
        state = start_all(constants, self.keys, self.params)
        arguments = (constants, self.keys, self.params, state, self.batches[0], self.train_split)
        self._programs[make] = start_all, run_all.lower(*arguments).compile()
        return self._programs[make]


def _timed(program: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Call, wait for the result, and return it with the seconds that took."""
    clock = time.perf_counter()
    result = jax.block_until_ready(program(*arguments))
    return result, time.perf_counter() - clock


def relative_changes(
    problem: Problem, metrics: np.ndarray, alone: dict[str, np.ndarray]
) -> np.ndarray:
    """Compare metrics with those of single-task training, in per cent, positive for better.

    Δm, the summary, is their mean over tasks.

    Args:
      problem: says which metrics are better when higher.
      metrics: (seeds, T) metrics of a method.
      alone: (seeds,) metrics of each task trained alone; the comparison is with their mean.

    Returns:
      (seeds, T) changes in per cent of the absolute value of the reference.
    """
    reference = np.array([alone[task].mean() for task in problem.tasks])
    sign = np.array([1 if problem.maximize[task] else -1 for task in problem.tasks])
    return 100 * sign * (metrics - reference) / np.abs(reference)
