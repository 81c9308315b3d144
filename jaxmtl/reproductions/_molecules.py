"""QM9 as Nash-MTL and FAMO have it: eleven properties of molecules by one message-passing network.

What is as published: the network, all pairs of atoms, batches of 120, Adam at 1e-3, targets
standardised by the training molecules, energies as those of atomisation, mean squared errors. The
weights of a method are of the whole loss, except that PCGrad and CAGrad leave heads their own
gradient; FAMO sees the losses of the same batch after its step.

What is not: aromaticity, hybridisation and the type of bonds are no inputs, since the files do not
tell them (hydrogens belong to the nearest other atom); the learning rate falls as a cosine to zero
over the steps, whatever their number, and the network is measured after the last, where the papers
halve it on plateaus and choose the epoch by the validation error; batches are drawn with
replacement. Products are in TensorFloat-32 where a GPU has it, as in PyTorch when the papers ran.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmtl._typing import Array, PyTree
from jaxmtl.backward._routes import value_and_balanced_grad
from jaxmtl.balancing._base import Balancer
from jaxmtl.combinators._shared import on_shared
from jaxmtl.losses.equal import equal
from jaxmtl.losses.famo import famo_after_step
from jaxmtl.methods import make as make_method
from jaxmtl.problems.qm9 import MOLECULES, TASKS, read_molecules
from jaxmtl.reproductions._delta_m import SINGLE
from jaxmtl.reproductions._equations import POINTS_OF_CURVE
from jaxmtl.reproductions._message_passing import ELEMENTS, apply_network, init_network
from jaxmtl.reproductions._runs import Record, Train, as_json
from jaxmtl.reproductions._seeds import for_each

# The papers' rows, "real_time_loss" being the gradient of their SI, the sum of the losses'
# logarithms; and what the papers lack.
QM9 = [SINGLE, "equal", "real_time_loss", "rlw", "dwa", "uncertainty", "mgda", "pcgrad", "cagrad"]
QM9 += ["imtl_g", "nash_mtl", "famo"]
QM9 += ["normalize", "db_mtl", "upgrad", "aligned_mtl"]

HARTREE = 27211.386246  # meV
_ENERGIES = ("g", "h", "homo", "lumo", "u", "u0", "zpve")
UNITS = np.array([HARTREE if task in _ENERGIES else 1.0 for task in TASKS])
# Of the single atoms H, C, N, O, F, in hartree, as published with the data.
ATOMS = {
    "u0": (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730),
    "u": (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314),
    "h": (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370),
    "g": (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544),
}
_AT_ONCE = 250  # molecules that are measured


class Setup(NamedTuple):
    """A network and its data: molecules to train on, and as many to validate as to test on."""

    molecules: int
    held_out: int
    width: int
    hidden: int
    batch: int


SETUPS = {
    "qm9": Setup(110_000, 10_000, width=64, hidden=128, batch=120),
    "qm9_small": Setup(5000, 1000, width=16, hidden=8, batch=30),
}


class Data(NamedTuple):
    """Splits of charges, positions and standardised targets; the deviations in the papers' units"""

    train: PyTree
    validation: PyTree
    test: PyTree
    deviations: np.ndarray


