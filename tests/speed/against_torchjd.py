"""Weights from a Gramian, and aggregation of stacked gradients, beside TorchJD on the CPU."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torchjd import aggregation

import jaxmtl
from tests.speed.measure import Ratio, compare

# Ours, TorchJD's weighting of a Gramian, TorchJD's aggregator.
METHODS = {
    "upgrad": (lambda t: jaxmtl.upgrad(num_tasks=t), aggregation.UPGrad),
    "dualproj": (lambda t: jaxmtl.dualproj(num_tasks=t), aggregation.DualProj),
    "mgda": (lambda t: jaxmtl.mgda(num_tasks=t), aggregation.MGDA),
    "cagrad": (lambda t: jaxmtl.cagrad(0.5, num_tasks=t), lambda: aggregation.CAGrad(c=0.5)),
    "imtl_g": (lambda t: jaxmtl.imtl_g(num_tasks=t), aggregation.IMTLG),
    "aligned_mtl": (lambda t: jaxmtl.aligned_mtl(num_tasks=t), aggregation.AlignedMTL),
    "pcgrad": (lambda t: jaxmtl.pcgrad(0, num_tasks=t), aggregation.PCGrad),
    "gradvac": (lambda t: jaxmtl.gradvac(t, 0), aggregation.GradVac),
    "fairgrad": (lambda t: jaxmtl.fairgrad(2.0, num_tasks=t), lambda: aggregation.FairGrad(alpha=2.0)),
    "krum": (
        lambda t: jaxmtl.krum(0, num_selected=2, num_tasks=t),
        lambda: aggregation.Krum(n_byzantine=0, n_selected=2),
    ),
}


def stack(num_tasks: int, size: int) -> np.ndarray:
    """Gaussian gradients that conflict a little, of equal lengths."""
    rng = np.random.default_rng(0)
    j = rng.normal(size=(num_tasks, size)).astype(np.float32)
    j -= 0.5 * j.mean(axis=0)
    return j / np.linalg.norm(j, axis=1, keepdims=True)


def weights(sizes: tuple[int, ...] = (2, 8, 32, 128)) -> Iterator[Ratio]:
    """From the same Gramian to task weights."""
    for num_tasks in sizes:
        j = stack(num_tasks, 4 * num_tasks + 16)
        gram = j @ j.T
        ours_gram, theirs_gram = jnp.asarray(gram), torch.tensor(gram)
        for name, (make, peer) in METHODS.items():
            weighting, active = make(num_tasks).weighting, jnp.ones(num_tasks, bool)
            state = weighting.init(jnp.float32)
            of_gramian = jax.jit(
                lambda g, w=weighting, a=active: w.update(jaxmtl.Given(None, g, a), state)[0]  # noqa: B023
            )
            aggregator = peer()
            theirs = getattr(aggregator, "gramian_weighting", None)
            if theirs is None or (name == "krum" and num_tasks < 3):
                continue
            yield compare(
                "weights from a Gramian",
                f"{name}, T = {num_tasks}",
                lambda f=of_gramian, g=ours_gram: f(g),
                lambda f=theirs, g=theirs_gram: f(g),
            )


def aggregation_of_stacks(
    sizes: tuple[int, ...] = (10**3, 10**5, 4 * 10**6), tasks: tuple[int, ...] = (2, 8)
) -> Iterator[Ratio]:
    """From stacked gradients to the update, one flat leaf and a tree of 40 leaves."""
    for size in sizes:
        for num_tasks in tasks:
            j = stack(num_tasks, size)
            theirs_stack = torch.tensor(j)
            for leaves in (1, 40):
                pieces = [jnp.asarray(piece) for piece in np.array_split(j, leaves, axis=1)]
                for name in ("upgrad", "mgda", "pcgrad"):
                    make, peer = METHODS[name]
                    balancer, theirs = make(num_tasks), peer()
                    state = balancer.init([piece[0] for piece in pieces])
                    update = jax.jit(balancer.update)
                    yield compare(
                        "aggregation of stacked gradients",
                        f"{name}, T = {num_tasks}, P = {size:.0e}, {leaves} leaves",
                        lambda f=update, g=pieces, s=state: f(g, s)[0],
                        lambda f=theirs, g=theirs_stack: f(g),
                    )
