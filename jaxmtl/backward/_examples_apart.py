"""Gradients of one loss per example, or their inner products, from one backward pass.

One backward pass seeded with ones carries the cotangents of all examples side by side until an
operation adds up the examples to the gradient of a parameter. Only there are the examples kept
separate.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._example_axis import Cotangents, Mixed, axis_after
from jaxmtl.backward._loop_turns import made_in_turns, read_in_turn
from jaxmtl.backward._losses import like_losses
from jaxmtl.backward._outer_products import Outer, Stack, Terms, Whole, transposed, written_out
from jaxmtl.backward._programs import (
    is_program,
    is_variable,
    opened,
    read_program,
)
from jaxmtl.backward._taken_apart import taken_apart
from jaxmtl.backward._task_rows import run_operations

MOST_TURNS = 64  # of a loop that is unrolled, with those of the loops in it


class Limits(NamedTuple):
    """How far a backward pass may be written out.

    Attributes:
      numbers: how many per example on the way to a parameter.
      turns: how many of a loop; of a loop within it, so many by each turn.
    """

    numbers: int
    turns: int


def per_example_terms(
    pull_back: Callable[[PyTree], PyTree], losses: PyTree, *, most: int
) -> list[Any]:
    """Each parameter's gradients, example by example.

    Args:
      pull_back: from cotangents, like ``losses``, to a gradient; linear.
      losses: a tree with one leaf, of shape (N,).
      most: how many numbers per example may be written out on the way to a parameter, for example
        for a kernel that is a product of two.

    Returns:
      For each leaf of the gradient: the ``Terms`` that add up to it, or a ``Cotangents`` if each
      example has entries of its own, or an array of zeros if no example reaches it.

    Raises:
      Mixed: if the examples do not stay separate.
    """
    program, constants, _ = read_program(pull_back, losses)
    [leaf] = jax.tree.leaves(losses)
    [seed] = jax.tree.leaves(like_losses(jnp.ones(leaf.shape), losses))
    return _run(program, constants, [Cotangents(seed, 0)], Limits(most, MOST_TURNS))


def rows_of(found: Any, aval: Any, examples: int) -> Array:
    """What a variable holds, written out for each example: (N, *shape)."""
    if isinstance(found, Cotangents):
        return _apart(found, examples)
    if isinstance(found, tuple):
        return written_out(found, aval.dtype)
    return jnp.broadcast_to(found, (examples, *jnp.shape(found)))


def _apart(at: Cotangents, examples: int) -> Array:
    """Each example's cotangents in a copy of its own, which is zero elsewhere."""
    own = jnp.arange(examples)[:, None] == jnp.repeat(jnp.arange(examples), at.inner)[None]
    shape = [1] * at.array.ndim
    shape[at.axis] = -1
    own = own.reshape(examples, *shape)
    return jnp.where(own, at.array[None], jnp.zeros((), at.array.dtype))


def _run(program: Any, constants: Any, arguments: list[Any], limits: Limits) -> list[Any]:
    """Run the program of a backward pass on cotangents, terms and arrays."""
    values = dict(zip(program.constvars, constants, strict=True))
    values |= zip(program.invars, arguments, strict=True)
    for eqn in program.eqns:
        inputs = [values[x] if is_variable(x) else jnp.asarray(x.val) for x in eqn.invars]
        values |= zip(eqn.outvars, _results(program, eqn, inputs, limits), strict=True)
    return [values[x] if is_variable(x) else jnp.asarray(x.val) for x in program.outvars]


def _results(program: Any, eqn: Any, inputs: list[Any], limits: Limits) -> list[Any]:
    kinds = {type(x) for x in inputs if isinstance(x, tuple)}
    if not kinds:
        return _bind(program, eqn, inputs)
    if (inner := _inner_program(eqn)) is not None:
        return _run(opened(inner), getattr(inner, "consts", ()), inputs, limits)
    if eqn.primitive.name == "scan":
        return _scanned(eqn, inputs, limits)
    if kinds == {Cotangents}:
        return _of_cotangents(program, eqn, inputs)
    if Cotangents in kinds:
        raise Mixed(f"{eqn.primitive.name} adds examples apart to examples together")
    return _of_terms(program, eqn, inputs, limits.numbers)


def _bind(program: Any, eqn: Any, inputs: list[Any]) -> list[Array]:
    """Run one operation."""
    pairs = {v: x for v, x in zip(eqn.invars, inputs, strict=True) if is_variable(v)}
    return run_operations(program, [eqn], eqn.outvars, pairs)


