"""A defence against wrong gradients from the CPU compiler of some jaxlib versions.

From jaxlib 0.10.2 on, XLA compiles the stacked gradients of normalisation layers for CPU with a
pass (YNNPACK fusions of reductions) that returns them tens of per cent wrong, without an error.
Leaving that pass the matrix products alone cures it.
"""

import functools
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jaxlib

from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._programs import rewritten_or_plain

FIRST_AFFECTED = (0, 10, 2)
FLAG = "xla_cpu_experimental_ynn_fusion_type"
CURE = f"--{FLAG}=individual_dot,individual_convolution"
_OURS_AND_JAX = ("jaxmtl", "jax", "contextlib", "functools")


def use_safe_cpu_compiler() -> None:
    """Keep jaxlib's CPU compiler from returning wrong stacked gradients.

    Adds the compiler flag that cures it to ``XLA_FLAGS``, where the installed jaxlib needs it and
    the flag is not set already. Programs for GPU and TPU are not affected by bug or cure.

    Raises:
      RuntimeError: where a computation has already run, since the flags are read before the first.

    Examples:
      >>> import jaxmtl
      >>> jaxmtl.use_safe_cpu_compiler()  # first thing in a script or a notebook
    """
    if not _is_affected() or _is_decided():
        return
    if _has_read_its_flags():
        raise RuntimeError(
            "use_safe_cpu_compiler() came too late: JAX reads the compiler's flags before the first"
            " computation, and one has run. Restart, and call it right after the imports."
        )
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {CURE}".strip()


def warn_if_miscompiled(tree: PyTree) -> PyTree:
    """The same arrays; warn once where what is made of them is for a CPU and may come out garbled.

    Whether it is for a CPU is known when it is lowered, so the arrays are marked for that moment.
    """
    mark = rewritten_or_plain(_mark, lambda: lambda array: array)
    return jax.tree.map(lambda leaf: mark(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


@functools.cache
def _mark() -> Callable[[Array], Array]:
    """An operation that does nothing, but to warn when it is run on CPU or lowered for one."""
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    def run(array: Array) -> Array:
        if any(device.platform == "cpu" for device in array.devices()):
            _warn()
        return array

    def lower_for_cpu(_: Any, array: Any) -> list[Any]:
        _warn()
        return [array]

    mark = Primitive("jaxmtl_mark")
    mark.def_impl(run)
    mark.def_abstract_eval(lambda aval: aval)
    ad.deflinear2(mark, lambda cotangent, _: [mark.bind(cotangent)])
    batching.defvectorized(mark)
    mlir.register_lowering(mark, lambda _, array: [array])
    mlir.register_lowering(mark, lower_for_cpu, platform="cpu")
    return mark.bind


def _warn() -> None:
    if _is_affected() and not _is_decided():
        _tell_once()


@functools.cache
def _tell_once() -> None:
    warnings.warn(
        f"jaxlib {jaxlib.__version__} compiles stacked gradients of normalisation layers"
        " wrongly on CPU. Call jaxmtl.use_safe_cpu_compiler() before the first computation, or"
        f" set XLA_FLAGS={CURE}.",
        RuntimeWarning,
        stacklevel=_frames_to_the_user(),
    )


def _frames_to_the_user() -> int:
    """How far up the stack of calls the first function is that is neither ours nor JAX's."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _OURS_AND_JAX:
        frame, level = frame.f_back, level + 1
    return level


def _is_affected() -> bool:
    numbers = tuple(int(part) for part in jaxlib.__version__.split(".")[:3] if part.isdigit())
    return numbers >= FIRST_AFFECTED


def _has_read_its_flags() -> bool:
    """Whether JAX has started; no function of its own says so, but then this setting is refused."""
    devices = getattr(jax.config, "jax_num_cpu_devices", None)
    if devices is None:  # in a JAX without that setting nobody can tell
        return False
    try:
        for number in (devices + 2, devices):
            jax.config.update("jax_num_cpu_devices", number)
    except RuntimeError:
        return True
    return False


def _is_decided() -> bool:
    return FLAG in os.environ.get("XLA_FLAGS", "")
