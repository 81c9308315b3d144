"""Whole programs: each operation by its rule, loops, and programs within programs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxmtl.backward._programs import is_variable, opened
from jaxmtl.solvers._kernel import indexing, linear_algebra, reductions, shapes
from jaxmtl.solvers._kernel.entries import NotInKernel, Rule, filled, narrow, shape_of

_ELEMENTWISE = {
    *("abs", "add", "add_any", "and", "ceil", "cos", "div", "eq", "exp", "exp2", "expm1", "floor"),
    *("ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min"),
    *("mul", "ne", "neg", "not", "or", "pow", "rem", "rsqrt", "select_n", "sign", "sin", "sqrt"),
    *("square", "sub", "tanh", "xor"),
}
_SAME = frozenset({"copy", "copy_p", "stop_gradient", "optimization_barrier", "pvary", "reshard"})
_HOLDERS = frozenset({"call", "closed_call", "custom_jvp_call", "custom_vjp_call", "jit", "pjit"})


def run_in_kernel(program: Any, arguments: Sequence[Any]) -> list[Any]:
    """Run a program on arrays of padded shapes; its results have padded shapes too."""
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        if is_variable(atom):
            return values[atom]
        return narrow(atom.aval.dtype).type(atom.val)  # an array would be in memory

    inner = opened(program)
    values.update(zip(inner.invars, arguments, strict=True))
    values.update(zip(inner.constvars, getattr(program, "consts", ()), strict=True))
    for eqn in inner.eqns:
        results = _rule(eqn)(eqn, *map(read, eqn.invars))
        results = results if isinstance(results, tuple | list) else [results]
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in inner.outvars]


def _rule(eqn: Any) -> Rule:
    name = eqn.primitive.name
    if name in _ELEMENTWISE:
        return _elementwise
    if name in _SAME:
        return lambda eqn, *values: values
    if name in _HOLDERS:
        return linear_algebra.RULES_BY_NAME.get(eqn.params.get("name", ""), _hold)
    if name not in _RULES:
        raise NotInKernel(f"no rule for {name}")
    return _RULES[name]


def _elementwise(eqn: Any, *values: Any) -> Any:
    shape = filled(shape_of(eqn.outvars[0]))
    is_choice = eqn.primitive.name == "select_n"
    full = [
        value
        if jnp.shape(value) == shape or (is_choice and i == 0)
        else lax.broadcast_in_dim(value, shape, range(jnp.ndim(value)))
        for i, value in enumerate(values)
    ]
    result = eqn.primitive.bind(*full, **eqn.params)
    if eqn.primitive.name not in ("max", "min") or result.dtype == jnp.int32:
        return result
    # Of a NaN and a number Triton returns the number, which would hide an error.
    return jnp.where((full[0] == full[0]) & (full[1] == full[1]), result, full[0] + full[1])


def _hold(eqn: Any, *values: Any) -> Any:
    part = next(v for key, v in eqn.params.items() if key in ("jaxpr", "call_jaxpr", "fun_jaxpr"))
    return run_in_kernel(part, values)


def _carried(values: Sequence[Any]) -> tuple[Callable[..., Any], Callable[..., Any], list[Any]]:
    """Carry bools as numbers: Triton's loops cannot hold bools that a select has made."""
    are_bools = [value.dtype == bool for value in values]

    def hold(values: Sequence[Any]) -> list[Any]:
        return [v.astype(jnp.int32) if b else v for v, b in zip(values, are_bools, strict=True)]

    def free(values: Sequence[Any]) -> list[Any]:
        return [v != 0 if b else v for v, b in zip(values, are_bools, strict=True)]

    return hold, free, hold(values)


def _while(eqn: Any, *values: Any) -> Any:
    params = eqn.params
    first = params["cond_nconsts"]
    second = first + params["body_nconsts"]
    of_condition, of_body = values[:first], values[first:second]
    hold, free, carry = _carried(values[second:])

    def condition(carry: Any) -> Any:
        return run_in_kernel(params["cond_jaxpr"], [*of_condition, *free(carry)])[0]

    def body(carry: Any) -> Any:
        return hold(run_in_kernel(params["body_jaxpr"], [*of_body, *free(carry)]))

    return free(lax.while_loop(condition, body, carry))


def _scan(eqn: Any, *values: Any) -> Any:
    """A loop of known length, without inputs or outputs per turn."""
    part = opened(eqn.params["jaxpr"])
    outer, inner = [*eqn.invars, *eqn.outvars], [*part.invars, *part.outvars]
    by_turn = any(shape_of(a) != shape_of(b) for a, b in zip(outer, inner, strict=True))
    if by_turn or eqn.params["reverse"]:
        raise NotInKernel("a scan over arrays")
    number = len(values) - len(eqn.outvars)
    constants, (hold, free, carry) = values[:number], _carried(values[number:])

    def body(_: Any, carry: Any) -> Any:
        return hold(run_in_kernel(eqn.params["jaxpr"], [*constants, *free(carry)]))

    return free(lax.fori_loop(0, eqn.params["length"], body, carry))


def _nested(eqn: Any, *values: Any) -> Any:
    if eqn.params["axes"]:
        raise NotInKernel("a kernel for each of several problems")
    return run_in_kernel(eqn.params["program"], values)


_RULES: dict[str, Rule] = {
    **reductions.RULES,
    **linear_algebra.RULES,
    **shapes.RULES,
    **indexing.RULES,
    "while": _while,
    "scan": _scan,
    "one_launch": _nested,
}
