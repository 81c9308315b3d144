"""Every test of a solver is run twice: as XLA makes it, and as the kernel that a GPU is given."""

import jax
import pytest

from jaxmtl.solvers import _one_launch


@pytest.fixture(
    autouse=True, scope="module", params=["plain", pytest.param("kernel", marks=pytest.mark.slow)]
)
def way(request):
    """Kernels run on CPU, interpreted: operation by operation, each compiled by XLA."""
    if request.param == "plain":
        yield request.param
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_one_launch, "INTERPRETED", True)
        jax.clear_caches()
        yield request.param
    jax.clear_caches()
