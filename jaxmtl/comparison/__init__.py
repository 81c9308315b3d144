"""Comparison of methods: they are trained side by side, with tables, a verdict and pictures."""

from jaxmtl.comparison._compare import compare
from jaxmtl.comparison._report import Comparison
from jaxmtl.comparison._saved import load

compare.load = load  # type: ignore[attr-defined]

__all__ = ["Comparison", "compare", "load"]
