"""What may be asked of the inputs, said in full sentences before anything is traced."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._typing import Array, PyTree, TaskVector


def check_num_tasks(num_tasks: Any) -> None:
    """Raise unless ``num_tasks`` is a Python integer of at least one."""
    if isinstance(num_tasks, bool) or not isinstance(num_tasks, int | np.integer):
        raise ValueError(
            f"num_tasks must be a Python int, because arrays are shaped by it, but it is"
            f" {num_tasks!r}. Inside optax.inject_hyperparams, list it in static_args."
        )
    if num_tasks < 1:
        raise ValueError(f"num_tasks must be at least 1, but it is {num_tasks}.")


def optional_num_tasks(num_tasks: int | None) -> int | None:
    """Check ``num_tasks`` where a method can do without it."""
    if num_tasks is not None:
        check_num_tasks(num_tasks)
    return num_tasks


def check_at_least(name: str, value: Any, minimum: float) -> None:
    """Raise unless a number of at least ``minimum`` came; a hyperparameter array passes."""
    if isinstance(value, jax.Array):
        return
    if not isinstance(value, numbers.Real) or not minimum <= float(value) < math.inf:
        raise ValueError(f"{name} must be a number of at least {minimum}, but it is {value!r}.")


def check_share(name: str, value: Any) -> None:
    """Raise unless a number from 0 to below 1 came; a hyperparameter array passes."""
    if isinstance(value, jax.Array):
        return
    if not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
        raise ValueError(f"{name} must be a number from 0 to below 1, but it is {value!r}.")


def check_finite(name: str, value: Any) -> None:
    """Raise unless a finite number came; a hyperparameter array passes."""
    if isinstance(value, jax.Array):
        return
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, but it is {value!r}.")


def check_above(name: str, value: Any, bound: float) -> None:
    """Raise unless a number above ``bound`` came; a hyperparameter array passes."""
    if isinstance(value, jax.Array):
        return
    if not isinstance(value, numbers.Real) or not float(value) > bound:
        raise ValueError(f"{name} must be a number above {bound}, but it is {value!r}.")


def check_probability(name: str, value: Any) -> None:
    """Raise unless a number from 0 to 1 came; a hyperparameter array passes."""
    if isinstance(value, jax.Array):
        return
    if not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, but it is {value!r}.")


def check_count(name: str, value: Any, minimum: int = 1) -> None:
    """Raise unless a whole number of at least ``minimum`` came; a hyperparameter array passes."""
    if isinstance(value, jax.Array):
        return
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not minimum <= value < 2**31:
        raise ValueError(
            f"{name} must be a whole number of at least {minimum}, but it is {value!r}."
        )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, but it is {value!r}.")


def typed_key(key: Any) -> Array:
    """Read a random key: a typed key, a raw key of the default implementation, or an integer seed.

    Raises:
      ValueError: where it is none of them.
    """
    if isinstance(key, int | np.integer | np.ndarray | jax.Array) and not isinstance(key, bool):
        dtype, shape = jnp.result_type(key), jnp.shape(key)
        if jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ():
            return jnp.asarray(key)
        raw = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        if (dtype, shape) == (raw.dtype, raw.shape):
            return jax.random.wrap_key_data(jnp.asarray(key))
        if jnp.issubdtype(dtype, jnp.integer) and shape == ():
            return jax.random.key(key)
    raise ValueError(
        "key must be one JAX random key, such as jax.random.key(0), or an int seed, but it is"
        f" {key!r}. A raw key of another implementation than jax_default_prng_impl has to be"
        ' wrapped, as in jax.random.wrap_key_data(key, impl="rbg").'
    )


def check_floating(what: str, tree: PyTree, *, or_whole: bool = False) -> None:
    """Raise unless all leaves are real floating-point numbers, or whole ones where they may be."""
    kinds = (jnp.floating, jnp.integer, jnp.bool_) if or_whole else (jnp.floating,)
    for path, leaf in jax.tree.leaves_with_path(tree):
        dtype = jnp.result_type(leaf)
        if not any(jnp.issubdtype(dtype, kind) for kind in kinds):
            raise ValueError(
                f"The {what} {leaf_path(path)!r} has type {dtype}, but only real floating-point"
                " gradients can be balanced: differentiate with respect to floating leaves only,"
                " and write a complex number as two real ones."
            )


def task_vector(name: str, value: TaskVector, num_tasks: int | None = None) -> Array:
    """Read one number per task.

    Args:
      name: the argument's name, for the message.
      value: an array of shape (T,), or a tree of scalars in ``jax.tree.leaves`` order.
      num_tasks: the length to insist on, if known.

    Returns:
      An array of shape (T,); a NumPy array where nothing of the input is on a device, so that a
      balancer can be built before JAX chooses its devices.

    Raises:
      ValueError: where the value is not one scalar per task, or of another length.
    """
    leaves = jax.tree.leaves(value)
    if not all(_is_real(leaf) for leaf in leaves):
        raise ValueError(f"{name} must hold one real number per task, but it is {value!r}.")
    shapes = [np.shape(leaf) for leaf in leaves]
    stack = jnp.stack if any(isinstance(leaf, jax.Array) for leaf in leaves) else np.stack
    if len(leaves) == 1 and len(shapes[0]) == 1:
        vector = leaves[0]
    elif leaves and not any(shapes):
        vector = stack(leaves)
    else:
        raise ValueError(
            f"{name} must hold one scalar per task, as an array of shape (T,) or a tree of scalars,"
            f" but its leaves have shapes {shapes}."
        )
    if num_tasks is not None and vector.shape != (num_tasks,):
        raise ValueError(
            f"{name} holds {vector.shape[0]} values, but there are {num_tasks} tasks: give one for"
            " each, in jax.tree.leaves order of the losses."
        )
    return vector


def task_mask(name: str, value: TaskVector, num_tasks: int) -> Array:
    """Read one bool per task.

    Raises:
      ValueError: where the value is not one scalar per task, or not of type bool.
    """
    mask = task_vector(name, value, num_tasks)
    if mask.dtype != bool:
        raise ValueError(
            f"{name} must be a mask of bools, one a task, but it has type {mask.dtype}: for"
            f" numbers, pass {name}=(mask != 0)."
        )
    return jnp.asarray(mask)


def _is_real(leaf: Any) -> bool:
    if not isinstance(leaf, bool | int | float | np.generic | np.ndarray | jax.Array):
        return False
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return any(jnp.issubdtype(jnp.result_type(leaf), kind) for kind in kinds)


def constant_vector(
    name: str,
    value: TaskVector,
    num_tasks: int | None = None,
    *,
    above: float | None = None,
    least: float | None = None,
) -> Array:
    """Read a constant per-task vector: finite and, where asked for, above a bound or no less."""
    vector = task_vector(name, value, num_tasks)
    if not isinstance(vector, jax.core.Tracer):
        values, limits = np.asarray(vector, dtype=float), np.finfo(np.float32)
        if not np.all(np.abs(values) <= limits.max):
            raise ValueError(f"{name} must be finite in float32, but it is {values}.")
        if least is not None and not np.all(values >= least):
            raise ValueError(f"{name} must be at least {least} for every task, but it is {values}.")
        if above is not None and not np.all(values > above):
            raise ValueError(f"{name} must be above {above} for every task, but it is {values}.")
        if above is not None and not np.all(values >= limits.tiny):
            raise ValueError(
                f"{name} must have reciprocals that are finite in float32, but it is {values}."
            )
    return vector


def leaf_path(path: tuple[Any, ...]) -> str:
    """Write a parameter's path as "trunk/dense_0/kernel".

    A flax nnx variable is the same leaf with and without its ``.value``, which is left out.
    """
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return path_name(path)


def path_name(path: tuple[Any, ...]) -> str:
    """Write a path, such as a loss's, as "aux/depth"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
