"""Published tables, run again: ``python -m jaxmtl.reproductions``, and the stored numbers.

    runs = jaxmtl.reproductions.load("dcgd")

The problems of "dcgd" and "config" are ``helmholtz``, ``klein_gordon`` and ``burgers`` of
``jaxmtl.problems``. "iwrm" trains on images of Fashion-MNIST. "qm9" trains on molecules, with two
sizes of the published network.
"""

from jaxmtl.reproductions._delta_m import delta_m
from jaxmtl.reproductions._published import PUBLISHED
from jaxmtl.reproductions._runs import load

__all__ = ["PUBLISHED", "delta_m", "load"]
