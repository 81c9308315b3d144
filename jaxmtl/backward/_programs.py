"""The one door to programs, JAX's jaxprs: rewriting them may fail, and then costs speed alone.

JAX promises nothing about how it writes a program down. So whatever reads or rewrites one stands in
modules behind ``rewritten_or_plain``, with a plain way beside it, tells operations by their names,
and takes a program and a closed program for one thing: they are one class from jax 0.12 on.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._typing import Array

# Operations that hold programs of plain values. Others (kernels, say) hold programs of their own
# kind, which are left as they are.
HOLDERS = {
    *("call", "closed_call", "custom_jvp_call", "custom_vjp_call", "eval_jaxpr", "jit", "remat2"),
    *("cond", "scan", "while"),
}


def is_staged() -> bool:
    """Whether a program is being written down, by ``jit`` and the like, or all runs at once."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def rewritten_or_plain(rewritten: Callable[[], Any], plain: Callable[[], Any]) -> Any:
    """Return what ``rewritten`` does, or where that fails what ``plain`` does, with one warning.

    An error of the user's own function comes out of ``plain`` as it would without any rewriting.
    """
    try:
        return rewritten()
    except Exception as error:  # whatever a JAX that has moved on may raise
        cause = f"{type(error).__name__}: {error}"
    result = plain()
    _tell_once(cause)
    return result


@functools.cache
def _tell_once(cause: str) -> None:
    cause = cause if len(cause) <= 200 else f"{cause[:200]} ..."
    warnings.warn(
        f"jaxmtl cannot rewrite a program as jax {jax.__version__} writes it ({cause}). The numbers"
        " are right, but take the plain way, which may be slower. A newer jaxmtl may know this jax;"
        " if there is none, please report it.",
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
    from jax.extend import core  # here, behind the door: it may be missing one day

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
