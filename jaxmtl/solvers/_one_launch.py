"""A function of small arrays as one launch on a GPU, and unchanged everywhere else.

On a GPU, XLA makes a launch of each operation. At each turn of a loop whose length is not known
beforehand, the host waits for the device. This means hundreds of launches for numbers that fit the
registers of one block. ``one_launch`` leaves a function unchanged, except in programs for CUDA, in
float32 and for a few tasks, where it becomes one kernel (``_kernel``). This is decided when the
program is lowered, not when it is traced, so other targets have no extra cost.

JAX makes no promises about the interfaces behind this. If one of them is missing, or the kernel
cannot be made, XLA's loops are used, with one warning. They are also used on GPUs that Triton does
not support (before Ampere), and wherever JAXMTL_ONE_LAUNCH is 0.
"""

import functools
import math
import os
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl.backward._programs import is_variable, opened, operations, run_program
from jaxmtl.solvers._kernel.entries import NotInKernel, filled, narrow
from jaxmtl.solvers._kernel.program import run_in_kernel

# The largest number of entries of a matrix: up to 64 tasks (32 in a linear programme). Compiled for
# an H100, the kernels keep these in registers; with twice as many tasks they would spill to memory.
MOST_ENTRIES = 2**12
_TYPES = ("bool", "float32", "int32")
# Run kernels on every platform, interpreted, operation by operation: for tests.
INTERPRETED = False
# If this is set to 0 before jaxmtl is imported, XLA's loops are used on GPUs too.
SWITCH = "JAXMTL_ONE_LAUNCH"
_WANTED = os.environ.get(SWITCH, "1") != "0"


def one_launch(function: Callable[..., Any]) -> Callable[..., Any]:
    """Jit a function of trees of arrays, so that it is one launch on a GPU.

    Under ``vmap`` it is also one launch, with a block for each entry. Operations for which
    ``_kernel`` has no rule stay as XLA makes them.
    """
    jitted = jax.jit(function)

    @jax.jit
    @functools.wraps(function)
    def launched(*args: Any) -> Any:
        try:
            launch = _primitive()
        except (ImportError, AttributeError) as error:
            _tell_once(f"{type(error).__name__}: {error}")
            return function(*args)
        traced = jitted.trace(*args)
        # Constants, if any, become arguments: a kernel holds no arrays.
        inner = opened(traced.jaxpr)
        program = inner.replace(constvars=(), invars=[*inner.constvars, *inner.invars])
        leaves = map(jnp.asarray, [*traced.jaxpr.consts, *jax.tree.leaves(args)])
        results = launch.bind(*leaves, program=program, plain=program, axes=())
        return jax.tree.unflatten(jax.tree.structure(traced.out_info), results)

    return launched


@functools.cache
def _primitive() -> Any:
    """The operation that represents a program until it is lowered."""
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    launch = Primitive("one_launch")
    launch.multiple_results = True
    launch.def_abstract_eval(lambda *_, plain, **rest: [atom.aval for atom in plain.outvars])

    def batch(values: Any, dims: Any, program: Any, plain: Any, axes: Any) -> Any:
        mapped = tuple(isinstance(dim, int) for dim in dims)
        moved = [
            jnp.moveaxis(value, dim, 0) if is_mapped else value
            for value, dim, is_mapped in zip(values, dims, mapped, strict=True)
        ]
        batched = jax.vmap(
            functools.partial(_run, plain), in_axes=[0 if each else None for each in mapped]
        )
        traced = jax.jit(batched).trace(*moved).jaxpr
        results = launch.bind(*moved, program=program, plain=opened(traced), axes=(*axes, mapped))
        return results, [0] * len(results)

    def jvp(values: Any, tangents: Any, *, plain: Any, **rest: Any) -> Any:
        # The kernel computes the values, and a loop the tangents, which are rarely needed.
        tangents = tuple(ad.instantiate_zeros(tangent) for tangent in tangents)
        _, moved = jax.jvp(functools.partial(_run, plain), tuple(values), tangents)
        return launch.bind(*values, plain=plain, **rest), moved

    as_it_is = mlir.lower_fun(lambda *v, plain, **_: _run(plain, *v), multiple_results=True)

    def lower(context: Any, *values: Any, **params: Any) -> Any:
        module = context.module_context
        # An exported program outlives the compiler for which a kernel is written: no kernel there.
        exported = module.lowering_parameters.for_export
        platforms = tuple(context.platforms or module.platforms)
        on_gpu = platforms == ("cuda",) and not exported and _WANTED and _has_triton()
        if INTERPRETED or on_gpu:
            kernel = functools.partial(_kernel, interpret=platforms != ("cuda",))
            in_kernel = mlir.lower_fun(kernel, multiple_results=True)
            plain = [jax.core.ShapedArray(a.shape, a.dtype) for a in context.avals_in]
            try:
                with _alone(), warnings.catch_warnings():
                    # JAX will remove this interface; the module docstring says what happens then.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    return in_kernel(context.replace(avals_in=plain), *values, **params)
            except NotInKernel:
                pass
            except Exception as error:  # a newer JAX may raise anything
                _tell_once(f"{type(error).__name__}: {error}")
        return as_it_is(context, *values, **params)

    batching.primitive_batchers[launch] = batch
    ad.primitive_jvps[launch] = jvp
    mlir.register_lowering(launch, lower)
    return launch


