"""Checks of inputs, with messages in full sentences, before anything is traced.

A number may be Python's, NumPy's or a JAX scalar. A traced number, such as those of
``optax.inject_hyperparams``, has no value yet: only its type and shape are checked.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._typing import PyTree

STATIC = "Inside optax.inject_hyperparams, list it in static_args."


def check_num_tasks(num_tasks: Any) -> int:
    """Raise unless ``num_tasks`` is a Python integer of at least one."""
    return static_count("num_tasks", num_tasks)


def optional_num_tasks(num_tasks: int | None) -> int | None:
    """Check ``num_tasks`` for a method that also works without it."""
    return None if num_tasks is None else check_num_tasks(num_tasks)


def check_at_least(name: str, value: Any, minimum: float) -> Any:
    """Read a finite number of at least ``minimum``."""
    return _check_number(
        name, value, f"number of at least {minimum}", lambda x: minimum <= x and math.isfinite(x)
    )


def check_share(name: str, value: Any) -> Any:
    """Read a number from 0 to below 1."""
    return _check_number(name, value, "number from 0 to below 1", lambda x: 0 <= x < 1)


def check_finite(name: str, value: Any) -> Any:
    """Read a finite number."""
    return _check_number(name, value, "finite number", math.isfinite)


def check_above(name: str, value: Any, bound: float) -> Any:
    """Read a finite number above ``bound``."""
    return _check_number(
        name, value, f"finite number above {bound}", lambda x: bound < x and math.isfinite(x)
    )


def check_range(name: str, value: Any, least: float, most: float, why: str = "") -> Any:
    """Read a number from ``least`` to ``most``."""
    kind = f"number from {least} to {most}"
    return _check_number(name, value, kind, lambda x: least <= x <= most, why=why)


def check_count(name: str, value: Any, minimum: int = 1) -> Any:
    """Read a whole number of at least ``minimum``."""
    kind = f"whole number of at least {minimum}"
    return _check_number(name, value, kind, lambda x: minimum <= x < 2**31, (jnp.integer,))


def static_count(name: str, value: Any, minimum: int = 1) -> int:
    """Read a whole number of at least ``minimum`` that sets array shapes or unrolled loops.

    Raises:
      ValueError: also for a traced number.
    """
    if isinstance(value, jax.Array):
        raise ValueError(
            f"{name} must be a Python int, because it sets the shapes of arrays, but it is"
            f" {shown(value)}. {STATIC}"
        )
    check_count(name, value, minimum)
    return int(value)


def check_flag(name: str, value: Any) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool | np.bool_):
        traced = f" {STATIC}" if isinstance(value, jax.core.Tracer) else ""
        raise ValueError(f"{name} must be True or False, but it is {shown(value)}.{traced}")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, but it is {shown(value)}.")


def check_callable(name: str, value: Any, call: str) -> None:
    """Raise unless ``value`` is a function; ``call`` says how it will be called."""
    if not callable(value):
        raise ValueError(f"{name} must be a function {call}, but it is {shown(value)}.")


def check_argnums(argnums: Any) -> Any:
    """Read the positional arguments to differentiate: an int, or a tuple of different ints."""
    several = isinstance(argnums, tuple | list)
    numbers = argnums if several else [argnums]
    kinds = int | np.integer
    if not all(isinstance(n, kinds) and not isinstance(n, bool) for n in numbers) or not numbers:
        raise ValueError(
            f"argnums must be an int or a tuple of ints, but it is {shown(argnums)}: the numbers,"
            " from 0, of the positional arguments to differentiate."
        )
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"argnums must hold different numbers, but it is {shown(argnums)}.")
    return tuple(map(int, numbers)) if several else int(argnums)


def check_optimizer(name: str, value: Any) -> None:
    """Raise unless ``value`` is an optax transformation, and not a balancer."""
    is_balancer = hasattr(value, "weighting")
    if is_balancer or not (hasattr(value, "init") and hasattr(value, "update")):
        cure = " Call it: optax.adam(1e-2) makes one, optax.adam does not." * callable(value)
        if is_balancer:
            cure = " That is a balancer, which comes after per_task and before an optimizer."
        raise ValueError(
            f"{name} must be an optax transformation, such as optax.adam(1e-2), but it is"
            f" {shown(value)}.{cure}"
        )


def real_array(name: str, value: Any, shape: str = "", *, ndim: int | None = None) -> Any:
    """Read an array of real numbers with the given axes; ``shape`` describes them, as "(N, T)".

    Returns:
      A JAX array unchanged, anything else as a NumPy array without loss of digits.

    Raises:
      ValueError: if it is not an array of numbers, or has other axes.
    """
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except (TypeError, ValueError):  # rows of different lengths
        array = None
    if not is_real(array):
        of_shape = f" of shape {shape}" if shape else ""
        raise ValueError(
            f"{name} must be an array of real numbers{of_shape}, but it is {shown(value)}."
        )
    if ndim is not None and np.ndim(array) != ndim:
        raise ValueError(f"{name} must have shape {shape}, but it has {np.shape(array)}.")
    return array


def check_floating(what: str, tree: PyTree, *, or_whole: bool = False) -> None:
    """Raise unless all leaves are real floating-point numbers (or whole ones with ``or_whole``)."""
    kinds = (jnp.floating, jnp.integer, jnp.bool_) if or_whole else (jnp.floating,)
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not is_real(leaf, kinds):
            name = f" {leaf_path(path)!r}" if path else ""
            came = f"has type {leaf.dtype}" if hasattr(leaf, "dtype") else f"is {shown(leaf)}"
            raise ValueError(
                f"The {what}{name} {came}, but only real floating-point gradients can be"
                " balanced: differentiate with respect to floating leaves only, and write a"
                " complex number as two real ones."
            )


def is_real(leaf: Any, kinds: Sequence[Any] = (jnp.floating, jnp.integer, jnp.bool_)) -> bool:
    """Whether a leaf is a real number, or an array of them, of one of these kinds."""
    # Names and classes are types to NumPy, and None is float64.
    if leaf is None or isinstance(leaf, str | bytes | type | np.dtype):
        return False
    if isinstance(leaf, int) and not -(2**63) <= leaf < 2**63:
        return False
    try:
        dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
        return any(jnp.issubdtype(dtype, kind) for kind in kinds)
    except (TypeError, ValueError, OverflowError):
        return False


def shown(value: Any) -> str:
    """A value in a message: shortened, and a traced one by its type and shape."""
    if isinstance(value, jax.core.Tracer):
        return f"a traced {value.dtype}{list(value.shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def wide_dtype(*dtypes: Any) -> jnp.dtype:
    """float32, or float64 if one of these is; also under strict type promotion."""
    return jnp.dtype(jnp.float64 if jnp.dtype(jnp.float64) in dtypes else jnp.float32)


def leaf_path(path: tuple[Any, ...]) -> str:
    """Write a parameter's path as "trunk/dense_0/kernel".

    A flax nnx variable gives the same path with and without its ``.value``, which is left out.
    """
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return path_name(path)


def path_name(path: tuple[Any, ...]) -> str:
    """Write a path, such as a loss's, as "aux/depth"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _check_number(
    name: str,
    value: Any,
    kind: str,
    fits: Callable[[Any], bool],
    kinds: Sequence[Any] = (jnp.floating, jnp.integer),
    why: str = "",
) -> Any:
    """Read a number as Python's; a traced one is returned unchanged."""
    number = _number(value, kinds)
    traced = isinstance(number, jax.core.Tracer)
    if number is None or not (traced or fits(number)):
        raise ValueError(f"{name} must be a {kind}, but it is {shown(value)}{why}.")
    return number


def _number(value: Any, kinds: Sequence[Any]) -> Any:
    """A real number as Python's, a traced one unchanged; None for anything else."""
    is_array = isinstance(value, np.generic | np.ndarray | jax.Array) and value.shape == ()
    if not is_array and (isinstance(value, bool) or not isinstance(value, int | float)):
        return None
    if isinstance(value, jax.core.Tracer):
        return value if is_real(value, kinds) else None
    number = value.item() if is_array and is_real(value) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    if jnp.floating not in kinds:
        return number if isinstance(number, int) else None
    try:
        return float(number)  # JAX has no int beyond 32 bits
    except OverflowError:
        return math.inf
