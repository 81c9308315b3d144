"""Solvers that know nothing of tasks: from matrices to points, with how well they were reached."""

from jaxmtl.solvers.complementarity import Complementarity, complementarity
from jaxmtl.solvers.dual_cone import dual_cone
from jaxmtl.solvers.min_norm import MinNorm, min_norm
from jaxmtl.solvers.scaling import equilibrate

__all__ = [
    "Complementarity",
    "MinNorm",
    "complementarity",
    "dual_cone",
    "equilibrate",
    "min_norm",
]
