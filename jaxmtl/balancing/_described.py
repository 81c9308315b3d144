"""The description of a balancer, and the error for a call that does not fit its signature."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import numpy as np
import optax

from jaxmtl.balancing._base import Balancer

P = ParamSpec("P")


def described(factory: Callable[P, Balancer]) -> Callable[P, Balancer]:
    """Record the call that makes a balancer, for its ``repr``.

    ``repr(jaxmtl.every(jaxmtl.mgda(num_tasks=3), 2))`` is ``every(mgda(num_tasks=3), k=2)``, and
    ``jaxmtl.mgda(3)`` raises an error which says that ``num_tasks`` must be passed by name.
    """
    signature, name = inspect.signature(factory), factory.__name__
    kinds = inspect.get_annotations(factory)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> Balancer:
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            names = ", ".join(_with_stars(signature))
            raise TypeError(
                f"{name}({names}) cannot be called so: {error}. Pass the arguments after the * by"
                " name, such as num_tasks=3."
            ) from None
        plain = (_as_python(value, annotation=kinds.get(n)) for n, value in arguments.items())
        bound = inspect.BoundArguments(signature, dict(zip(arguments, plain, strict=True)))
        balancer = factory(*bound.args, **bound.kwargs)
        balancer.description = f"{name}({', '.join(map(_text, arguments, arguments.values()))})"
        return balancer

    return make


def _as_python(value: Any, annotation: Any) -> Any:
    """NumPy scalars as Python's, which adopt other operands' types; a float instead of an int."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.shape == ()):
        value = value.item()
    is_int = isinstance(value, int) and not isinstance(value, bool)
    # JAX has no int beyond 32 bits, and Python no float beyond 1024.
    return float(value) if annotation is float and is_int and abs(value) < 2**1000 else value


def _with_stars(signature: inspect.Signature) -> list[str]:
    """The names of the arguments, with a star before those that must be passed by name."""
    kinds = inspect.Parameter
    names = [p.name for p in signature.parameters.values() if p.kind is not kinds.KEYWORD_ONLY]
    by_name = [p.name for p in signature.parameters.values() if p.kind is kinds.KEYWORD_ONLY]
    return [*names, *(["*", *by_name] if by_name else [])]


def _text(name: str, value: Any) -> str:
    """An argument as the user would write it, shortened."""
    if isinstance(value, Balancer):
        return repr(value)
    if isinstance(value, jax.Array):
        return f"{name}=<{value.dtype}{list(value.shape)}>"
    if callable(value) or isinstance(value, optax.GradientTransformation):
        return f"{name}=<{type(value).__name__}>"
    # Functions within a tree without their addresses, which differ from run to run.
    text = re.sub(r"<(\w+) .*? at 0x[0-9a-f]+>", r"<\1>", " ".join(repr(value).split()))
    return f"{name}={text}" if len(text) <= 60 else f"{name}={text[:57]}..."
