"""Checks of the parts of a balancer, for methods of your own."""

from typing import Any

from jaxmtl._checks import (
    check_at_least,
    check_callable,
    check_count,
    check_flag,
    optional_num_tasks,
    shown,
)
from jaxmtl._task_names import TaskNames
from jaxmtl._task_values import task_vector
from jaxmtl.balancing._base import Preparation, Reporting, Timing, Weighting
from jaxmtl.balancing._leaf_roles import LeafRoles

READABLE = ("losses", "gramian", "cross_gramian")


def check_parts(
    weighting: Any, roles: Any, preparation: Any, timing: Any, reporting: Any, skips_broken: Any
) -> None:
    """Raise unless each part has the right type and its entries do too.

    Raises:
      ValueError: naming the part and its entry.
    """
    _check_kind("weighting", weighting, Weighting)
    check_callable("weighting.init", weighting.init, "dtype -> state")
    check_callable("weighting.update", weighting.update, "(Given, state) -> (weights, state)")
    _check_names("weighting.reads", weighting.reads)
    _check_names("weighting.extra", weighting.extra)
    unknown = set(weighting.reads) - set(READABLE)
    if unknown:
        raise ValueError(
            "A method may read 'losses', 'gramian' and 'cross_gramian', but reads holds"
            f" {sorted(unknown)}."
        )
    named = weighting.named
    pairs = named if isinstance(named, tuple | list) else [named]
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise ValueError(
            "weighting.named must hold pairs of an argument and a task's name, such as"
            f' (("reference", "residual"),), but it is {shown(named)}.'
        )
    for pair in pairs:
        _check_names("weighting.named", pair)
    optional_num_tasks(weighting.num_tasks)
    if weighting.roundings is not None:
        check_at_least("weighting.roundings", weighting.roundings, 0)
    if weighting.names is not None:
        _check_kind("weighting.names", weighting.names, TaskNames)
    check_flag("skips_broken", skips_broken)
    if roles is not None:
        _check_kind("roles", roles, LeafRoles)
    if preparation is not None:
        _check_kind("preparation", preparation, Preparation)
        check_callable("preparation.init", preparation.init, "params -> state")
        how = "(grads, Given, state) -> (measured, combined, state)"
        check_callable("preparation.update", preparation.update, how)
    if reporting is not None:
        _check_kind("reporting", reporting, Reporting)
        check_callable("reporting.init", reporting.init, "(T, dtype) -> report")
        how = "(Given, weights, report) -> report"
        check_callable("reporting.update", reporting.update, how)
    if timing is not None:
        _check_kind("timing", timing, Timing)
        if timing.period is not None:
            check_count("timing.period", timing.period)
        check_count("timing.start", timing.start, 0)
        check_count("timing.ramp", timing.ramp, 0)
        check_callable("timing.before", timing.before, "(active, dtype) -> weights")
        held = task_vector("timing.held", timing.held)
        if weighting.num_tasks is not None and held.shape != (1,):
            task_vector("timing.held", held, weighting.num_tasks)
    if (timing is not None or reporting is not None) and weighting.num_tasks is None:
        raise ValueError(
            "The method keeps values for each task from step to step, so the number of tasks must"
            " be known from the start: build the method with it, such as jaxmtl.mgda(num_tasks=3)."
        )


def _check_kind(name: str, part: Any, kind: type) -> None:
    if not isinstance(part, kind):
        raise ValueError(
            f"{name} must be a {kind.__module__.split('.')[0]} {kind.__name__}, but it is"
            f" {shown(part)}."
        )


def _check_names(name: str, names: Any) -> None:
    is_set = isinstance(names, set | frozenset | list | tuple)
    if not is_set or not all(isinstance(entry, str) for entry in names):
        raise ValueError(
            f'{name} must be a set of names, such as frozenset({{"losses"}}), but it is'
            f" {shown(names)}."
        )