def _has_triton() -> bool:
    """Whether Triton compiles for the GPUs of this machine, if there are any."""
    if jax.default_backend() not in ("gpu", "cuda"):  # ahead of time, for a described GPU
        return True
    capability = getattr(jax.devices()[0], "compute_capability", "8.0")
    return float(capability) >= 8


def _alone() -> Any:
    """A mesh of one device; JAX requires its kind, though no kernel depends on it.

    XLA compiles the kernel for the GPU on which it runs.
    """
    device = None
    if jax.default_backend() not in ("gpu", "cuda") and jax.__version_info__ >= (0, 11):
        device = jax.sharding.AbstractDevice("NVIDIA H100", None, "gpu")
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


@functools.cache
def _tell_once(cause: str) -> None:
    warnings.warn(
        f"jaxmtl cannot make a GPU kernel of a solver with jax {jax.__version__} ({cause[:200]})."
        " The results are correct, but a step takes many launches and waits. A newer jaxmtl may"
        " support this jax; if there is none, please report it.",
        RuntimeWarning,
        stacklevel=2,
    )


def _run(program: Any, *values: Any) -> list[Any]:
    return run_program(program, (), values)


def _kernel(*values: Any, program: Any, plain: Any, axes: Any, interpret: bool) -> list[Any]:
    """The program as a kernel, with the surrounding vmaps as its grid."""
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    arguments = [atom.aval for atom in program.invars]
    results = [atom.aval for atom in program.outvars]
    atoms = [*program.invars, *program.outvars]
    atoms += [atom for eqn in operations(program) for atom in (*eqn.invars, *eqn.outvars)]
    if {str(narrow(atom.aval.dtype)) for atom in atoms}.difference(_TYPES):
        raise NotInKernel("types of other sizes than 32 bits")
    if any(atom.aval.dtype == "float64" and atom.aval.shape for atom in atoms):
        raise NotInKernel("float64")
    largest = max(math.prod(filled(atom.aval.shape)) for atom in atoms if is_variable(atom))
    if largest > MOST_ENTRIES:
        raise NotInKernel("too many tasks")

    def body(*references: Any) -> None:
        inputs, outputs = references[: len(arguments)], references[len(arguments) :]
        given = [
            _with(reference[...], filled(aval.shape), narrow(aval.dtype))
            for reference, aval in zip(inputs, arguments, strict=True)
        ]
        for reference, value in zip(outputs, run_in_kernel(program, given), strict=True):
            reference[...] = _with(value, reference.shape, reference.dtype)

    call = pallas.pallas_call(
        body,
        out_shape=[_like(*_outside(aval)) for aval in results],
        compiler_params=triton.CompilerParams(num_warps=_warps(largest), num_stages=1),
        interpret=interpret,
        name="solver",
    )

    def run(*values: Any) -> list[Any]:
        full = [_filled_up(v, *_outside(a)) for v, a in zip(values, arguments, strict=True)]
        found = zip(call(*full), results, strict=True)
        return [
            _with(value[tuple(map(slice, aval.shape or (1,)))], aval.shape, aval.dtype)
            for value, aval in found
        ]

    for mapped in axes:
        run = jax.vmap(run, in_axes=[0 if each else None for each in mapped])
    return run(*values)


def _warps(entries: int) -> int:
    """Warps of 32 threads, so that a matrix takes 8 to 16 registers of each; one if all fit one."""
    return 1 if entries <= 256 else 4 if entries <= 1024 else 8


def _outside(aval: Any) -> tuple[Sequence[int], Any]:
    """Shape and type of an array in memory: scalars become vectors of one, bools numbers."""
    return filled(aval.shape) or (1,), jnp.int32 if aval.dtype == bool else narrow(aval.dtype)


def _like(shape: Sequence[int], dtype: Any) -> Any:
    """A shape and type without a device, which a ``jax.ShapeDtypeStruct`` would look up."""
    return types.SimpleNamespace(shape=tuple(shape), dtype=jnp.dtype(dtype))


def _filled_up(value: Any, shape: Sequence[int], dtype: Any) -> Any:
    value = value.astype(dtype)
    if value.ndim == 0:
        return value.reshape(1)
    widths = [(0, full - size) for full, size in zip(shape, value.shape, strict=True)]
    return jnp.pad(value, widths) if any(width for _, width in widths) else value


def _with(value: Any, shape: Sequence[int], dtype: Any) -> Any:
    value = jnp.asarray(value)
    value = value if value.shape == tuple(shape) else value.reshape(shape)
    return value if value.dtype == dtype else value.astype(dtype)
