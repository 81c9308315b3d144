"""Random keys in a state: as the numbers they are made of, which every tool can save.

A typed key, ``jax.random.key(0)``, can be stored by orbax, but not by ``flax.serialization`` or
``numpy.savez``. Its implementation (threefry, rbg, ...) is known to the balancer that was built
with it, so that the state has to hold the numbers alone.
"""

import jax

from jaxmtl._typing import Array


def stored(key: Array) -> Array:
    """A typed key as an array of uint32."""
    return jax.random.key_data(key)


def next_keys(data: Array, first: Array) -> tuple[Array, Array]:
    """Draw the stored key of the next step, and the typed key of this one.

    Args:
      data: the stored key.
      first: the typed key that the balancer was built with.
    """
    key = jax.random.wrap_key_data(data, impl=jax.random.key_impl(first))
    next_key, step_key = jax.random.split(key)
    return stored(next_key), step_key
