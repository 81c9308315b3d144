"""QM9-11: eleven properties of small molecules, in the units in which chemists compute them.

Each of 8000 organic molecules of up to nine heavy atoms is described by the counts of its atoms and
by the sorted eigenvalues of its Coulomb matrix, which depend neither on the order of the atoms nor
on the orientation of the molecule. The targets' variances span eight orders of magnitude, from
orbital energies in hartrees to spatial extents in squared bohrs, and nothing is rescaled.
"""

import csv

import jax.numpy as jnp
import numpy as np

from jaxmtl import theory
from jaxmtl._typing import Array, PyTree
from jaxmtl.problems._dense import apply_dense_columns, init_dense
from jaxmtl.problems._installed import package_file
from jaxmtl.problems._problem import Batch, Problem

# Task -> column of the table: dipole moment and polarisability, energies of the frontier orbitals,
# extent, zero-point energy, energies and enthalpies, heat capacity.
_COLUMNS = {
    "alpha": "Polarizability_bohr3",
    "cv": "Heatcapacity_Cv_cal_mol_K",
    "g": "GibbsFreeEnergy_298K_au",
    "h": "Enthalphy_298K_au",
    "homo": "HOMO_au",
    "lumo": "LUMO_au",
    "mu": "Dipole_debye",
    "r2": "R2_bohr2",
    "u": "InternalEnergy_298K_au",
    "u0": "InternalEnergy_0K_au",
    "zpve": "ZPVE_au",
}
TASKS = tuple(_COLUMNS)
_CHARGES = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
_MOST_ATOMS = 29
_BOHRS_PER_ANGSTROM = 1.8897261
_FEATURES = len(_CHARGES) + _MOST_ATOMS
MOLECULES = 130_831
_SPLITS = {"train": 6000, "validation": 1000, "test": 1000}


def qm9() -> Problem:
    """Build QM9-11: eleven regressions in the units of the data.

    Every loss is the squared error, every metric the mean absolute error, both in the units of the
    data: hartree (energies), debye (dipole moment "mu"), cubic bohr (polarisability "alpha"),
    squared bohr ("r2"), cal/(mol K) ("cv"). The targets have the mean over the training split
    subtracted and are not rescaled; ``standardisation`` holds the weights that would rescale them.
    The molecules are a fixed random choice of the 130831.

    Returns:
      A ``Problem`` whose splits hold "features" (N, 34), standardised by the training split, and
      "targets" (N, 11), both float32. N is 6000, 1000 and 1000.

    Raises:
      ImportError: if qm9pack, which carries the data, is not installed.
      FileNotFoundError: if the installed qm9pack does not carry them.

    Examples:
      >>> from jaxmtl.problems.qm9 import qm9
      >>> problem = qm9()  # doctest: +SKIP
      >>> problem.tasks[:3]  # doctest: +SKIP
      ('alpha', 'cv', 'g')

    References:
      Ramakrishnan, Dral, Rupp & von Lilienfeld, `Quantum chemistry structures and properties of
      134 kilo molecules <https://doi.org/10.1038/sdata.2014.22>`_, 2014; Rupp, Tkatchenko, Müller
      & von Lilienfeld, `Fast and accurate modeling of molecular atomization energies with machine
      learning <https://arxiv.org/abs/1109.2618>`_, 2012
    """
    chosen = np.random.default_rng(0).permutation(MOLECULES)[: sum(_SPLITS.values())]
    features, targets = _read(chosen)
    train = _SPLITS["train"]
    mean, std = features[:train].mean(axis=0), features[:train].std(axis=0)
    features = (features - mean) / np.where(std > 0, std, 1)
    targets = targets - targets[:train].mean(axis=0)
    splits, start = {}, 0
    for name, number in _SPLITS.items():
        stop = start + number
        splits[name] = {
            "features": features[start:stop].astype(np.float32),
            "targets": targets[start:stop].astype(np.float32),
        }
        start = stop
    columns = dict(zip(TASKS, splits["train"]["targets"].T, strict=True))
    prior = {task: theory.prior_squared_error(column) for task, column in columns.items()}
    return Problem(
        name="QM9-11",
        tasks=TASKS,
        init=lambda key: init_dense(key, (_FEATURES, 128, 64), dict.fromkeys(TASKS, 1)),
        losses=_losses,
        metrics=_metrics,
        maximize=dict.fromkeys(TASKS, False),
        metric_names=dict.fromkeys(TASKS, "MAE"),
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        prior_values=prior,
        standardisation={task: 1 / value for task, value in prior.items()},
        learning_rate=1e-2,
        steps=1600,
        batch=256,
        shared={"trunk": True, "heads": False},
    )


