"""Losses with constant weights, which the method does not balance."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import is_real, path_name
from jaxmtl._task_names import common_names
from jaxmtl._task_values import constant_vector
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import rebuild
from jaxmtl.balancing._base import Balancer, Given, check_balancer
from jaxmtl.balancing._described import described


@described
def with_fixed(balancer: Balancer, weights: PyTree) -> Balancer:
    """Balance some losses, and add the others with constant weights.

    Regularisers and smoothness priors should not be balanced: the user chooses their size, and a
    method would raise their weight as soon as they become small. The method sees the balanced
    losses only: neither loss nor gradient of a fixed task enters a norm, a conflict or an average.

    Args:
      balancer: any balancer that does not keep or mask the gradients themselves.
      weights: one entry for each loss, in a tree like the losses: "balanced", or a number, such as
        ``{"depth": "balanced", "labels": "balanced", "smoothness": 0.1}``.

    Returns:
      A balancer for all these losses. For the balanced losses, it has the scale, degree and
      promises of ``balancer``.

    Raises:
      ValueError: if an entry is neither "balanced" nor a number, if none is "balanced", if the
        number of "balanced" entries is not the number of tasks that the balancer was built for, or
        if the balancer works on the gradients themselves.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> kinds = {"a": "balanced", "b": "balanced", "decay": 0.1}
      >>> balancer = jaxmtl.with_fixed(jaxmtl.normalize(), kinds)
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 5.0], [10.0, 10.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates)
      [2. 2.]
    """
    check_balancer(balancer)
    inner = balancer.weighting
    if balancer.preparation is not None or "cross_gramian" in inner.reads:
        raise ValueError(
            "with_fixed works for balancers that turn losses and Gramian into weights, but this one"
            " works on the gradients themselves: add the gradient of the fixed losses after it."
        )
    entries = jax.tree.leaves_with_path(weights)
    balanced = np.array([isinstance(v, str) and v == "balanced" for _, v in entries], bool)
    numbers = [value for (_, value), b in zip(entries, balanced, strict=True) if not b]
    if not balanced.any() or not all(is_real(value) and not np.shape(value) for value in numbers):
        raise ValueError(
            'weights must hold "balanced" or a number for each loss, and at least one "balanced",'
            f" but it is {weights!r}."
        )
    if inner.num_tasks not in (None, balanced.sum()):
        raise ValueError(
            f'weights holds {balanced.sum()} times "balanced", but the balancer was built for'
            f" {inner.num_tasks} tasks: build it with num_tasks={balanced.sum()}."
        )
    names = common_names(weights=weights)
    known = inner.names.names if inner.names else None
    kept = tuple(path_name(path) for (path, _), b in zip(entries, balanced, strict=True) if b)
    if known is not None and known != kept:
        raise ValueError(
            "The balanced losses must have the names that the balancer was built with, but they are"
            f" {', '.join(kept)} in weights and {', '.join(known)} in the balancer."
        )
    if names.names is not None and inner.names is not None:
        written = tuple(name for name in names.written or () if name in kept)
        common_names(inner.names._replace(names=kept, written=written))
        by_position = (*inner.names.by_position, *names.by_position)
        names = names._replace(by_position=tuple(dict.fromkeys(by_position)))
    rows, others = np.flatnonzero(balanced), np.flatnonzero(~balanced)
    constants = constant_vector("weights", numbers) if numbers else np.zeros(0)

    def with_constants(weights: Array) -> Array:
        everyone = jnp.zeros(len(entries), weights.dtype).at[rows].set(weights)
        return everyone.at[others].set(jnp.asarray(constants, weights.dtype))

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        def of_balanced(vector: Any) -> Any:
            return None if vector is None else vector[rows]

        gram = given.gramian
        reduced = Given(
            of_balanced(given.losses),
            None if gram is None else gram[np.ix_(rows, rows)],
            given.active[rows],
            extra={name: vector[rows] for name, vector in given.extra.items()},
        )
        some, state = inner.update(reduced, state)
        some = jnp.asarray(some)  # NumPy's float64, where they are constants
        return with_constants(some), state

    fixed = ~balanced
    fixed[rows] = inner.fixed
    weighting = inner._replace(update=update, num_tasks=len(entries), names=names, fixed=fixed)
    timing = balancer.timing
    if timing is not None:
        of_start = timing.before

        def before(active: Array, dtype: Any) -> Array:
            return with_constants(of_start(active[rows], dtype))

        held = jnp.broadcast_to(jnp.asarray(timing.held, float), rows.shape)
        timing = timing._replace(before=before, held=with_constants(held))
    return rebuild(balancer, weighting=weighting, timing=timing)
