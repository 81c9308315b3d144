"""The methods in float64 against independent solvers and TorchJD (the extra ``crosscheck``).

In float64 rounding hides nothing: what is left is what the other side's tolerance allows, and each
test states it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

import jaxmtl
from tests.crosschecks import exact
from tests.references import gradients, relative_error

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compiler")]

SIZE = 40
STACKS = [
    gradients(seed, num, SIZE, spread, "conflicting")
    for num in (2, 3, 8)
    for spread in (0.0, 1.0)
    for seed in range(3)
]
EVEN = [j for j in STACKS if np.ptp(exact.lengths(j)) < 1e-6]
CLARABEL = 1e-6  # in the solution; its own tolerances, on the gap, are set to 1e-12


@functools.cache
def compiled(name, num, *arguments, **options):
    balancer = getattr(jaxmtl, name)(*arguments, num_tasks=num, **options)
    return balancer, jax.jit(balancer.update)


def update_of(j, name, *arguments, **options):
    """The update in float64."""
    with jax.enable_x64(True):
        balancer, update = compiled(name, len(j), *arguments, **options)
        updates, _ = update(jnp.asarray(j), balancer.init(jnp.zeros(j.shape[1])))
        return np.asarray(updates)


@pytest.mark.parametrize(
    ("name", "arguments", "truth", "tolerance"),
    [
        ("upgrad", (), exact.upgrad, 1e-12),
        ("dualproj", (), exact.dualproj, 1e-12),
        ("mgda", (), exact.mgda, 1e-12),
        ("cagrad", (0.5,), exact.cagrad, 1e-12),
        ("cagrad", (1.0,), exact.cagrad, 1e-12),
        # The package stops at a residual of 1e-6, whatever the type.
        ("fairgrad", (1.0,), exact.fairgrad, 1e-5),
        ("fairgrad", (2.0,), exact.fairgrad, 1e-5),
        ("fairgrad", (5.0,), exact.fairgrad, 1e-5),
        ("imtl_g", (), exact.imtl_g, 1e-12),
        ("conflict_free", (), exact.conflict_free, 1e-12),
        ("aligned_mtl", (), exact.aligned_mtl, 1e-12),
    ],
)
def test_against_scipy(name, arguments, truth, tolerance):
    for j in STACKS:
        expected = truth(j, *arguments) @ j
        assert relative_error(update_of(j, name, *arguments), expected) < tolerance


def quadprog(quadratic, lower, total=None):
    """argmin w'Qw over w >= lower, and sum w = total."""
    solver = pytest.importorskip("quadprog")
    constraints, bounds = np.eye(len(lower)), np.array(lower, float)
    if total is not None:
        constraints = np.column_stack([np.ones(len(lower)), constraints])
        bounds = np.append(total, bounds)
    meq = 0 if total is None else 1
    return solver.solve_qp(quadratic, np.zeros(len(lower)), constraints, bounds, meq)[0]


def clarabel(quadratic, linear, blocks):
    """argmin x'Qx/2 + q'x over A x + s = b, s in a cone, for each block (A, b, cone)."""
    solver = pytest.importorskip("clarabel")
    settings = solver.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    matrix = scipy.sparse.csc_matrix(np.vstack([a for a, _, _ in blocks]))
    right = np.concatenate([b for _, b, _ in blocks])
    upper = scipy.sparse.triu(scipy.sparse.csc_matrix(quadratic), format="csc")
    cones = [cone(solver) for _, _, cone in blocks]
    found = solver.DefaultSolver(upper, np.asarray(linear), matrix, right, cones, settings).solve()
    return np.array(found.x)


def at_least(lower):
    num = len(lower)
    return -np.eye(num), -np.asarray(lower), lambda solver: solver.NonnegativeConeT(num)


def summing_to_one(num):
    return np.ones((1, num)), np.ones(1), lambda solver: solver.ZeroConeT(1)


def projected(j, weights, project):
    """The projection of weights @ j, the problem being posed on the directions."""
    size = exact.lengths(j)
    return project(exact.units(j) @ exact.units(j).T, weights * size) / size @ j


