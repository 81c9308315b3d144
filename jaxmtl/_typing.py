"""The names of the types used in the whole package."""

from collections.abc import Callable
from typing import Any

import jax

Array = jax.Array
PyTree = Any
# The accepted forms of one number per task: an array of shape (T,), a sequence, or a tree of
# scalars such as {"depth": 1.0, "labels": 2.0}, read in jax.tree.leaves order.
TaskVector = Any
# Which leaves of the parameters: a tree (or tree prefix) of bools, or a function of the leaf's
# path, written like "trunk/dense_0/kernel".
LeafSelector = PyTree | Callable[[str], bool]
