"""Compare methods on the user's own problem, or on one of the built-in ones."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import optax

from jaxmtl._checks import check_above, check_flag, shown, static_count
from jaxmtl.comparison._completed import Completed, complete
from jaxmtl.comparison._contestants import DEFAULT, Contestant, Method, contestants, lacking
from jaxmtl.comparison._contestants import references as alone
from jaxmtl.comparison._outcome import Outcome, Setting
from jaxmtl.comparison._progress import showing
from jaxmtl.comparison._report import Comparison
from jaxmtl.comparison._training import Trainer
from jaxmtl.problems._problem import Problem


def compare(
    problem: Problem,
    methods: Sequence[Method] | None = None,
    *,
    seeds: int = 5,
    steps: int | None = None,
    optimizer: Any = None,
    learning_rates: Sequence[float] | None = None,
    references: bool = True,
    seeds_at_once: int | None = None,
    progress: bool = True,
) -> Comparison:
    """Train a problem with several methods, and report which differences exceed chance.

    All methods share the initial parameters, the batches and the random keys of each seed, so that
    differences, seed by seed, come from the methods. The task weights are computed from the
    gradients of the shared leaves; all other leaves receive their own task's gradient.
    ``comparison.setting.balanced`` and ``.own`` list these leaves.

    A seed is an entry of ``keys = jax.random.split(jax.random.key(0), seeds)``: ``init`` gets it,
    and ``losses`` at each step ``jax.random.fold_in(keys[seed], step)``. Batches from arrays of n
    examples are the rows ``numpy.random.default_rng(0).integers(n, size=(steps, seeds, batch),
    dtype=numpy.int32)[step, seed]``; ``sample`` gets ``jax.random.fold_in(jax.random.split(
    jax.random.key(1), seeds)[seed], step)``.

    Args:
      problem: the problem to train.
      methods: names of ``jaxmtl.methods.METHODS``, or pairs of a name and a function
        ``(num_tasks, key) -> balancer``, such as ``("every 10", lambda T, key:
        jaxmtl.every(jaxmtl.upgrad(num_tasks=T), 10))``. If None, those of ten methods for which the
        problem has everything they need.
      seeds: the number of seeds; with fewer than three, nothing is distinguished from chance.
      steps: the number of training steps; the problem's own if None.
      optimizer: replaces the problem's optimizer, in the same form.
      learning_rates: replace the problem's rate. Each method uses the rate with which it is best on
        ``validation``, so that no method gains because the problem's rate happens to suit it.
      references: whether each task is also trained alone, the reference of Δm.
      seeds_at_once: how many seeds one program trains, by ``vmap``. If None, all of them, but one
        for networks with convolutions, which is faster there.
      progress: whether to show the progress.

    Returns:
      A ``Comparison``. ``print`` or a notebook shows its table; ``.verdict`` states its meaning in
      sentences; ``.delta_m[method]`` and ``.metrics[method][task]`` are the numbers of each seed;
      ``.plot()`` draws, ``.save(folder)`` writes, ``jaxmtl.compare.load(file)`` reads again. After
      an interruption it holds the finished runs. A method that diverges has a row that says so.

    Raises:
      ValueError: before any training, if the problem's parts do not fit each other, or a method
        is not a method, or needs something that the problem lacks.

    Examples:
      >>> import jaxmtl
      >>> problem = jaxmtl.problems.load("toy")
      >>> found = jaxmtl.compare(problem, ["equal"], seeds=3, steps=20, progress=False)
      >>> found.metrics["equal"]["first"].shape
      (3,)
    """
    seeds = static_count("seeds", seeds)
    if seeds_at_once is not None:
        seeds_at_once = static_count("seeds_at_once", seeds_at_once)
    check_flag("references", references)
    check_flag("progress", progress)
    changes = {"optimizer": optimizer, "steps": steps}
    if isinstance(problem, Problem):
        given = {name: value for name, value in changes.items() if value is not None}
        problem = dataclasses.replace(problem, **given)
    prepared = prepare(
        problem,
        methods,
        seeds=seeds,
        learning_rates=learning_rates,
        references=references,
        seeds_at_once=seeds_at_once,
    )
    with contextlib.suppress(KeyboardInterrupt):  # train_all has reported it
        train_all(*prepared, progress=progress)
    return prepared.comparison


class Prepared(NamedTuple):
    """A comparison that is ready to begin.

    Attributes:
      trainer: trains one seed after the other, or several at once.
      runs: the runs to be trained.
      rates: the learning rates; each method keeps its best.
      comparison: still empty.
    """

    trainer: Trainer
    runs: list[Contestant]
    rates: list[float]
    comparison: Comparison


def prepare(
    problem: Problem,
    methods: Sequence[Method] | None,
    *,
    seeds: int,
    learning_rates: Sequence[float] | None = None,
    references: bool = True,
    seeds_at_once: int | None = None,
) -> Prepared:
    """Check all parts of a comparison, before any training.

    Raises:
      ValueError: as ``compare`` does.
    """
    completed = complete(problem)
    full = completed.problem
    if methods is None:
        methods = [name for name in DEFAULT if not lacking(full, name)]
    runs = [*(alone(full) if references else []), *contestants(full, methods)]
    rates = _rates(full, learning_rates)
    trainer = Trainer(completed, steps=full.steps, seeds=seeds, seeds_at_once=seeds_at_once)
    return Prepared(trainer, runs, rates, Comparison(_setting(completed, runs, seeds, rates)))


def _setting(
    completed: Completed, runs: list[Contestant], seeds: int, rates: Sequence[float]
) -> Setting:
    """The setting of a comparison, in words."""
    problem = completed.problem
    if isinstance(problem.optimizer, optax.GradientTransformation):
        training = "the problem's optimizer"
    else:
        name = getattr(problem.optimizer, "__name__", "optimizer")
        name = "Adam" if name == "adam" else name.strip("<>")
        which = " or ".join(f"{rate:g}" for rate in rates)
        training = f"{name} {which} with cosine decay"
    if problem.sample is None and not callable(problem.train):
        training += f", batch {problem.batch}"
    maximize, names = (dict(value) for value in (problem.maximize, problem.metric_names))
    return Setting(
        problem.name,
        problem.tasks or (),
        maximize,
        names,
        problem.steps,
        seeds,
        training,
        tuple(run.name for run in runs),
        tuple(rates),
        completed.balanced,
        completed.own,
    )


def train_all(
    trainer: Trainer,
    runs: list[Contestant],
    rates: list[float],
    comparison: Comparison,
    *,
    progress: bool,
) -> None:
    """Train one run after the other; finished runs are in the comparison, whatever happens."""
    total = trainer.steps * trainer.seeds * len(rates)
    try:
        with showing(len(runs), total, progress) as show:
            for run in runs:
                advance = show(run.name)
                outcomes = [trainer.train(run, rate, advance) for rate in rates]
                comparison.add(run.name, _best(run, comparison.setting, outcomes))
    except KeyboardInterrupt:
        print(f"Interrupted: {comparison.finished} of {len(runs)} runs finished.")
        raise


def _rates(problem: Problem, learning_rates: Sequence[float] | None) -> list[float]:
    if learning_rates is None:
        return [problem.learning_rate]
    if not isinstance(learning_rates, tuple | list) or not learning_rates:
        raise ValueError(
            f"learning_rates must be a list of numbers above 0, but it is {shown(learning_rates)}."
        )
    rates = [check_above("learning_rates", rate, 0) for rate in learning_rates]
    if problem.validation is None:
        raise ValueError(
            "learning_rates are chosen on validation, which the problem does not have: give it"
            " arrays of examples that are in neither train nor test."
        )
    if isinstance(problem.optimizer, optax.GradientTransformation):
        raise ValueError(
            "learning_rates need an optimizer that takes one: give the problem a function such as"
            " optax.adam, or lambda rate: optax.chain(...)."
        )
    return rates


def _best(run: Contestant, setting: Setting, outcomes: list[Outcome]) -> Outcome:
    """The outcome with the best learning rate on validation, mean over its tasks."""
    if len(outcomes) == 1:
        return outcomes[0]
    counts = run.constants > 0  # for a task alone, only its own metric
    values = np.stack([outcome.validation.mean(axis=0) for outcome in outcomes])
    typical = np.abs(np.nanmedian(values, axis=0))
    scores = (setting.signs * values / np.where(typical > 0, typical, 1))[:, counts].mean(axis=1)
    return outcomes[int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))]
