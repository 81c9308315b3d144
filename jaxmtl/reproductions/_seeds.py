"""All seeds of a row in one program."""

from collections.abc import Callable
from typing import Any

import jax

from jaxmtl._typing import PyTree


def for_each(function: Callable[[Any], Any], items: PyTree) -> Any:
    """Map over the first axis: all at once, or on a CPU, where that is faster, one by one."""
    at_once = None if jax.default_backend() == "cpu" else 64
    return jax.lax.map(function, items, batch_size=at_once)
