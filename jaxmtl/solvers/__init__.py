"""Solvers that know nothing of tasks: from matrices to points, with how well they were reached."""

from jaxmtl.solvers.min_norm import MinNorm, min_norm

__all__ = ["MinNorm", "min_norm"]
