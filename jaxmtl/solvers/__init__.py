"""Solvers that know nothing of tasks: from matrices to points, with how well they were reached."""

from jaxmtl.solvers.barrier import Barrier, barrier
from jaxmtl.solvers.complementarity import Complementarity, complementarity
from jaxmtl.solvers.dual_cone import dual_cone
from jaxmtl.solvers.min_norm import MinNorm, min_norm
from jaxmtl.solvers.pseudo_solve import pseudo_solve
from jaxmtl.solvers.scaling import equilibrate
from jaxmtl.solvers.worst_case import worst_case

__all__ = [
    "Barrier",
    "Complementarity",
    "MinNorm",
    "barrier",
    "complementarity",
    "dual_cone",
    "equilibrate",
    "min_norm",
    "pseudo_solve",
    "worst_case",
]
