"""The gradients of one parameter, one per example: sums of outer products, or written out.

The gradient of a dense layer's kernel is the outer product of the layer's input and its output's
cotangent, summed over the positions of a sequence or an image. The inner product of two examples'
gradients needs only the inner products of inputs and of cotangents, (x_i . x_j) (d_i . d_j).
"""

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import wide_dtype
from jaxmtl._typing import Array
from jaxmtl.balancing._gram import gramian

# All gradients written out may take this many times the memory of the cotangents.
_MOST_ROWS = 4


class Outer(NamedTuple):
    """Gradients g_n = sum_p left_np x right_np, for each of several groups.

    Attributes:
      left: (N, groups, positions, size).
      right: (N, groups, positions, size).
      shapes: the shapes whose products are the groups and the two sizes.
      order: how the axes of ``shapes``, one after the other, are transposed.
      then: functions to apply to each example's gradient; they keep all inner products.
      write: makes the gradients, before ``then``, faster than from the factors.
    """

    left: Array
    right: Array
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    order: tuple[int, ...]
    then: tuple[Callable[[Array], Array], ...] = ()
    write: Callable[[], Array] | None = None


class Whole(NamedTuple):
    """Gradients written out, (N, *shape)."""

    rows: Array


class Stack(NamedTuple):
    """Gradients of stacked parameters, the layers of a loop: terms for each layer."""

    parts: tuple["Terms", ...]


# The gradients of one parameter are a sum of such terms.
Terms = tuple[Outer | Whole | Stack, ...]


def written_out(terms: Terms, dtype: Any) -> Array:
    """The gradients as (N, *shape)."""
    return functools.reduce(operator.add, (_rows(term) for term in _merged(terms))).astype(dtype)


def inner_products(terms: Terms, dtype: Any) -> Array:
    """The (N, N) inner products of the gradients, in the order that takes fewer operations."""
    terms = _merged(terms)
    if len(terms) == 1:
        [term] = terms
        if isinstance(term, Stack):
            return functools.reduce(operator.add, (inner_products(p, dtype) for p in term.parts))
        if isinstance(term, Outer) and _is_shorter(term):
            return _of_factors(term, wide_dtype(dtype))
    return gramian([written_out(terms, dtype)])


def is_cheaper_written_out(found: Sequence[Any]) -> bool:
    """Whether a step with all gradients written out takes fewer operations than one without.

    A step without them has one more backward pass, for the update. If an example has many
    positions, its gradients are small compared with the arrays between the layers, and writing them
    out costs no more than adding them up.
    """
    without, written, rows, cotangents = 0, 0, 0, 0
    for term in (term for terms in found if type(terms) is tuple for term in _outers(terms)):
        examples, groups, positions, left = term.left.shape
        size, right = left * term.right.shape[3], term.right.shape[3]
        pass_ = 2 * examples * groups * positions * size
        products = 2 * examples**2 * groups * size
        factors = 2 * examples**2 * groups * positions**2 * (left + right)
        without += 2 * pass_ + min(factors, pass_ + products)
        written += pass_ + products + 2 * examples * groups * size
        rows += examples * groups * size
        cotangents += examples * groups * positions * right
    return written < without and rows <= _MOST_ROWS * cotangents


def _outers(terms: Terms) -> Iterator[Outer]:
    for term in terms:
        if isinstance(term, Outer):
            yield term
        elif isinstance(term, Stack):
            for part in term.parts:
                yield from _outers(part)


def transposed(term: Outer, order: tuple[int, ...]) -> Outer:
    """The same gradients with their axes in another order."""
    if term.then or term.write is not None:
        return term._replace(then=(*term.then, lambda row: jnp.transpose(row, order)))
    term = term._replace(order=tuple(term.order[axis] for axis in order))
    groups, lefts, rights = map(len, term.shapes)
    if groups == 0 and term.order == (*range(lefts, lefts + rights), *range(lefts)):
        # A product is symmetric. The part that comes first goes on the left, so that two uses of
        # one parameter from both sides (tied embeddings, for example) have the same form.
        _, left, right = term.shapes
        ordered = tuple(range(lefts + rights))
        term = Outer(term.right, term.left, ((), right, left), ordered)
    return term


def _merged(terms: Terms) -> Terms:
    """Join outer products of the same form into one, with the positions of all."""
    alike: dict[Any, list[Outer]] = {}
    others: list[Outer | Whole | Stack] = []
    for term in terms:
        if isinstance(term, Outer) and not term.then and term.write is None:
            alike.setdefault((term.shapes, term.order), []).append(term)
        else:
            others.append(term)
    joined = [
        same[0]._replace(
            left=jnp.concatenate([term.left for term in same], axis=2),
            right=jnp.concatenate([term.right for term in same], axis=2),
        )
        for same in alike.values()
    ]
    return (*joined, *others)


def _rows(term: Outer | Whole | Stack) -> Array:
    if isinstance(term, Whole):
        return term.rows
    if isinstance(term, Stack):
        return jnp.stack([sum(map(_rows, _merged(part))) for part in term.parts], axis=1)
    if term.write is not None:
        rows = term.write()
    else:
        product = _einsum("ngpa,ngpb->ngab", term.left, term.right)
        rows = product.reshape(len(product), *(size for shape in term.shapes for size in shape))
        rows = jnp.transpose(rows, (0, *(1 + axis for axis in term.order)))
    for function in term.then:
        rows = jax.vmap(function)(rows)
    return rows


def _is_shorter(term: Outer) -> bool:
    """Whether inner products of the factors take fewer operations than those of the gradients."""
    examples, _, positions, left = term.left.shape
    right = term.right.shape[3]
    of_factors = examples * positions**2 * (left + right)
    return of_factors <= positions * left * right + examples * left * right


def _of_factors(term: Outer, dtype: Any) -> Array:
    if term.left.shape[2] == 1:  # one position: two matrices of inner products, multiplied
        lefts, rights = (x[:, :, 0] for x in (term.left, term.right))
        products = [_einsum("nga,mga->gnm", x, x, dtype) for x in (lefts, rights)]
        return jnp.sum(math.prod(products), axis=0)
    products = [_einsum("ngpa,mgqa->gnmpq", x, x, dtype) for x in (term.left, term.right)]
    return jnp.sum(math.prod(products), axis=(0, 3, 4))


def _einsum(axes: str, left: Array, right: Array, dtype: Any = None) -> Array:
    return jnp.einsum(
        axes, left, right, precision=lax.Precision.HIGHEST, preferred_element_type=dtype
    )