def _inner_program(eqn: Any) -> Any:
    """The program of a call, which is run operation by operation."""
    if eqn.primitive.name not in ("jit", "closed_call", "call", "remat2", "checkpoint"):
        return None
    return next((x for x in eqn.params.values() if is_program(opened(x))), None)


def _scanned(eqn: Any, inputs: list[Any], limits: Limits) -> list[Any]:
    """Write a loop out, turn by turn."""
    params = eqn.params
    left = limits._replace(turns=limits.turns // max(params["length"], 1))
    if not left.turns:
        raise Mixed(f"a loop, with the loops in it, has more than {MOST_TURNS} turns")
    body = params["jaxpr"]
    # In every version of JAX the shapes show which variables are sliced, and which carried.
    pairs = zip(eqn.invars, opened(body).invars, strict=True)
    sliced_ones = sum(outer.aval.ndim != inner.aval.ndim for outer, inner in pairs)
    pairs = zip(eqn.outvars, opened(body).outvars, strict=True)
    carried = sum(outer.aval.ndim == inner.aval.ndim for outer, inner in pairs)
    fixed = len(inputs) - sliced_ones - carried
    carry, made = inputs[fixed : fixed + carried], []
    turns = range(params["length"])
    for turn in reversed(turns) if params["reverse"] else turns:
        sliced = [read_in_turn(x, turn) for x in inputs[fixed + carried :]]
        found = _run(
            opened(body), getattr(body, "consts", ()), [*inputs[:fixed], *carry, *sliced], left
        )
        carry = found[:carried]
        made.append(found[carried:])
    if params["reverse"]:
        made.reverse()
    if not made:
        return [*carry, *(jnp.zeros(v.aval.shape, v.aval.dtype) for v in eqn.outvars[carried:])]
    return [*carry, *(made_in_turns(list(outs)) for outs in zip(*made, strict=True))]


def _of_cotangents(program: Any, eqn: Any, inputs: list[Any]) -> list[Any]:
    """An operation on cotangents side by side."""
    if eqn.primitive.name == "optimization_barrier":
        return inputs
    carrying = [(n, x) for n, x in enumerate(inputs) if isinstance(x, Cotangents)]
    found = {axis_after(eqn, n, x) for n, x in carrying}
    arrays = [x.array if isinstance(x, Cotangents) else x for x in inputs]
    if len(found) == 1 and (place := found.pop()) is not None:
        return [Cotangents(result, *place) for result in _bind(program, eqn, arrays)]
    if len(carrying) == 1:
        number, at = carrying[0]
        apart = taken_apart(eqn, number, at, arrays, functools.partial(_bind, program, eqn))
        if apart is not None:
            return [(apart,)]
    raise Mixed(f"{eqn.primitive.name} passes from one example to another")


def _of_terms(program: Any, eqn: Any, inputs: list[Any], most: int) -> list[Any]:
    """A linear operation on gradients that are kept separate by example."""
    name, first = eqn.primitive.name, inputs[0]
    terms = [x for x in inputs if isinstance(x, tuple)]
    if name in ("add_any", "add"):  # what else is added is zero
        return [tuple(term for x in terms for term in x)]
    if name in ("convert_element_type", "copy", "sharding_constraint"):
        return [first]
    if name in ("transpose", "reshape", "squeeze", "neg") and not any(
        isinstance(term, Stack) for term in first
    ):

        def function(row: Array) -> Array:
            return _bind(program, eqn, [row])[0]

        return [tuple(_kept(eqn, term, function) for term in first)]
    if any(var.aval.size > most for var in (*eqn.invars, *eqn.outvars)):
        raise Mixed(f"{name} would have to be done for each example")
    examples = _examples(terms[0])
    rows = [
        rows_of(x, var.aval, examples) if isinstance(x, tuple) else x
        for x, var in zip(inputs, eqn.invars, strict=True)
    ]
    axes = [0 if isinstance(x, tuple) else None for x in inputs]
    results = jax.vmap(lambda *xs: _bind(program, eqn, list(xs)), in_axes=axes)(*rows)
    return [(Whole(result),) for result in results]


def _kept(eqn: Any, term: Any, function: Callable[[Array], Array]) -> Outer | Whole:
    """A term after an operation that keeps all inner products."""
    if isinstance(term, Whole):
        return Whole(jax.vmap(function)(term.rows))
    if eqn.primitive.name == "transpose":
        return transposed(term, eqn.params["permutation"])
    return term._replace(then=(*term.then, function))


def _examples(terms: Terms) -> int:
    term = terms[0]
    if isinstance(term, Stack):
        return _examples(term.parts[0])
    return len(term.left if isinstance(term, Outer) else term.rows)
