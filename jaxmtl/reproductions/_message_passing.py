"""The network of the QM9 benchmark: messages along all pairs of atoms, and a sum over a molecule.

It is the one of PyTorch Geometric's QM9 example with a head for each task, which Nash-MTL and FAMO
train: an embedding of each atom, three rounds of messages (NNConv, mean over the other atoms) that
a gated recurrent unit takes in, Set2Set over the atoms, one dense layer, linear heads. Molecules
are padded to a common number of atoms, and what stands in the empty places has no effect.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._typing import Array, PyTree

ROUNDS = 3
ELEMENTS = (1, 6, 7, 8, 9)
FEATURES = len(ELEMENTS) + 2


def init_network(key: Array, width: int, hidden: int, heads: int) -> PyTree:
    """Draw the parameters as PyTorch does: uniform, up to 1 / sqrt(inputs of the layer).

    Args:
      key: of the random numbers.
      width: numbers that an atom is described by within the network, d.
      hidden: units k of the edge network, distance -> k -> (d, d).
      heads: number of outputs.

    Returns:
      ``{"shared": {layer: {name: array}}, "heads": {"bias", "kernel"}}``.
    """
    d, k = width, hidden
    # Layer -> inputs, and the shapes of what is drawn.
    shapes: dict[str, tuple[int, dict[str, tuple[int, ...]]]] = {
        "embed": (FEATURES, {"kernel": (FEATURES, d), "bias": (d,)}),
        "edge": (1, {"kernel": (k,), "bias": (k,)}),
        "message": (k, {"kernel": (k, d, d), "bias": (d, d)}),
        "root": (d, {"kernel": (d, d)}),
        "gru": (d, _gates(d, d, 3)),
        "lstm": (d, _gates(2 * d, d, 4)),
        "joint": (2 * d, {"kernel": (2 * d, d), "bias": (d,)}),
        "heads": (d, {"kernel": (d, heads), "bias": (heads,)}),
    }
    # One draw, cut into pieces: a draw for each takes many times as long to compile.
    sizes = [math.prod(shape) for _, layer in shapes.values() for shape in layer.values()]
    numbers = jax.random.uniform(key, (sum(sizes),), jnp.float32, -1, 1)
    pieces = iter(jnp.split(numbers, np.cumsum(sizes)[:-1]))
    drawn = {
        layer: {name: inputs**-0.5 * next(pieces).reshape(shape) for name, shape in named.items()}
        for layer, (inputs, named) in shapes.items()
    }
    drawn["root"]["bias"] = jnp.zeros(d, jnp.float32)
    return {"heads": drawn.pop("heads"), "shared": drawn}


def _gates(inputs: int, width: int, gates: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a recurrent cell's kernels, the gates side by side."""
    columns = gates * width
    return {
        "kernel": (inputs, columns),
        "bias": (columns,),
        "state_kernel": (width, columns),
        "state_bias": (columns,),
    }


def apply_network(params: PyTree, charges: Array, positions: Array) -> Array:
    """Compute all outputs, (B, heads).

    Args:
      params: of ``init_network``.
      charges: (B, A) whole numbers, zero in empty places.
      positions: (B, A, 3) in Å.
    """
    shared = params["shared"]
    present = charges > 0
    apart = _distances(positions)
    pairs = present[:, :, None] & present[:, None, :] & ~jnp.eye(charges.shape[1], dtype=bool)[None]
    x = _features(charges, apart)
    neighbours = jnp.sum(pairs, axis=2, keepdims=True).astype(apart.dtype)
    shares = pairs / jnp.maximum(neighbours, 1)  # of a mean; symmetric, as all have as many
    edges = _edges(shared["edge"], apart, shares)
    state = jax.nn.relu(_dense(shared["embed"], x))
    for _ in range(ROUNDS):
        message = jax.nn.relu(convolve(shared, edges, shares, state))
        state = gated(shared["gru"], message, state)
    features = jax.nn.relu(_dense(shared["joint"], set_to_set(shared["lstm"], state, present)))
    return _dense(params["heads"], features)


def _distances(positions: Array) -> Array:
    """Distances between the atoms of a molecule, (B, A, A), to the last digit."""
    apart = positions[:, :, None, :] - positions[:, None, :, :]
    return jnp.sqrt(jnp.sum(apart**2, axis=-1))


