"""Access to programs, JAX's jaxprs: if rewriting one fails, only speed is lost.

JAX does not promise how it writes a program down. Every module that reads or rewrites one is
therefore called through ``rewritten_or_plain``, with a plain way beside it, identifies operations
by their names, and treats a program and a closed program alike: they are one class from jax 0.12
on.
"""

import contextlib
import functools
import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._typing import Array

# jax 0.12 adds settings on the first import of this module. What `jit` had compiled before it, the
# step that imports it included, would be compiled again. A later JAX may lack the module.
with contextlib.suppress(ImportError):
    importlib.import_module("jax.extend.core")

# Operations that hold programs of plain values. Others (kernels, for example) hold programs of
# another kind, which are left as they are.
HOLDERS = {
    *("call", "closed_call", "custom_jvp_call", "custom_vjp_call", "eval_jaxpr", "jit", "remat2"),
    *("cond", "scan", "while"),
}


def is_staged() -> bool:
    """Whether a program is being traced, by ``jit`` and the like, rather than run at once."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def rewritten_or_plain(rewritten: Callable[[], Any], plain: Callable[[], Any]) -> Any:
    """Return the result of ``rewritten``, or if that fails of ``plain``, with one warning.

    An error in the user's own function is raised by ``plain``, as it would be without rewriting.
    """
    try:
        return rewritten()
    except Exception as error:  # a newer JAX may raise anything
        cause = f"{type(error).__name__}: {error}"
    result = plain()
    _tell_once(cause)
    return result


@functools.cache
def _tell_once(cause: str) -> None:
    cause = cause if len(cause) <= 200 else f"{cause[:200]} ..."
    warnings.warn(
        f"jaxmtl cannot rewrite a program as jax {jax.__version__} writes it ({cause}). The results"
        " are correct, but they are computed without rewriting, which may be slower. A newer jaxmtl"
        " may support this jax; if there is none, please report it.",
        RuntimeWarning,
        stacklevel=3,
    )


def read_program(function: Callable[..., Any], *args: Any) -> tuple[Any, Any, Any]:
    """The program of a function of trees of arrays.

    Returns:
      The program, the values of its constants, and the tree of its results' shapes.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    return opened(closed), closed.consts, shapes


def opened(program: Any) -> Any:
    """The program within a closed program, which holds the operations."""
    return getattr(program, "jaxpr", program)


def is_program(part: Any) -> bool:
    """Whether a parameter of an operation is a program."""
    return hasattr(part, "eqns")


def is_variable(atom: Any) -> bool:
    """Whether an input or a result is a variable, not a number written into the program."""
    return not hasattr(atom, "val")


def run_program(program: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Array]:
    """Run a program on arrays."""
    from jax.extend import core

    part = program.replace(constvars=(), invars=[*program.constvars, *program.invars])
    if not hasattr(part, "consts"):
        part = core.ClosedJaxpr(part, ())
    return core.jaxpr_as_fun(part)(*constants, *arguments)


def operations(program: Any) -> Iterator[Any]:
    """All operations of a program, those of the programs within them too."""
    for eqn in opened(program).eqns:
        yield eqn
        for part in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_program):
            if is_program(part):
                yield from operations(part)