def _errors(params: PyTree, batch: Batch) -> Array:
    """Compute all outputs minus their targets, (B, 11)."""
    return apply_dense_columns(params, batch["features"]) - batch["targets"]


def _losses(params: PyTree, batch: Batch) -> dict[str, Array]:
    """Evaluate the eleven squared errors, as means over the batch."""
    return dict(zip(TASKS, jnp.mean(_errors(params, batch) ** 2, axis=0), strict=True))


def _metrics(params: PyTree, split: Batch) -> dict[str, Array]:
    """Evaluate the eleven mean absolute errors."""
    return dict(zip(TASKS, jnp.mean(jnp.abs(_errors(params, split)), axis=0), strict=True))


def _read(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read the chosen molecules, in their order: features (N, 34) and targets (N, 11)."""
    charges, positions, targets = read_molecules(chosen)
    return describe(charges.astype(float), positions), targets


def read_molecules(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read molecules by their numbers in the files, in the order given.

    Returns:
      charges (N, 29) uint8 and positions (N, 29, 3) float64 in Å, zero where a molecule has fewer
      atoms; targets (N, 11) float64 in the order of ``TASKS`` and the units of the data. All 130831
      take about fifteen seconds.
    """
    files = [
        package_file("qm9", "qm9pack", f"data/qm9_part{i}.csv", cure="pip install qm9pack")
        for i in (1, 2, 3)
    ]
    place = dict(zip(chosen.tolist(), range(len(chosen)), strict=True))
    targets = np.zeros((len(chosen), len(_COLUMNS)))
    rows, elements, coordinates = [], [], []
    number = 0
    for path in files:
        with path.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader([next(file)]))
            columns = [header.index(name) for name in _COLUMNS.values()]
            of_elements, of_coordinates = header.index("Elements"), header.index("XYZ_Ang")
            for line in file:  # one molecule a line; only the chosen ones are parsed
                if number in place:
                    (cells,) = csv.reader([line])
                    rows.append(place[number])
                    targets[rows[-1]] = [float(cells[column]) for column in columns]
                    elements.append(cells[of_elements])
                    coordinates.append(cells[of_coordinates])
                number += 1
    strip = str.maketrans("", "", "[]' ")
    symbols = [cell.translate(strip).split(",") for cell in elements]
    # All atoms at once: converting a molecule at a time takes twice as long.
    row = np.repeat(rows, [len(atoms) for atoms in symbols])
    column = np.concatenate([np.arange(len(atoms)) for atoms in symbols])
    charges = np.zeros((len(chosen), _MOST_ATOMS), np.uint8)
    charges[row, column] = [_CHARGES[symbol] for atoms in symbols for symbol in atoms]
    positions = np.zeros((len(chosen), _MOST_ATOMS, 3))
    numbers = ",".join(coordinates).translate(strip)
    positions[row, column] = np.fromstring(numbers, sep=",").reshape(-1, 3)
    return charges, positions, targets


def describe(charges: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Describe molecules by numbers that do not depend on atom order, rotation or translation.

    Args:
      charges: (N, A) charges of the nuclei, zero if a molecule has fewer atoms.
      positions: (N, A, 3) in Å.

    Returns:
      (N, 5 + A): counts of H, C, N, O and F, then the eigenvalues of the Coulomb matrix, whose
      entries are Z_i Z_j / |R_i - R_j| and, on the diagonal, Z_i^2.4 / 2, in ascending order.
    """
    counts = np.stack([(charges == z).sum(axis=1) for z in _CHARGES.values()], axis=1)
    apart = np.linalg.norm(positions[:, :, None, :] - positions[:, None, :, :], axis=-1)
    apart = np.where(apart > 0, apart * _BOHRS_PER_ANGSTROM, np.inf)  # of absent atoms: no force
    coulomb = charges[:, :, None] * charges[:, None, :] / apart
    atoms = np.arange(charges.shape[1])
    coulomb[:, atoms, atoms] = charges**2.4 / 2
    return np.concatenate([counts, np.linalg.eigvalsh(coulomb)], axis=1)
