"""The published tables that are run again: their problems, rows and training."""

from collections.abc import Callable
from typing import Any

from jaxmtl.problems import burgers, helmholtz, klein_gordon
from jaxmtl.reproductions import _equations, _images, _molecules
from jaxmtl.reproductions._contestants import CONFIG, DCGD, Contestant
from jaxmtl.reproductions._runs import Experiment, Train

EQUATIONS: dict[str, Any] = {
    "burgers": burgers,
    "helmholtz": helmholtz,
    "klein_gordon": klein_gordon,
}


def _of_equations(
    rows: dict[str, Contestant], decay: float
) -> Callable[[str, int, str, int], Train]:
    def make(problem: str, size: int, row: str, block: int) -> Train:
        module = EQUATIONS[problem]
        return _equations.trainer(
            getattr(module, problem)(size), module.residuals, rows[row], decay, block
        )

    return make


def _rates(rows: dict[str, Contestant]) -> dict[str, tuple[float, ...]]:
    return {name: row.rates for name, row in rows.items()}


EXPERIMENTS = {
    # As in the code published with the paper, the wave has a tenth of the points.
    "dcgd": Experiment(
        problems={"klein_gordon": 128, "helmholtz": 1280},
        rows=_rates(DCGD),
        rates=(1e-3, 1e-4, 1e-5),
        seeds=10,
        steps=50_000,
        block=lambda size: 500,
        trainer=_of_equations(DCGD, 0.9),
    ),
    "config": Experiment(
        problems={"burgers": 2000},
        rows=_rates(CONFIG),
        rates=(5e-4, 1e-4),
        seeds=1,
        steps=5000,
        block=lambda size: 10,
        trainer=_of_equations(CONFIG, 1.0),
    ),
    "iwrm": Experiment(
        problems={"fashion_mnist": 1024},
        rows=dict.fromkeys(_images.ROWS, ()),
        rates=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
        seeds=8,
        steps=800,
        block=_images.steps_of_epoch,
        trainer=lambda problem, size, row, block: _images.trainer(problem, size, row),
    ),
    # As published, 300 epochs of batches of 120.
    "qm9": Experiment(
        problems={name: setup.molecules for name, setup in _molecules.SETUPS.items()},
        rows=dict.fromkeys(_molecules.QM9, ()),
        rates=(1e-3,),
        seeds=3,
        steps=275_000,
        block=lambda size: 250,
        trainer=_molecules.trainer,
    ),
}