def atomisation(charges: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Subtract from the energies those of the single atoms."""
    counts = np.stack([np.sum(charges == z, axis=1) for z in ELEMENTS], axis=1)
    targets = targets.copy()
    for task, energies in ATOMS.items():
        targets[:, TASKS.index(task)] -= counts @ np.array(energies)
    return targets


@functools.cache  # all rows train on the same
def load_data(held_out: int, size: int) -> Data:
    """Read the molecules and standardise the targets; test and validation are the same for all."""
    if size + 2 * held_out > MOLECULES:
        raise ValueError(
            f"size must leave {2 * held_out} of the {MOLECULES} molecules for validation and test,"
            f" but it is {size}."
        )
    chosen = np.random.default_rng(0).permutation(MOLECULES)[: size + 2 * held_out]
    charges, positions, targets = read_molecules(chosen)
    targets = atomisation(charges, targets)
    mean, deviation = (f(targets[2 * held_out :], axis=0) for f in (np.mean, np.std))
    arrays = {
        "charges": charges,
        "positions": positions.astype(np.float32),
        "targets": ((targets - mean) / deviation).astype(np.float32),
    }
    cuts = (2 * held_out, None), (held_out, 2 * held_out), (0, held_out)
    splits = [{name: x[slice(*cut)] for name, x in arrays.items()} for cut in cuts]
    train, validation, test = jax.device_put(splits)
    return Data(train, validation, test, deviation * UNITS)


def balancer_of(row: str, heads: int, key: Array) -> Balancer:
    """The row's method, measured on what all tasks share."""
    method = equal(num_tasks=1) if row == SINGLE else make_method(row, heads, key)
    kind = "own" if row in ("pcgrad", "cagrad") else "weighted"
    return on_shared(method, {"heads": False, "shared": True}, kind)


def errors_of(params: PyTree, batch: PyTree, tasks: Array) -> Array:
    """Outputs minus standardised targets, (B, heads), of the tasks that the heads are for."""
    outputs = apply_network(params, batch["charges"], batch["positions"])
    return outputs - batch["targets"][:, tasks]


def measure(params: PyTree, split: PyTree, tasks: Array) -> Array:
    """Mean absolute errors over a split, (heads,), some molecules at a time."""

    def of_one(molecule: PyTree) -> Array:
        return errors_of(params, jax.tree.map(lambda x: x[None], molecule), tasks)[0]

    return jnp.mean(jnp.abs(jax.lax.map(of_one, split, batch_size=_AT_ONCE)), axis=0)


def trainer(problem: str, size: int, row: str, block: int) -> Train:
    """Write the training of one row; all targets alone, each with a network, are one program.

    Returns:
      ``train(rate, seeds, steps, advance)``; ``load`` says what it returns.
    """
    setup = SETUPS[problem]
    data = load_data(setup.held_out, size)
    # (networks of a seed, heads): the tasks of each network's heads.
    tasks = np.arange(len(TASKS)).reshape((-1, 1) if row == SINGLE else (1, -1))
    nets, heads = tasks.shape

    def start(key: Array) -> PyTree:
        params = init_network(key, setup.width, setup.hidden, heads)
        return params, balancer_of(row, heads, key).init(params), optax.scale_by_adam().init(params)

    def some_steps(
        rate: Array, steps: Array, begin: Array, train: PyTree, validation: PyTree, item: PyTree
    ) -> Any:
        key, tasks, carry = item

        def losses_of(params: PyTree, batch: PyTree) -> Array:
            return jnp.mean(errors_of(params, batch, tasks) ** 2, axis=0)

        balanced_grad = value_and_balanced_grad(losses_of, balancer_of(row, heads, key))

        def one_step(number: Array, carry: PyTree) -> PyTree:
            (params, state, adam), total = carry
            step = begin + number
            rows = jax.random.randint(jax.random.fold_in(key, step), (setup.batch,), 0, size)
            batch = jax.tree.map(lambda x: x[rows], train)
            losses, grad, state = balanced_grad(state, params, batch)
            updates, adam = optax.scale_by_adam().update(grad, adam, params)
            speed = rate * 0.5 * (1 + jnp.cos(jnp.pi * step / steps))
            params = jax.tree.map(lambda p, u: p - speed * u, params, updates)
            if row == "famo":
                state = famo_after_step(state, losses_of(params, batch))
            return (params, state, adam), total + losses

        carry, total = jax.lax.fori_loop(0, block, one_step, (carry, jnp.zeros(heads)))
        return carry, (total / block, measure(carry[0], validation, tasks))

    @functools.partial(jax.jit, donate_argnums=0)
    def run_all(carry: PyTree, keys: Array, tasks: Array, *given: Any) -> Any:
        step = functools.partial(some_steps, *given)
        return for_each(step, (keys, tasks, carry))

    @jax.jit
    def measure_all(params: PyTree, tasks: Array, split: PyTree) -> Array:
        return jax.lax.map(lambda item: measure(item[0], split, item[1]), (params, tasks))

    def train(rate: float, seeds: int, steps: int, advance: Callable[[int], None]) -> Record:
        keys = jnp.repeat(jax.random.split(jax.random.key(0), seeds), nets)
        of_nets = jnp.tile(jnp.asarray(tasks, jnp.int32), (seeds, 1))
        curve = []
        with jax.default_matmul_precision("tensorfloat32"):
            carry = jax.jit(jax.vmap(start))(keys)
            for begin in range(0, steps, block):
                numbers = jnp.float32(rate), jnp.float32(steps), jnp.int32(begin)
                carry, (losses, found) = run_all(
                    carry, keys, of_nets, *numbers, data.train, data.validation
                )
                curve.append(np.asarray(found, np.float64).reshape(seeds, -1).mean(axis=1))
                advance(block * seeds)
            errors = np.asarray(measure_all(carry[0], of_nets, data.test), np.float64)
        shown = np.unique(np.linspace(0, len(curve) - 1, POINTS_OF_CURVE).astype(int))
        return {
            "mae": as_json(errors.reshape(seeds, -1) * data.deviations, 6),
            "losses": as_json(np.asarray(losses, np.float64).reshape(seeds, -1), 6),
            "of_curve": [int(block * (i + 1)) for i in shown],
            "curve": [as_json(curve[i], 4) for i in shown],
        }

    return train
