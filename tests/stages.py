"""What runs in the first stage, and what only in the second (``pytest -m slow``)."""

import pytest


def later(names, soon):
    """All names as parameters, of which those not in ``soon`` wait for the second stage.

    For cases that share their code, each of which compiles programs of its own: one of each kind
    soon, all of them in the end.
    """
    names = list(names)
    assert set(soon) <= set(names), set(soon) - set(names)
    return [name if name in soon else pytest.param(name, marks=pytest.mark.slow) for name in names]
