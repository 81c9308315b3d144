"""Published tables, run again: ``python -m jaxmtl.reproductions``, and the numbers that came of it.

    runs = jaxmtl.reproductions.load("dcgd")

The problems are ``helmholtz``, ``klein_gordon`` and ``burgers`` of ``jaxmtl.problems``.
"""

from jaxmtl.reproductions._contestants import PUBLISHED
from jaxmtl.reproductions._runs import load

__all__ = ["PUBLISHED", "load"]
