"""What a loop reads in one turn and has made after all of them, with the examples kept separate."""

from typing import Any

import jax.numpy as jnp

from jaxmtl.backward._example_axis import Cotangents, Mixed
from jaxmtl.backward._outer_products import Stack


def read_in_turn(x: Any, turn: int) -> Any:
    """What a loop reads in one turn."""
    if isinstance(x, Cotangents):
        if x.axis == 0:
            raise Mixed("a loop runs over the examples")
        return x._replace(array=x.array[turn], axis=x.axis - 1)
    if isinstance(x, tuple):
        raise Mixed("a loop runs over gradients of parameters")
    return x[turn]


def made_in_turns(made: list[Any]) -> Any:
    """What a loop made in all its turns."""
    if not any(isinstance(x, tuple) for x in made):
        return jnp.stack(made)
    if cotangents := [x for x in made if isinstance(x, Cotangents)]:
        first = cotangents[0]
        if len({(x.axis, x.inner) for x in cotangents}) > 1 or any(type(x) is tuple for x in made):
            raise Mixed("the turns of a loop differ in where the examples are")
        # What other turns made is zero.
        arrays = [x.array if isinstance(x, Cotangents) else x for x in made]
        return first._replace(array=jnp.stack(arrays), axis=first.axis + 1)
    if not all(isinstance(x, tuple) for x in made):
        raise Mixed("some turns of a loop reach a parameter, and others do not")
    return (Stack(tuple(made)),)