def through_quadprog(cosines, lower):
    return quadprog(cosines, lower)


def through_clarabel(cosines, lower):
    return clarabel(cosines, np.zeros(len(lower)), [at_least(lower)])


@pytest.mark.parametrize(
    ("project", "tolerance"), [(through_quadprog, 1e-10), (through_clarabel, CLARABEL)]
)
def test_dual_cone_projections(project, tolerance):
    for j in STACKS:
        num = len(j)
        expected = sum(projected(j, row / num, project) for row in np.eye(num))
        assert relative_error(update_of(j, "upgrad"), expected) < tolerance
        expected = projected(j, np.full(num, 1 / num), project)
        assert relative_error(update_of(j, "dualproj"), expected) < tolerance


def test_min_norm_against_quadprog():
    for j in STACKS:
        expected = quadprog(j @ j.T, np.zeros(len(j)), total=1)
        assert relative_error(update_of(j, "mgda"), expected @ j) < 1e-9


def test_min_norm_against_clarabel():
    for j in STACKS:
        num = len(j)
        blocks = [summing_to_one(num), at_least(np.zeros(num))]
        expected = clarabel(j @ j.T, np.zeros(num), blocks)
        assert relative_error(update_of(j, "mgda"), expected @ j) < 10 * CLARABEL


@pytest.mark.parametrize("c", [0.5, 1.0])
def test_cagrad_against_a_second_order_cone_program(c):
    """min <g_w, g_0> + c ||g_0|| r over w on the simplex and r >= ||g_w||."""
    for j in STACKS:
        num, mean = len(j), j.mean(axis=0)
        radius = c * np.linalg.norm(mean)
        columns = exact.coordinates(j).T
        cone = np.vstack(
            [np.append(np.zeros(num), -1.0), np.column_stack([-columns, 0 * mean[:num]])]
        )
        simplex = [summing_to_one(num), at_least(np.zeros(num))]
        blocks = [(np.column_stack([a, np.zeros(len(a))]), b, kind) for a, b, kind in simplex]
        blocks.append((cone, np.zeros(num + 1), lambda s, n=num: s.SecondOrderConeT(n + 1)))
        w = clarabel(np.zeros((num + 1, num + 1)), np.append(j @ mean, radius), blocks)[:num]
        expected = mean + radius * (w @ j) / np.linalg.norm(w @ j)
        assert relative_error(update_of(j, "cagrad", c), expected) < 10 * CLARABEL


@pytest.mark.parametrize("alpha", [1.0, 2.0, 5.0])
def test_bargains_against_a_cone_program(alpha):
    """min w'Gw/2 - sum_i y_i with y <= log w (an exponential cone) or y <= w^p/p (a power cone).

    The package stops at a residual of 1e-6, which Newton's last step squares or not.
    """
    power = 1 - 1 / alpha
    for j in STACKS:
        num = len(j)
        blocks = []
        for i in range(num):
            a = np.zeros((3, 2 * num))
            if power == 0:  # y, 1, w with exp(y) <= w
                a[0, num + i], a[2, i], b = -1, -1, np.array([0.0, 1.0, 0.0])
                kind = "ExponentialConeT"
            else:  # w^p 1^(1-p) >= |z|, z = y p
                a[0, i], a[2, num + i], b = -1, -power, np.array([0.0, 1.0, 0.0])
                kind = "PowerConeT"
            arguments = () if power == 0 else (power,)
            blocks.append((a, b, lambda s, k=kind, args=arguments: getattr(s, k)(*args)))
        quadratic = scipy.linalg.block_diag(j @ j.T, np.zeros((num, num)))
        linear = np.append(np.zeros(num), -np.ones(num))
        expected = clarabel(quadratic, linear, blocks)[:num] @ j
        assert relative_error(update_of(j, "fairgrad", alpha), expected) < 10 * CLARABEL


