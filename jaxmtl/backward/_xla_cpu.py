"""A defence against wrong gradients from the CPU compiler of some jaxlib versions.

From jaxlib 0.10.2 on, XLA compiles the stacked gradients of normalisation layers for CPU with a
pass (YNNPACK fusions of reductions) whose results are wrong by tens of per cent, without an error.
If the pass is restricted to matrix products, the results are right.
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

    Adds the compiler flag that prevents this to ``XLA_FLAGS``, if the installed jaxlib needs it and
    the flag is not set already. Neither the fault nor the flag affects programs for GPU and TPU.

    Raises:
      RuntimeError: if a computation has already run, since JAX reads the flags before the first.

    Examples:
      >>> import jaxmtl
      >>> jaxmtl.use_safe_cpu_compiler()  # first thing in a script or a notebook
    """
    if not _is_affected() or _is_decided():
        return
    if _has_read_its_flags():
        raise RuntimeError(
            "use_safe_cpu_compiler() was called too late: JAX reads the compiler's flags before"
            " the first computation, and one has run. Restart, and call it right after the imports."
        )
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {CURE}".strip()


def warn_if_miscompiled(tree: PyTree) -> PyTree:
    """The same arrays; warn once if what is computed from them on a CPU may be wrong.

    Whether a program is for a CPU is known when it is lowered, so the arrays are marked until then.
    """
    mark = rewritten_or_plain(_mark, lambda: lambda array: array)
    return jax.tree.map(lambda leaf: mark(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


@functools.cache
def _mark() -> Callable[[Array], Array]:
    """An identity operation that warns when it is run on CPU or lowered for CPU."""
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
    """How far up the call stack the first function outside jaxmtl and JAX is."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _OURS_AND_JAX:
        frame, level = frame.f_back, level + 1
    return level


def _is_affected() -> bool:
    numbers = tuple(int(part) for part in jaxlib.__version__.split(".")[:3] if part.isdigit())
    return numbers >= FIRST_AFFECTED


def _has_read_its_flags() -> bool:
    """Whether JAX has started: it has no function for this, but then this setting is refused."""
    devices = getattr(jax.config, "jax_num_cpu_devices", None)
    if devices is None:  # without that setting there is no way to know
        return False
    try:
        for number in (devices + 2, devices):
            jax.config.update("jax_num_cpu_devices", number)
    except RuntimeError:
        return True
    return False


def _is_decided() -> bool:
    return FLAG in os.environ.get("XLA_FLAGS", "")
