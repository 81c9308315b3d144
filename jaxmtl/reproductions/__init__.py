"""Published tables, run again: ``python -m jaxmtl.reproductions``, and the numbers that came of it.

    runs = jaxmtl.reproductions.load("dcgd")

The problems of "dcgd" and "config" are ``helmholtz``, ``klein_gordon`` and ``burgers`` of
``jaxmtl.problems``; those of "qm9" are the same data with two sizes of the published network.
"""

from jaxmtl.reproductions._contestants import PUBLISHED
from jaxmtl.reproductions._molecules import delta_m
from jaxmtl.reproductions._runs import load

__all__ = ["PUBLISHED", "delta_m", "load"]
