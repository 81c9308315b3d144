"""The batches that all methods share: drawn from arrays, or read from an iterator."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxmtl._typing import Array, PyTree
from jaxmtl.problems._problem import Problem


class Batches:
    """The batches of each seed, in chunks of steps."""

    def __init__(self, problem: Problem, *, chunks: int, chunk: int, seeds: int):
        self.train = problem.train
        self.chunk = chunk
        self.chunks = chunks
        self.arrays: Any = ()
        self.rows: Any = None
        if not callable(self.train):
            self.arrays = jax.device_put(self.train)
            examples = len(jax.tree.leaves(self.train)[0])
            self.rows = np.random.default_rng(0).integers(
                examples, size=(chunks, chunk, seeds, problem.batch), dtype=np.int32
            )

    def of_seeds(self, seeds: range) -> Iterator[PyTree]:
        """For some seeds, chunk after chunk, what ``pick`` takes: (chunk, seeds, ...)."""
        if self.rows is not None:
            for rows in self.rows:
                yield rows[:, seeds.start : seeds.stop]
            return
        sources = [self._endless(seed) for seed in seeds]
        for _ in range(self.chunks):
            steps = [[next(source) for source in sources] for _ in range(self.chunk)]
            yield _stacked([_stacked(step) for step in steps])

    def pick(self, chosen: PyTree, arrays: PyTree) -> PyTree:
        """The batch of one seed and step."""
        return chosen if self.rows is None else jax.tree.map(lambda leaf: leaf[chosen], arrays)

    def _endless(self, seed: int) -> Iterator[PyTree]:
        while True:
            count = 0
            for batch in self.train(seed):
                count += 1
                yield batch
            if not count:
                raise ValueError(
                    f"train({seed}) gave no batch: it must return an iterator of batches, anew at"
                    " each call."
                )


def _stacked(batches: list[PyTree]) -> PyTree:
    def stack(*leaves: Array) -> np.ndarray:
        shapes = {np.shape(leaf) for leaf in leaves}
        if len(shapes) > 1:
            raise ValueError(
                f"All batches of train must have the same shapes, but arrays of {sorted(shapes)}"
                " came: leave out the last, smaller batch of an epoch."
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
