"""Gradients and Gramian of one loss per example, from one backward pass if examples do not mix."""

import functools
import logging
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._cpu_layouts import laid_out
from jaxmtl.backward._example_axis import Cotangents, Mixed
from jaxmtl.backward._examples_apart import per_example_terms, rows_of
from jaxmtl.backward._linearise import Linearised, pull_back_each
from jaxmtl.backward._outer_products import inner_products, is_cheaper_written_out
from jaxmtl.backward._programs import is_staged, read_program, rewritten_or_plain, run_program

LOGGER = logging.getLogger("jaxmtl")


class WrittenOut(Exception):
    """Raised if writing out all gradients takes fewer operations than working without them."""


def gramian_by_examples(
    at: Linearised, are_measured: Sequence[bool], dtype: Any, *, lean: bool
) -> tuple[Array, Array] | None:
    """The Gramian of the measured leaves, and which gradients are finite: (N, N) and (N,).

    None if the losses are not one array with one loss per example, or the examples mix (the logger
    "jaxmtl" says why), or if writing out all gradients takes fewer operations. With ``lean`` the
    gradients are not written out, even for one that passes through something other than parameters.
    """

    def measure() -> tuple[Array, Array]:
        found = per_example_terms(at.pull_back, at.losses, most=0 if lean else _largest(at))
        if not lean and is_cheaper_written_out(found):
            raise WrittenOut
        zeros = jnp.zeros((at.num_tasks, at.num_tasks), dtype)
        products = [_inner_products(terms, zeros) for terms in found]
        finite = [jnp.isfinite(jnp.diagonal(product)) for product in products]
        measured = [p for p, is_measured in zip(products, are_measured, strict=True) if is_measured]
        total = functools.reduce(operator.add, measured, zeros)
        return (total + total.T) / 2, jnp.all(jnp.stack(finite), axis=0)

    return _attempt(at, measure)


def stack_gradients(at: Linearised, chunk_size: int | None) -> PyTree:
    """Stack the gradients of the single losses, the cheapest way there is."""
    rows = _gradients_by_examples(at) if chunk_size is None else None
    return pull_back_each(at, chunk_size) if rows is None else rows


def _gradients_by_examples(at: Linearised) -> PyTree | None:
    """The stacked gradients; None if the examples mix."""
    one = jax.eval_shape(at.pull_back, at.losses)

    def write_out() -> list[Array]:
        found = per_example_terms(at.pull_back, at.losses, most=_largest(at))
        leaves = jax.tree.leaves(one)
        return [rows_of(t, leaf, at.num_tasks) for t, leaf in zip(found, leaves, strict=True)]

    rows = _attempt(at, write_out)
    return None if rows is None else jax.tree.unflatten(jax.tree.structure(one), rows)


def _largest(at: Linearised) -> int:
    """The size of the largest parameter."""
    leaves = jax.tree.leaves(jax.eval_shape(at.pull_back, at.losses))
    return max(leaf.size for leaf in leaves)


def _attempt(at: Linearised, compute: Callable[[], Any]) -> Any:
    """The result of ``compute`` with separate examples; None if they mix or cannot be separated."""
    leaves = jax.tree.leaves(at.losses)
    # Outside of jit the program would be analysed again at each call.
    if at.num_tasks < 2 or len(leaves) != 1 or leaves[0].ndim != 1 or not is_staged():
        return None

    def apart() -> Any:
        try:
            if not at.is_linear():
                raise Mixed("the backward rule of a jax.custom_vjp need not be linear")
            program, constants, shapes = read_program(compute)
        except WrittenOut:
            return None
        except Mixed as reason:
            LOGGER.info(
                "%s losses in one array are balanced by a gradient each, since they are not known"
                " to be losses of separate examples: %s.",
                at.num_tasks,
                reason,
            )
            return None
        found = laid_out(lambda: run_program(program, constants, ()))()
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return rewritten_or_plain(apart, lambda: None)


def _inner_products(found: Any, zeros: Array) -> Array:
    if isinstance(found, Cotangents):  # entries of their own: nothing in common with the others
        squares = jnp.square(jnp.moveaxis(found.array.astype(zeros.dtype), found.axis, 0))
        return jnp.diag(jnp.sum(squares.reshape(len(zeros), -1), axis=1))
    return inner_products(found, zeros.dtype) if isinstance(found, tuple) else zeros
