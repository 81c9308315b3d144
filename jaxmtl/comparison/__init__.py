"""Which way of balancing suits these losses? Methods trained side by side, and what that says."""

from jaxmtl.comparison._compare import compare
from jaxmtl.comparison._report import Comparison
from jaxmtl.comparison._saved import load

compare.load = load  # type: ignore[attr-defined]

__all__ = ["Comparison", "compare", "load"]
