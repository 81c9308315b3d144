"""Per-task quantities that a balancer learns with an optax optimizer of its own."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmtl._typing import Array, PyTree

# A loss of exactly zero drives the logarithm of a weight or variance to infinity. Not a tuning
# knob, but the range in which its exponential, times a gradient, is still a float32 number.
LOGARITHM_RANGE = 40.0


class Learned(NamedTuple):
    """A (T,) vector and the state of its optimizer, both kept per task."""

    value: Array
    opt_state: PyTree


def init_learned(value: Array, optimizer: optax.GradientTransformation) -> Learned:
    """Start learning a (T,) vector.

    Raises:
      ValueError: where ``optimizer`` is no optax transformation.
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(
            f"optimizer must be an optax optimizer, such as optax.adam(1e-2), but it is"
            f" {optimizer!r}."
        )
    return Learned(value, jax.vmap(optimizer.init)(value))


def learn(
    learned: Learned, grad: Array, active: Array, optimizer: optax.GradientTransformation
) -> Learned:
    """Take one step down the gradient, each task with its own optimizer state.

    A task that is absent takes no step, and its averages and step count stay as they were: with
    one optimizer for the whole vector, momentum would go on moving it.
    """
    updates, opt_state = jax.vmap(optimizer.update)(grad, learned.opt_state, learned.value)
    new = Learned(optax.apply_updates(learned.value, updates), opt_state)
    return jax.vmap(optax.tree.where)(active, new, learned)


def learn_logarithm(
    learned: Learned, grad: Array, active: Array, optimizer: optax.GradientTransformation
) -> Learned:
    """Take one step as ``learn`` does, within the range whose exponential is finite."""
    learned = learn(learned, grad, active, optimizer)
    value = jnp.clip(learned.value, -LOGARITHM_RANGE, LOGARITHM_RANGE)
    return learned._replace(value=value)
