"""Programs in the form that XLA compiles to fast code for CPU; the same numbers come out.

XLA's CPU compiler brings a convolution into the layout of its fast kernels only outside of loops
and branches; inside, the derivatives of a convolution are 20 to 40 times slower. And of the
derivative of ``x @ w``, which JAX writes as the transpose of ``dy.T @ x``, it makes just that: it
turns the cotangent ``dy``, which is another one for each task, instead of ``x``, which is not. Of
several tasks' cotangents it makes one product, for which it copies them into another order before,
and the result after; where they are few, a product for each is faster.
"""

import collections
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Var, jaxpr_as_fun
from jax.extend.core.primitives import conv_general_dilated_p, dot_general_p, transpose_p

# Of more rows, the copies cost less than the products one by one, and than compiling them.
_FEW_ROWS = 8


def on_one_cpu() -> bool:
    """Whether programs run on a single CPU device, where nothing can be sharded."""
    return jax.default_backend() == "cpu" and jax.device_count() == 1


def laid_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays that returns arrays, its program rewritten where it runs on CPU."""
    if jax.default_backend() != "cpu":
        return function

    def evaluate(*args: Any) -> Any:
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        results = jaxpr_as_fun(_rewritten(program))(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return evaluate


def largest_result(function: Callable[..., Any], *args: Any) -> int:
    """The size in bytes of the largest array that a function computes on its way."""

    def sizes(jaxpr: Any) -> Iterator[int]:
        for eqn in jaxpr.eqns:
            yield from (var.aval.size * var.aval.dtype.itemsize for var in eqn.outvars)
            for inner in jax.tree.leaves(list(eqn.params.values())):
                inner = getattr(inner, "jaxpr", inner)
                if isinstance(inner, Jaxpr):
                    yield from sizes(inner)

    return max(sizes(jax.make_jaxpr(function)(*args).jaxpr), default=0)


def _rewritten(part: Any) -> Any:
    """Rewrite a program, or the programs within a parameter of an operation."""
    if type(part) is tuple:
        return tuple(map(_rewritten, part))
    if isinstance(part, ClosedJaxpr):
        return part.replace(jaxpr=_rewritten(part.jaxpr))
    if not isinstance(part, Jaxpr):
        return part
    eqns: list[Any] = []
    for eqn in part.eqns:
        params = {name: _rewritten(value) for name, value in eqn.params.items()}
        is_convolution = eqn.primitive is conv_general_dilated_p
        eqns.append(_with_features_last(eqn) if is_convolution else eqn.replace(params=params))
    return part.replace(eqns=_with_products_turned(eqns, part.outvars))


def _with_products_turned(eqns: list[Any], results: list[Any]) -> list[Any]:
    """Products that give at once what a transpose makes of them, where nothing else reads them."""
    read = [var for eqn in eqns for var in eqn.invars] + results
    times_read = collections.Counter(var for var in read if isinstance(var, Var))
    products = {eqn.outvars[0]: eqn for eqn in eqns if eqn.primitive is dot_general_p}
    kept = {}
    for eqn in eqns:
        kept[id(eqn)] = eqn
        if eqn.primitive is not transpose_p or times_read[eqn.invars[0]] != 1:
            continue
        product = products.get(eqn.invars[0])
        turned = None if product is None else _turned(product, eqn.params["permutation"])
        if turned is not None:
            del kept[id(product)]
            kept[id(eqn)] = turned.replace(outvars=eqn.outvars)
    return list(kept.values())


def _turned(product: Any, order: tuple[int, ...]) -> Any | None:
    """B^T A^T for (A B)^T, or for each of a few rows A_t of A; None for all other orders."""
    summed, batch = product.params["dimension_numbers"]
    if batch[0] or product.params.get("out_sharding") is not None:
        return None
    left, right = (var.aval.ndim - len(summed[0]) for var in product.invars)
    lefts, rights = range(left), range(left, left + right)
    if order == (*rights, *lefts):
        params = product.params | {"dimension_numbers": (summed[::-1], batch)}
        return product.replace(invars=product.invars[::-1], params=params)
    if order != (0, *rights, *lefts[1:]) or 0 in summed[0]:
        return None
    if not 0 < product.invars[0].aval.shape[0] <= _FEW_ROWS:
        return None
    of_row = tuple(axis - 1 for axis in summed[0])
    params = product.params | {"dimension_numbers": ((summed[1], of_row), batch)}

    def of_each(stack: Any, shared: Any) -> Any:
        return jnp.stack([dot_general_p.bind(shared, row, **params) for row in stack])

    return _operation(of_each, product)


def _operation(function: Callable[..., Any], eqn: Any) -> Any:
    """A function in place of an operation of a program."""
    program = jax.make_jaxpr(jax.jit(function))(*(var.aval for var in eqn.invars))
    return program.eqns[0].replace(invars=eqn.invars, outvars=eqn.outvars)


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

    return _operation(convolve, eqn)
