"""A defence against wrong gradients from the CPU compiler of some jaxlib versions.

From jaxlib 0.10.2 on, XLA compiles the stacked gradients of normalisation layers for CPU with a
pass (YNNPACK fusions of reductions) that returns them tens of per cent wrong, without an error.
Leaving that pass the matrix products alone cures it.
"""

import functools
import os
import warnings

import jax
import jaxlib

FIRST_AFFECTED = (0, 10, 2)
FLAG = "xla_cpu_experimental_ynn_fusion_type"
CURE = f"--{FLAG}=individual_dot,individual_convolution"


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


@functools.cache
def warn_if_miscompiled() -> None:
    """Warn once where gradients are asked for on CPU and the installed compiler may garble them."""
    if _is_affected() and not _is_decided() and jax.default_backend() == "cpu":
        warnings.warn(
            f"jaxlib {jaxlib.__version__} compiles stacked gradients of normalisation layers"
            " wrongly on CPU. Call jaxmtl.use_safe_cpu_compiler() before the first computation, or"
            f" set XLA_FLAGS={CURE}.",
            RuntimeWarning,
            stacklevel=4,
        )


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
