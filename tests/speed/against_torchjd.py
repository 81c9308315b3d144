"""Weights from a Gramian, aggregation of stacked gradients and training steps beside TorchJD."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torchjd import aggregation
from torchjd.autojac import jac_to_grad, mtl_backward

import jaxmtl
from tests.crosschecks import exact
from tests.references import as_vector, relative_error
from tests.speed.against_ourselves import first_params, separate, stepper
from tests.speed.measure import Ratio, compare
from tests.speed.models import MODELS, losses_fn


class Peer(NamedTuple):
    """A method that both have: ours from T, TorchJD's from T, and the weights in float64."""

    ours: Callable[[int], jaxmtl.Balancer]
    theirs: Callable[[int], Any]
    exact: Callable[[np.ndarray], np.ndarray] | None = None
    least: int = 2


PEERS = {
    "upgrad": Peer(
        lambda t: jaxmtl.upgrad(num_tasks=t), lambda _: aggregation.UPGrad(), exact.upgrad
    ),
    "dualproj": Peer(
        lambda t: jaxmtl.dualproj(num_tasks=t), lambda _: aggregation.DualProj(), exact.dualproj
    ),
    "mgda": Peer(lambda t: jaxmtl.mgda(num_tasks=t), lambda _: aggregation.MGDA(), exact.mgda),
    "cagrad": Peer(
        lambda t: jaxmtl.cagrad(0.5, num_tasks=t),
        lambda _: aggregation.CAGrad(c=0.5),
        lambda j: exact.cagrad(j, 0.5),
    ),
    "fairgrad": Peer(
        lambda t: jaxmtl.fairgrad(2.0, num_tasks=t),
        lambda _: aggregation.FairGrad(alpha=2.0),
        lambda j: exact.fairgrad(j, 2.0),
    ),
    "imtl_g": Peer(
        lambda t: jaxmtl.imtl_g(num_tasks=t), lambda _: aggregation.IMTLG(), exact.imtl_g
    ),
    "aligned_mtl": Peer(
        lambda t: jaxmtl.aligned_mtl(num_tasks=t),
        lambda _: aggregation.AlignedMTL(),
        exact.aligned_mtl,
    ),
    "pcgrad": Peer(lambda t: jaxmtl.pcgrad(0, num_tasks=t), lambda _: aggregation.PCGrad()),
    "gradvac": Peer(lambda t: jaxmtl.gradvac(t, 0), lambda _: aggregation.GradVac()),
    "krum": Peer(
        lambda t: jaxmtl.krum(0, num_selected=2, num_tasks=t),
        lambda _: aggregation.Krum(n_byzantine=0, n_selected=2),
        least=3,
    ),
    "conflict_free": Peer(
        lambda t: jaxmtl.conflict_free(num_tasks=t), lambda _: aggregation.ConFIG()
    ),
    "nash_mtl": Peer(lambda t: jaxmtl.nash_mtl(num_tasks=t), aggregation.NashMTL),
    "graddrop": Peer(lambda t: jaxmtl.graddrop(0, num_tasks=t), lambda _: aggregation.GradDrop()),
    "trimmed_mean": Peer(
        lambda t: jaxmtl.trimmed_mean(1, num_tasks=t),
        lambda _: aggregation.TrimmedMean(trim_number=1),
        least=3,
    ),
}
STACKED = ["upgrad", "dualproj", "mgda", "cagrad", "imtl_g", "aligned_mtl", "pcgrad"]


def stack(num_tasks: int, size: int) -> np.ndarray:
    """Gaussian gradients that conflict a little, of equal lengths."""
    rng = np.random.default_rng(0)
    j = rng.normal(size=(num_tasks, size)).astype(np.float32)
    j -= 0.5 * j.mean(axis=0)
    return j / np.linalg.norm(j, axis=1, keepdims=True)


def weights(tasks: tuple[int, ...] = (2, 8, 32, 128)) -> Iterator[Ratio]:
    """From the same Gramian to task weights, and how exact the update then is."""
    for num_tasks in tasks:
        j = stack(num_tasks, 4 * num_tasks + 16)
        gram = j @ j.T
        ours_gram, theirs_gram = jnp.asarray(gram), torch.tensor(gram)
        for name, peer in PEERS.items():
            theirs = getattr(peer.theirs(num_tasks), "gramian_weighting", None)
            if theirs is None or num_tasks < peer.least:
                continue
            weighting, active = peer.ours(num_tasks).weighting, jnp.ones(num_tasks, bool)
            state = weighting.init(jnp.float32)
            ours = jax.jit(
                lambda g, w=weighting, a=active, s=state: w.update(jaxmtl.Given(None, g, a), s)[0]
            )
            note = ""
            if peer.exact is not None:
                exactly = peer.exact(j.astype(np.float64)) @ j
                found = np.asarray(ours(ours_gram)), np.asarray(theirs(theirs_gram))
                errors = [relative_error(w.astype(np.float64) @ j, exactly) for w in found]
                note = "errors of the update {:.0e}, {:.0e}".format(*errors)
            yield compare(
                "weights from a Gramian",
                f"{name}, T = {num_tasks}",
                lambda f=ours, g=ours_gram: f(g),
                lambda f=theirs, g=theirs_gram: f(g),
            )._replace(note=note)


