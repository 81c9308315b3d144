"""Per-task quantities that a balancer learns with an optax optimizer of its own.

A method's state holds the quantity under its own name, and beside it ``learner``: the optimizer's
state, leaf by leaf. Under optax's names (``count``, ``mu``, ...) it would stand in the way where a
user asks ``optax.tree.get`` for those of the optimizer behind the balancer.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmtl._checks import check_optimizer
from jaxmtl._typing import Array

Learner = tuple[Array, ...]

# A loss of exactly zero drives the logarithm of a weight or variance to infinity. Not a tuning
# knob, but the range in which its exponential, times a gradient, is still a float32 number.
LOGARITHM_RANGE = 40.0


def read_optimizer(
    optimizer: optax.GradientTransformation | None, default: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The user's optimizer, or the method's own.

    Raises:
      ValueError: where ``optimizer`` is no optax transformation.
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

    A task that is absent takes no step, and its averages and step count stay as they were: with
    one optimizer for the whole vector, momentum would go on moving it.

    Args:
      value: (T,) what is learned.
      learner: the optimizer's state.
      grad: (T,) slopes.
      active: (T,) bool.
      optimizer: the optax optimizer.

    Returns:
      The new value and optimizer's state.
    """
    structure = jax.tree.structure(jax.eval_shape(jax.vmap(optimizer.init), value))
    old = jax.tree.unflatten(structure, learner)
    updates, new = jax.vmap(optimizer.update)(grad, old, value)
    moved = optax.apply_updates(value, updates), tuple(jax.tree.leaves(new))
    return jax.vmap(optax.tree.where)(active, moved, (value, learner))


def learn_logarithm(
    value: Array, learner: Learner, grad: Array, active: Array, optimizer: Any
) -> tuple[Array, Learner]:
    """Take one step as ``learn`` does, within the range whose exponential is finite."""
    value, learner = learn(value, learner, grad, active, optimizer)
    return jnp.clip(value, -LOGARITHM_RANGE, LOGARITHM_RANGE), learner
