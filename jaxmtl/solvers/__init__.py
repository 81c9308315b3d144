"""Solvers for small problems: they take matrices and return points with their accuracy."""

from jaxmtl.solvers.barrier import Barrier, barrier
from jaxmtl.solvers.complementarity import Complementarity, complementarity
from jaxmtl.solvers.dual_cone import dual_cone
from jaxmtl.solvers.eigen import Eigen, eigen
from jaxmtl.solvers.linear_program import LinearProgram, linear_program
from jaxmtl.solvers.min_norm import MinNorm, min_norm
from jaxmtl.solvers.pseudo_solve import pseudo_solve
from jaxmtl.solvers.scaling import equilibrate
from jaxmtl.solvers.simplex import simplex
from jaxmtl.solvers.worst_case import worst_case

__all__ = [
    "Barrier",
    "Complementarity",
    "Eigen",
    "LinearProgram",
    "MinNorm",
    "barrier",
    "complementarity",
    "dual_cone",
    "eigen",
    "equilibrate",
    "linear_program",
    "min_norm",
    "pseudo_solve",
    "simplex",
    "worst_case",
]