def aggregation_of_stacks(
    sizes: tuple[int, ...] = (10**3, 10**5, 4 * 10**6), tasks: tuple[int, ...] = (2, 8)
) -> Iterator[Ratio]:
    """From stacked gradients to the update, one flat leaf and a tree of 40 leaves."""
    for size in sizes:
        for num_tasks in tasks:
            j = stack(num_tasks, size)
            for leaves in (1, 40):
                split = np.array_split(j, leaves, axis=1)
                pieces, theirs_pieces = [list(map(f, split)) for f in (jnp.asarray, torch.tensor)]
                widths = [piece.shape[1] for piece in split]
                names = STACKED if leaves == 40 else PEERS
                for name in names:
                    peer = PEERS[name]
                    if num_tasks < peer.least:
                        continue
                    balancer, theirs = peer.ours(num_tasks), peer.theirs(num_tasks)
                    update = jax.jit(balancer.update)
                    state = balancer.init([piece[0] for piece in pieces])
                    yield compare(
                        "aggregation of stacked gradients",
                        f"{name}, T = {num_tasks}, P = {size:.0e}, leaves: {leaves}",
                        lambda f=update, g=pieces, s=state: f(g, s),
                        # From leaf to leaf, as ours: their aggregators take one matrix.
                        lambda f=theirs, g=theirs_pieces, w=widths: (
                            f(torch.cat(g, 1)).split(w) if len(g) > 1 else f(g[0])
                        ),
                    )


def steps(tasks: tuple[int, ...] = (2, 8, 32)) -> Iterator[Ratio]:
    """Whole training steps with Adam: the trunk balanced, each head with its own gradient."""
    for kind, make in MODELS.items():
        for num_tasks in tasks:
            for name in ("upgrad", "pcgrad"):
                ours, ours_grad = _jax_step(make(num_tasks), PEERS[name].ours(num_tasks))
                theirs, theirs_grad = _torch_step(make(num_tasks), PEERS[name].theirs(num_tasks))
                note = ""
                if name == "upgrad":  # pcgrad draws its orders
                    apart = relative_error(as_vector(ours_grad()), as_vector(theirs_grad()))
                    note = f"gradients differ by {apart:.0e}"
                yield compare(
                    "training step beside TorchJD",
                    f"{kind}, {name}, T = {num_tasks}",
                    ours,
                    theirs,
                )._replace(note=note)
                if name == "upgrad":  # what a library that took no time of its own would reach
                    yield compare(
                        "T backward passes beside TorchJD's step",
                        f"{kind}, T = {num_tasks}",
                        separate(make(num_tasks), num_tasks),
                        theirs,
                    )


def _jax_step(model: Any, balancer: jaxmtl.Balancer) -> tuple[Callable[[], Any], Any]:
    balancer = jaxmtl.on_shared(balancer, lambda path: path.startswith("trunk"))
    route = jaxmtl.value_and_balanced_grad(lambda p, x: losses_fn(model.trunk, p, x), balancer)

    def grad() -> Any:
        params = first_params(model)
        return jax.jit(route)(balancer.init(params), params, jnp.asarray(model.batch))[1]["trunk"]

    return stepper(model, balancer.init(first_params(model)), lambda *args: route(*args)[1:]), grad


class Torch:
    """What the networks need, in PyTorch."""

    @staticmethod
    def relu(x: Any) -> Any:
        return x.relu()

    @staticmethod
    def softmax(x: Any) -> Any:
        return x.softmax(-1)

    @staticmethod
    def gelu(x: Any) -> Any:
        return torch.nn.functional.gelu(x, approximate="tanh")

    @staticmethod
    def normal(x: Any) -> Any:
        return torch.nn.functional.layer_norm(x, x.shape[-1:])

    @staticmethod
    def conv(x: Any, kernel: Any) -> Any:
        return torch.nn.functional.conv2d(x, kernel, padding=1)

    @staticmethod
    def mean_of_pixels(x: Any) -> Any:
        return x.mean((2, 3))


def _torch_step(model: Any, aggregator: Any) -> tuple[Callable[[], Any], Any]:
    trunk, heads = _parameters(model.params), _parameters(model.heads)
    shared, own = jax.tree.leaves(trunk), jax.tree.leaves(heads)
    images = model.batch.ndim == 4
    x = torch.tensor(model.batch.transpose(0, 3, 1, 2).copy() if images else model.batch)
    optimizer = torch.optim.Adam([*own, *shared], lr=1e-3)

    def grad() -> list[Any]:
        features = model.trunk(Torch, trunk, x)
        losses = [((features @ w - 1) ** 2).mean() for w in own]
        optimizer.zero_grad()
        mtl_backward(losses, features=features)
        jac_to_grad(shared, aggregator)
        return [p.grad.permute(2, 3, 1, 0) if p.ndim == 4 else p.grad for p in shared]

    def call() -> None:
        grad()
        optimizer.step()

    return call, grad


def _parameters(tree: Any) -> Any:
    """As PyTorch wants them: kernels (outputs, inputs, height, width)."""

    def parameter(array: np.ndarray) -> Any:
        array = array.transpose(3, 2, 0, 1).copy() if array.ndim == 4 else array
        return torch.nn.Parameter(torch.tensor(array))

    return jax.tree.map(parameter, tree)
