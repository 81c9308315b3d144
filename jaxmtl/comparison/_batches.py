"""The batches that all methods share: drawn from arrays, from an iterator, or made from keys."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._typing import Array, PyTree
from jaxmtl.comparison._completed import example
from jaxmtl.problems._problem import Problem

MOST_CHUNKS = 20
MIN_CHUNK = 10  # steps, unless there are fewer
MOST_BYTES = 2**28  # of the batches of a chunk, where they are not drawn on the device


class Batches:
    """The batches of each seed, in chunks of steps, the last of which may have fewer.

    Only one chunk is held at a time, however many steps there are.
    """

    def __init__(self, problem: Problem, *, steps: int, seeds: int, at_once: int):
        self.train = problem.train
        self.sample = problem.sample
        self.batch = problem.batch
        self.seeds = seeds
        self.arrays: Any = ()
        self.chunk = min(steps, max(MIN_CHUNK, -(-steps // MOST_CHUNKS)))
        if callable(self.train):
            of_step = at_once * sum(np.asarray(x).nbytes for x in jax.tree.leaves(example(problem)))
            self.chunk = max(1, min(self.chunk, MOST_BYTES // max(of_step, 1)))
        elif self.sample is None:
            self.arrays = jax.device_put(self.train)
        whole, rest = divmod(steps, self.chunk)
        self.lengths = [self.chunk] * whole + ([rest] if rest else [])

    def of_seeds(self, seeds: range) -> Iterator[PyTree]:
        """For some seeds, chunk after chunk, what ``pick`` takes: (chunk, seeds, ...)."""
        if self.sample is not None:
            yield from self._keys(seeds)
            return
        if callable(self.train):
            sources = [self._endless(seed) for seed in seeds]
            for length in self.lengths:
                steps = [_stacked([next(source) for source in sources]) for _ in range(length)]
                yield _stacked(steps + steps[-1:] * (self.chunk - length))
            return
        generator = np.random.default_rng(0)
        examples = len(jax.tree.leaves(self.train)[0])
        for length in self.lengths:
            # Drawn for all seeds, so that they do not depend on how many are trained at once.
            shape = length, self.seeds, self.batch
            rows = generator.integers(examples, size=shape, dtype=np.int32)
            missing = self.chunk - length
            yield np.pad(rows[:, seeds.start : seeds.stop], ((0, missing), (0, 0), (0, 0)))

    def pick(self, chosen: PyTree, arrays: PyTree) -> PyTree:
        """The batch of one seed and step."""
        if self.sample is not None:
            return self.sample(chosen)
        if callable(self.train):
            return chosen
        return jax.tree.map(lambda leaf: leaf[chosen], arrays)

    def _keys(self, seeds: range) -> Iterator[Array]:
        """A key for each step and seed, of which ``pick`` makes a batch."""
        of_seeds = jax.random.split(jax.random.key(1), self.seeds)[seeds.start : seeds.stop]
        of_steps = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))
        for begin in range(0, self.chunk * len(self.lengths), self.chunk):
            yield of_steps(of_seeds, begin + jnp.arange(self.chunk))

    def _endless(self, seed: int) -> Iterator[PyTree]:
        while True:
            count = 0
            for batch in self.train(seed):
                count += 1
                yield batch
            if not count:
                raise ValueError(
                    f"train({seed}) gave no batch: it must return a new iterator of batches at each"
                    " call."
                )


def _stacked(batches: list[PyTree]) -> PyTree:
    def stack(*leaves: Array) -> np.ndarray:
        shapes = {np.shape(leaf) for leaf in leaves}
        if len(shapes) > 1:
            raise ValueError(
                f"All batches of train must have the same shapes, but arrays of {sorted(shapes)}"
                " were returned: leave out the last, smaller batch of an epoch."
            )
        return np.stack([np.asarray(leaf) for leaf in leaves])

    return jax.tree.map(stack, *batches)


def over_seeds(function: Any, in_axes: tuple[int | None, ...], out_axes: Any, count: int) -> Any:
    """``vmap`` over seeds; of one seed without it, since XLA runs batched kernels more slowly."""
    if count > 1:
        return jax.vmap(function, in_axes=in_axes, out_axes=out_axes)

    def of_one(*arguments: PyTree) -> Any:
        alone = [
            argument
            if axis is None
            else jax.tree.map(lambda x, axis=axis: _first(x, axis), argument)
            for argument, axis in zip(arguments, in_axes, strict=True)
        ]
        results = function(*alone)
        axes = out_axes if isinstance(out_axes, tuple) else (out_axes,)
        several = results if isinstance(out_axes, tuple) else (results,)
        stacked = tuple(
            jax.tree.map(lambda x, axis=axis: x[None] if axis == 0 else x[:, None], result)
            for result, axis in zip(several, axes, strict=True)
        )
        return stacked if isinstance(out_axes, tuple) else stacked[0]

    return of_one


def _first(x: Array, axis: int) -> Array:
    return x[0] if axis == 0 else x[:, 0]