def _features(charges: Array, apart: Array) -> Array:
    """Element as one of five, atomic number, and number of hydrogens, (B, A, 7).

    A hydrogen counts for the nearest atom that is none.
    """
    heavy = charges > 1
    nearest = jnp.argmin(jnp.where(heavy[:, None, :], apart, jnp.inf), axis=2)  # (B, A)
    atoms = jnp.arange(charges.shape[1])
    bonds = (nearest[:, :, None] == atoms[None, None, :]) & (charges == 1)[:, :, None]
    hydrogens = jnp.where(heavy, jnp.sum(bonds, axis=1), 0)
    one_hot = charges[:, :, None] == jnp.array(ELEMENTS, charges.dtype)[None, None, :]
    columns = [one_hot, charges[:, :, None], hydrogens[:, :, None]]
    return jnp.concatenate([column.astype(apart.dtype) for column in columns], axis=-1)


def _edges(edge: PyTree, apart: Array, shares: Array) -> Array:
    """The edge network's hidden units times the neighbour's share in the mean, (B, A, A, k)."""
    bias = edge["bias"][None, None, None, :]
    units = jax.nn.relu(apart[..., None] * edge["kernel"][None, None, None, :] + bias)
    return units * shares[..., None]


def convolve(shared: PyTree, edges: Array, shares: Array, state: Array) -> Array:
    """NNConv: h_i W + b + mean over j of h_j Theta(distance_ij), (B, A, d).

    Theta = sum_k z_k(distance) M_k + M_0, with z the hidden units, is never formed: for 120
    molecules of 29 atoms, d = 64 and k = 128 the matrices of all pairs are 1.65 GB and cost
    106 GFLOP. Summing over the neighbours first,
      S_ikc = sum_j z_ijk h_jc,   message_id = sum_kc S_ikc M_kcd,
    takes 1.65 + 3.65 GFLOP and 0.11 GB, three times. (Multiplying by M first costs as much; but S
    is the same for the backward passes of all tasks, whose products with it then are one.)
    """
    batch, atoms, width = state.shape
    kernel = shared["message"]["kernel"]
    # The pairs are symmetric: with j first, neither product has anything to transpose.
    of_source = edges.reshape(batch, atoms, -1)
    summed = jnp.einsum("bjm,bjc->bmc", of_source, state)
    summed = summed.reshape(batch, atoms, -1)
    messages = summed @ kernel.reshape(-1, width)
    constant = jnp.einsum("bij,bjc->bic", shares, state) @ shared["message"]["bias"]
    return messages + constant + _dense(shared["root"], state)


def gated(cell: PyTree, inputs: Array, state: Array) -> Array:
    """Take one step of a gated recurrent unit; gates in the order reset, update, candidate."""
    given, kept = _both(cell, inputs, state)
    reset_in, update_in, new_in = jnp.split(given, 3, axis=-1)
    reset_kept, update_kept, new_kept = jnp.split(kept, 3, axis=-1)
    update = jax.nn.sigmoid(update_in + update_kept)
    candidate = jnp.tanh(new_in + jax.nn.sigmoid(reset_in + reset_kept) * new_kept)
    return (1 - update) * candidate + update * state


def set_to_set(cell: PyTree, atoms: Array, present: Array) -> Array:
    """Set2Set: three times ask the atoms, by attention, what the last answer leaves open, (B, 2d).

    Args:
      cell: of a long short-term memory; gates in the order input, forget, candidate, output.
      atoms: (B, A, d).
      present: (B, A), which places are not empty.
    """
    batch, _, width = atoms.shape
    query = memory = jnp.zeros((batch, width), atoms.dtype)
    found = jnp.zeros((batch, 2 * width), atoms.dtype)
    for _ in range(ROUNDS):
        given, kept = _both(cell, found, query)
        entry, forget, candidate, output = jnp.split(given + kept, 4, axis=-1)
        memory = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(entry) * jnp.tanh(candidate)
        query = jax.nn.sigmoid(output) * jnp.tanh(memory)
        scores = jnp.einsum("bac,bc->ba", atoms, query)
        attention = jax.nn.softmax(jnp.where(present, scores, -jnp.inf), axis=-1)
        found = jnp.concatenate([query, jnp.einsum("ba,bac->bc", attention, atoms)], axis=-1)
    return found


def _both(cell: PyTree, inputs: Array, state: Array) -> tuple[Array, Array]:
    state_layer = {"kernel": cell["state_kernel"], "bias": cell["state_bias"]}
    return _dense(cell, inputs), _dense(state_layer, state)


def _dense(layer: PyTree, x: Array) -> Array:
    bias = layer["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
    return x @ layer["kernel"] + bias
