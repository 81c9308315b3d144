"""The solved methods on gradients of any rank, and where they cancel, beside float64 solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmtl
from tests.crosschecks import exact
from tests.crosschecks.draws import DEPENDENT, dependent

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compiler")]

SEEDS = 20
# Where gradients cancel these still have one solution, and the others none.
ANY = {
    "upgrad": (jaxmtl.upgrad, exact.upgrad),
    "dualproj": (jaxmtl.dualproj, exact.dualproj),
    "mgda": (jaxmtl.mgda, exact.mgda),
    "cagrad(0.5)": (lambda **kw: jaxmtl.cagrad(0.5, **kw), lambda j: exact.cagrad(j, 0.5)),
    "cagrad(1)": (lambda **kw: jaxmtl.cagrad(1.0, **kw), lambda j: exact.cagrad(j, 1.0)),
    "cagrad(2)": (lambda **kw: jaxmtl.cagrad(2.0, **kw), lambda j: exact.cagrad(j, 2.0)),
}
BARGAINS = {
    "nash_mtl": (jaxmtl.nash_mtl, lambda j: exact.fairgrad(j, 1.0)),
    "fairgrad": (lambda **kw: jaxmtl.fairgrad(2.0, **kw), lambda j: exact.fairgrad(j, 2.0)),
}
OF_THE_RANK = {
    "imtl_g": (jaxmtl.imtl_g, exact.imtl_g),
    "conflict_free": (jaxmtl.conflict_free, exact.conflict_free),
    "aligned_mtl": (jaxmtl.aligned_mtl, exact.aligned_mtl),
}


def condition_within_rank(j):
    values = np.linalg.svd(exact.units(j))[1]
    return (values[0] / values[values > 1e-10][-1]) ** 2


def errors(methods, name, kinds, num, keep):
    """Distances from the exact updates, in units of the terms they are summed of."""
    make, truth = methods[name]
    balancer = make(num_tasks=num)
    state = balancer.init(jnp.zeros(num + 2))
    drawn = [dependent(seed, num, kind) for kind in kinds for seed in range(SEEDS)]
    drawn = [j for j in drawn if keep(j)]
    updates = jax.jit(jax.vmap(lambda j: balancer.update(j, state)[0]))(jnp.asarray(drawn))
    found = []
    for j, d in zip(drawn, np.asarray(updates, np.float64), strict=True):
        w = truth(j)
        found.append(np.linalg.norm(d - w @ j) / max(np.abs(w) @ exact.lengths(j), 1e-30))
    return np.array(found)


@pytest.mark.parametrize(("wide", "bar"), [(False, 1e-3), (True, 1e-6)])
@pytest.mark.parametrize("num", [3, 4, 10])
@pytest.mark.parametrize("name", ANY)
def test_where_gradients_cancel(name, num, wide, bar):
    with jax.enable_x64(wide):
        found = errors(ANY, name, DEPENDENT, num, lambda j: True)
    assert np.max(found) < bar


@pytest.mark.parametrize("num", [3, 4, 10])
@pytest.mark.parametrize("name", BARGAINS)
def test_bargains_where_all_can_gain(name, num):
    kinds = ("rank", "duplicates")
    found = errors(BARGAINS, name, kinds, num, lambda j: exact.room(j) > 1e-2)
    assert len(found) > SEEDS / 2
    assert np.max(found) < 1e-4


@pytest.mark.parametrize("num", [4, 8, 16])
@pytest.mark.parametrize("name", OF_THE_RANK)
def test_what_rank_there_is(name, num):
    """A rank of one with signs as often plus as minus has no direction of equal cosines."""

    def keep(j):
        return condition_within_rank(j) < 1e3 and np.linalg.matrix_rank(j) > 1

    found = errors(OF_THE_RANK, name, ("rank", "duplicates"), num, keep)
    assert len(found) > SEEDS
    assert np.quantile(found, 0.9) < 2e-6
    assert np.max(found) < 3e-5
