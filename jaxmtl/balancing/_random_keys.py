"""Random keys in a state, as the numbers they consist of, which every tool can save.

A typed key, ``jax.random.key(0)``, can be stored by orbax, but not by ``flax.serialization`` or
``numpy.savez``. The balancer that was built with the key keeps its implementation (threefry, rbg,
...), so the state has to hold the numbers alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import STATIC, is_real, shown
from jaxmtl._typing import Array


def typed_key(key: Any) -> Array:
    """Read a random key: a typed key, a raw key of the default implementation, or an integer seed.

    Raises:
      ValueError: if it is none of them.
    """
    if isinstance(key, int | np.integer | np.ndarray | jax.Array) and not isinstance(key, bool):
        dtype, shape = getattr(key, "dtype", jnp.dtype(int)), jnp.shape(key)
        if jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ():
            return jnp.asarray(key)
        raw = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        if (dtype, shape) == (raw.dtype, raw.shape):
            return jax.random.wrap_key_data(jnp.asarray(key))
        if jnp.issubdtype(dtype, jnp.integer) and shape == () and is_real(key):
            return jax.random.key(key)
    traced = f" {STATIC}" if isinstance(key, jax.core.Tracer) else ""
    raise ValueError(
        "key must be one JAX random key, such as jax.random.key(0), or an int seed, but it is"
        f" {shown(key)}. A raw key of another implementation than jax_default_prng_impl has to be"
        f' wrapped, as in jax.random.wrap_key_data(key, impl="rbg").{traced}'
    )


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