def through_torchjd(make, j):
    """TorchJD's aggregation of the same stack, in float64."""
    pytest.importorskip("torchjd")
    import torch
    import torchjd.aggregation
    import torchjd.linalg

    return make(torchjd)(torch.tensor(j)).numpy()


def projector(torchjd):
    """It adds reg_eps to the Gramian over its trace, which is an error of that size."""
    return torchjd.linalg.QuadprogProjector(norm_eps=0.0, reg_eps=1e-12)


TORCHJD = {
    "mean": ("equal", lambda t: t.aggregation.Mean(), 1e-12),
    "upgrad": ("upgrad", lambda t: t.aggregation.UPGrad(projector=projector(t)), 1e-9),
    "dualproj": ("dualproj", lambda t: t.aggregation.DualProj(projector=projector(t)), 1e-9),
    # Vanilla Frank-Wolfe, until it steps less than epsilon.
    "mgda": ("mgda", lambda t: t.aggregation.MGDA(epsilon=1e-9, max_iters=3000), 1e-5),
    # An interior point solver whose tolerance of 1e-8 is on the value, the square of the distance.
    "cagrad": ("cagrad", lambda t: t.aggregation.CAGrad(0.5, norm_eps=0.0), 1e-3),
    "imtl_g": ("imtl_g", lambda t: t.aggregation.IMTLG(), 1e-10),
    "config": ("conflict_free", lambda t: t.aggregation.ConFIG(), 1e-10),
    "aligned_mtl": ("aligned_mtl", lambda t: t.aggregation.AlignedMTL(), 1e-10),
}


@pytest.mark.parametrize("case", TORCHJD)
def test_against_torchjd(case):
    """Lengths of one: TorchJD's thresholds are absolute."""
    for module in {"upgrad": ["qpsolvers"], "dualproj": ["qpsolvers"], "cagrad": ["cvxpy"]}.get(
        case, []
    ):
        pytest.importorskip(module)
    name, make, tolerance = TORCHJD[case]
    for j in EVEN:
        assert relative_error(update_of(j, name), through_torchjd(make, j)) < tolerance


@pytest.mark.parametrize("scale", ["rmse", "median"])
def test_scales_of_aligned_mtl_against_torchjd(scale):
    for j in EVEN:
        theirs = through_torchjd(lambda t: t.aggregation.AlignedMTL(scale_mode=scale), j)
        assert relative_error(update_of(j, "aligned_mtl", scale=scale), theirs) < 1e-10


def test_pcgrad_of_two_against_torchjd():
    """The order does not matter."""
    for j in (j for j in STACKS if len(j) == 2):
        theirs = through_torchjd(lambda t: t.aggregation.PCGrad(), j)
        assert relative_error(update_of(j, "pcgrad", 0), theirs) < 1e-12


@pytest.mark.filterwarnings("ignore::UserWarning")  # cvxpy's, on how TorchJD poses the problem
def test_nash_mtl_against_torchjd():
    """It stops at changes of 1e-6; where its solver fails, silently, its weights stay one."""
    pytest.importorskip("cvxpy")
    pytest.importorskip("ecos")
    errors = []
    for j in EVEN:
        options = {"n_tasks": len(j), "max_norm": 0, "optim_niter": 200}
        theirs = through_torchjd(lambda t, kw=options: t.aggregation.NashMTL(**kw), j)
        if relative_error(theirs, j.sum(axis=0)) > 1e-6:
            errors.append(relative_error(update_of(j, "nash_mtl"), theirs))
    assert len(errors) > len(EVEN) / 2
    assert max(errors) < 1e-5


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_fairgrad_against_torchjd(alpha):
    """SciPy's least squares stop where a step, or what it gains, is below 1e-8."""
    for j in EVEN:
        theirs = through_torchjd(lambda t: t.aggregation.FairGrad(alpha), j)
        assert relative_error(update_of(j, "fairgrad", alpha), theirs) < 1e-7


