"""Quantities of each task that a balancer learns with an optax optimizer of its own.

A method's state holds the quantity under its own name and, beside it, ``learner``: the optimizer's
state, leaf by leaf. Under optax's own names (``count``, ``mu``, ...) it would be found when a user
looks with ``optax.tree.get`` for the state of the optimizer after the balancer.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmtl._checks import check_optimizer
from jaxmtl._typing import Array

Learner = tuple[Array, ...]

# A loss of exactly zero drives the logarithm of a weight or variance to infinity. This is not a
# tuning parameter, but the range in which its exponential, times a gradient, fits in float32.
LOGARITHM_RANGE = 40.0


def read_optimizer(
    optimizer: optax.GradientTransformation | None, default: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The user's optimizer, or the method's default.

    Raises:
      ValueError: if ``optimizer`` is not an optax transformation.
    """
    if optimizer is None:
        return default
    check_optimizer("optimizer", optimizer)
    return optimizer


def init_learner(value: Array, optimizer: optax.GradientTransformation) -> Learner:
    """Start learning a (T,) vector."""
    return tuple(jax.tree.leaves(jax.vmap(optimizer.init)(value)))


def learn(
    value: Array, learner: Learner, grad: Array, active: Array, optimizer: Any
) -> tuple[Array, Learner]:
    """Take one step down the gradient, each task with its own optimizer state.

    A task that is absent takes no step, and its averages and step count do not change: with one
    optimizer for the whole vector, momentum would continue to move it.

    Args:
      value: (T,) the learned quantity.
      learner: the optimizer's state.
      grad: (T,) gradient in ``value``.
      active: (T,) bool.
      optimizer: the optax optimizer.

    Returns:
      The new value and the optimizer's new state.
    """
    structure = jax.tree.structure(jax.eval_shape(jax.vmap(optimizer.init), value))
    old = jax.tree.unflatten(structure, learner)
    updates, new = jax.vmap(optimizer.update)(grad, old, value)
    moved = optax.apply_updates(value, updates), tuple(jax.tree.leaves(new))
    return jax.vmap(optax.tree.where)(active, moved, (value, learner))


def learn_logarithm(
    value: Array, learner: Learner, grad: Array, active: Array, optimizer: Any
) -> tuple[Array, Learner]:
    """Take one step like ``learn``, within the range in which the exponential is finite."""
    value, learner = learn(value, learner, grad, active, optimizer)
    return jnp.clip(value, -LOGARITHM_RANGE, LOGARITHM_RANGE), learner
