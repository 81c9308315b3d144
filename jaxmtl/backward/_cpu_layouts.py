"""Programs rewritten into the form that XLA compiles to fast code on a CPU, with equal results.

XLA's CPU compiler brings a convolution into the layout of its fast kernels only outside of loops
and branches; inside, the derivatives of a convolution are 20 to 40 times slower. JAX writes the
derivative of ``x @ w`` as the transpose of ``dy.T @ x``, and the compiler follows it literally: it
transposes the cotangent ``dy``, which differs from task to task, instead of ``x``, which does not.
For several tasks' cotangents it makes one product, and copies the cotangents into another order
before it and the result after it; for few rows, one product for each task is faster.
"""

import collections
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._platform import by_target
from jaxmtl.backward._programs import (
    HOLDERS,
    is_program,
    is_staged,
    is_variable,
    opened,
    operations,
    read_program,
    rewritten_or_plain,
    run_program,
)

# With more rows, the copies cost less than separate products and the time to compile them.
_FEW_ROWS = 8
# The parameters of a product that are understood; a product with others is left as it is.
_OF_A_PRODUCT = {"dimension_numbers", "precision", "preferred_element_type", "out_sharding"}


def laid_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """Rewrite the program of a function from arrays to arrays for a CPU.

    Outside of ``jit`` the function runs unchanged: a program that is rewritten at each call would
    be compiled at each call.
    """

    def rewritten(*args: Any) -> Any:
        program, constants, shapes = read_program(function, *args)
        results = run_program(_rewritten(program), constants, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    def evaluate(*args: Any) -> Any:
        if not is_staged():
            return function(*args)
        ways = (functools.partial(way, *args) for way in (rewritten, function))
        return rewritten_or_plain(*ways)

    return evaluate


def largest_result(function: Callable[..., Any], *args: Any) -> int:
    """The size in bytes of the largest intermediate array of a function."""
    program, _, _ = read_program(function, *args)
    results = [var.aval for eqn in operations(program) for var in eqn.outvars]
    return max((aval.size * aval.dtype.itemsize for aval in results), default=0)


def _rewritten(part: Any) -> Any:
    """Rewrite a program, or the programs within a parameter of an operation."""
    if type(part) is tuple:
        return tuple(map(_rewritten, part))
    if not is_program(part):
        return part
    if opened(part) is not part:
        return part.replace(jaxpr=_rewritten(opened(part)))
    eqns: list[Any] = []
    for eqn in part.eqns:
        if eqn.primitive.name in HOLDERS:
            params = {name: _rewritten(value) for name, value in eqn.params.items()}
            if "branches_platforms" in params:  # of by_target: only what is for a CPU
                pairs = zip(
                    params["branches_platforms"],
                    params["branches"],
                    eqn.params["branches"],
                    strict=True,
                )
                params["branches"] = tuple(
                    new if "cpu" in (where or ()) else old for where, new, old in pairs
                )
            eqn = eqn.replace(params=params)
        elif eqn.primitive.name == "conv_general_dilated":
            eqn = _with_features_last(eqn)
        eqns.append(eqn)
    return part.replace(eqns=_with_products_turned(eqns, part.outvars))


def _with_products_turned(eqns: list[Any], results: list[Any]) -> list[Any]:
    """Replace a product and the transpose that alone reads it by the transposed product."""
    read = [var for eqn in eqns for var in eqn.invars] + results
    times_read = collections.Counter(filter(is_variable, read))
    products = {eqn.outvars[0]: eqn for eqn in eqns if eqn.primitive.name == "dot_general"}
    kept = {}
    for eqn in eqns:
        kept[id(eqn)] = eqn
        if eqn.primitive.name != "transpose" or times_read[eqn.invars[0]] != 1:
            continue
        product = products.get(eqn.invars[0])
        turned = None if product is None else _turned(product, eqn.params["permutation"])
        if turned is not None:
            del kept[id(product)]
            kept[id(eqn)] = _for_cpu(turned, [product, eqn])
    return list(kept.values())


def _turned(product: Any, order: tuple[int, ...]) -> Callable[..., Any] | None:
    """B^T A^T for (A B)^T, or for each of a few rows A_t of A; None for all other orders."""
    params = dict(product.params)
    summed, batch = params["dimension_numbers"]
    if batch[0] or params.get("out_sharding") is not None or params.keys() - _OF_A_PRODUCT:
        return None
    if type(params["precision"]) is tuple:  # one for each side
        params["precision"] = params["precision"][::-1]
    left, right = (var.aval.ndim - len(summed[0]) for var in product.invars)
    lefts, rights = range(left), range(left, left + right)
    if order == (*rights, *lefts):
        params["dimension_numbers"] = (summed[::-1], batch)
        return lambda left, right: product.primitive.bind(right, left, **params)
    if order != (0, *rights, *lefts[1:]) or 0 in summed[0]:
        return None
    if not 0 < product.invars[0].aval.shape[0] <= _FEW_ROWS:
        return None
    of_row = tuple(axis - 1 for axis in summed[0])
    params["dimension_numbers"] = ((summed[1], of_row), batch)

    def of_each(stack: Any, shared: Any) -> Any:
        return jnp.stack([product.primitive.bind(shared, row, **params) for row in stack])

    return of_each


def _for_cpu(function: Callable[..., Any], eqns: list[Any]) -> Any:
    """An operation that runs a function on CPU, and the original operations elsewhere."""

    def as_they_were(*args: Any) -> Any:
        for eqn in eqns:
            args = (eqn.primitive.bind(*args, **eqn.params),)
        return args[0]

    way = jax.jit(functools.partial(by_target, cpu=function, default=as_they_were))
    program, _, _ = read_program(way, *(var.aval for var in eqns[0].invars))
    return program.eqns[0].replace(invars=eqns[0].invars, outvars=eqns[-1].outvars)


def _with_features_last(eqn: Any) -> Any:
    """The same convolution of (batch, *space, features) with (*space, inputs, outputs)."""
    *space, last = range(1, eqn.outvars[0].aval.ndim)
    images, kernels = (0, last, *space), (last, last - 1, *(axis - 1 for axis in space))
    fast = lax.ConvDimensionNumbers(images, kernels, images)
    params = dict(eqn.params)
    numbers, out_sharding = params.pop("dimension_numbers"), params.pop("out_sharding", None)
    if numbers == fast or out_sharding is not None:
        return eqn

    def convolve(image: Any, kernel: Any) -> Any:
        # An entry of a specification says where an axis is: axis 0 the batch, 1 the features, ...
        image = jnp.moveaxis(image, numbers.lhs_spec, fast.lhs_spec)
        kernel = jnp.moveaxis(kernel, numbers.rhs_spec, fast.rhs_spec)
        result = lax.conv_general_dilated(image, kernel, dimension_numbers=fast, **params)
        return jnp.moveaxis(result, fast.out_spec, numbers.out_spec)

    return _for_cpu(convolve, [eqn])