SHARES, LEAST = np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.2, 0.0])
SCALARIZERS = {
    "gls": ((), {}, lambda s, p, z: s.GeometricMean()),
    "cosmos": ((SHARES,), {"beta": 2.0}, lambda s, p, z: s.COSMOS(2.0, p)),
    "pbi": ((SHARES,), {"theta": 5.0, "ideal": LEAST}, lambda s, p, z: s.PBI(5.0, p, z)),
    "stch": ((SHARES,), {"mu": 0.5, "ideal": LEAST}, lambda s, p, z: s.STCH(0.5, p, z)),
}
STARTS = {"uncertainty": lambda s: s.UW(3), "imtl_l": lambda s: s.IMTLL(3)}


def slopes_of(make, losses):
    """The derivatives of TorchJD's scalarisation in the losses."""
    pytest.importorskip("torchjd.scalarization")
    import torch
    import torchjd.scalarization

    values = torch.tensor(losses, requires_grad=True)
    scalarizer = make(torchjd.scalarization, torch.tensor(SHARES), torch.tensor(LEAST))
    return torch.autograd.grad(scalarizer.double()(values), values)[0].numpy()


@pytest.mark.parametrize("name", SCALARIZERS)
def test_scalarisations_against_torchjd(name):
    arguments, options, make = SCALARIZERS[name]
    for losses in np.random.default_rng(0).uniform(0.5, 3.0, size=(5, 3)):
        with jax.enable_x64(True):
            balancer = getattr(jaxmtl, name)(*arguments, num_tasks=3, **options)
            weights, _ = balancer.update(jnp.eye(3), balancer.init(jnp.zeros(3)), losses=losses)
        assert relative_error(np.asarray(weights), slopes_of(make, losses)) < 1e-9


@pytest.mark.parametrize("name", STARTS)
def test_learned_weights_start_as_those_of_torchjd(name):
    losses = np.array([0.5, 1.0, 3.0])
    theirs = slopes_of(lambda s, p, z: STARTS[name](s), losses)
    with jax.enable_x64(True):
        balancer = getattr(jaxmtl, name)(3)
        weights, _ = balancer.update(jnp.eye(3), balancer.init(jnp.zeros(3)), losses=losses)
    assert relative_error(np.asarray(weights), theirs) < 1e-9


@pytest.mark.parametrize("num_selected", [1, 5])
def test_krum_against_torchjd(num_selected):
    """TorchJD adds distances, the paper their squares; here both say the same."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        away = np.diag([0.0, 1.0, 1.1, 1.2, 1.3, 90.0, 70.0]) @ np.eye(7, SIZE)
        j = rng.permutation(rng.normal(size=SIZE) + away)
        theirs = through_torchjd(lambda t: t.aggregation.Krum(2, num_selected), j)
        ours = update_of(j, "krum", 2, num_selected=num_selected)
        assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("num_trimmed", [0, 1, 3])
def test_trimmed_mean_against_torchjd(num_trimmed):
    for j in (j for j in STACKS if len(j) == 8):
        theirs = through_torchjd(lambda t: t.aggregation.TrimmedMean(num_trimmed), j)
        assert relative_error(update_of(j, "trimmed_mean", num_trimmed), theirs) < 1e-12


def test_graddrop_against_torchjd_in_law():
    """Each sign is kept as often: the means over draws agree to their own errors."""
    torch = pytest.importorskip("torch")
    j, draws = gradients(0, 4, SIZE), 4000
    wide = np.tile(j, draws)
    torch.manual_seed(0)
    theirs = through_torchjd(lambda t: t.aggregation.GradDrop(), wide).reshape(draws, SIZE)
    ours = update_of(wide, "graddrop", 0).reshape(draws, SIZE)
    error = np.sqrt((theirs.var(axis=0) + ours.var(axis=0)) / draws) + 1e-12
    assert np.max(np.abs(theirs.mean(axis=0) - ours.mean(axis=0)) / error) < 5
    # Either all positive or all negative entries stay: two values at each coordinate, the same.
    np.testing.assert_allclose(ours.max(axis=0), theirs.max(axis=0), atol=1e-12)
    np.testing.assert_allclose(ours.min(axis=0), theirs.min(axis=0), atol=1e-12)
