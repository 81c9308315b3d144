"""What a GPU is given: one kernel where XLA would make loops, and loops everywhere else.

Programs are lowered for CUDA on any host; that they compile for an H100 is for ``tests/targets``.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from jaxmtl.solvers import _one_launch, barrier, dual_cone, eigen, min_norm, worst_case
from jaxmtl.solvers._kernel.entries import NotInKernel
from jaxmtl.solvers._kernel.program import run_in_kernel
from jaxmtl.solvers._one_launch import one_launch
from tests.references import gradients

SOLVERS = {
    "barrier": barrier,
    "dual_cone": lambda g: dual_cone(g, jnp.ones_like(g[0])),
    "dual_cone of each": lambda g: dual_cone(g, jnp.eye(len(g), dtype=g.dtype)),
    "eigen": eigen,
    "min_norm": min_norm,
    "worst_case": lambda g: worst_case(g, jnp.ones_like(g[0]), 0.5),
}
solvers = pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)


@pytest.fixture
def way():
    """Not twice, as the solvers' tests are."""


def gram(num, seed=0):
    j = gradients(seed, num, 30, kind="conflicting")
    return jnp.asarray(j @ j.T, jnp.float32)


def lowered(function, *arguments, platform="cuda"):
    """How many kernels and how many loops a program has."""
    traced = jax.jit(function).trace(*arguments)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    return text.count("__gpu$xla.gpu.triton"), text.count("stablehlo.while")


@solvers
@pytest.mark.parametrize("num", [5, 8])
def test_the_target_decides(solve, num):
    kernels, loops = lowered(solve, gram(num))
    assert kernels >= 1
    assert loops == 0
    for platform in ("cpu", "tpu"):
        kernels, loops = lowered(solve, gram(num), platform=platform)
        assert kernels == 0
        assert loops >= 1


def test_where_xla_keeps_its_loops():
    assert lowered(eigen, gram(32)) == (1, 0)
    assert lowered(eigen, gram(33)) == (0, 2)
    assert lowered(barrier, gram(64)) == (1, 0)
    assert lowered(barrier, gram(65)) == (0, 1)
    with jax.enable_x64(True):
        assert lowered(barrier, jnp.eye(8, dtype=jnp.float64)) == (0, 1)
        assert lowered(barrier, jnp.eye(8, dtype=jnp.float32)) == (1, 0)


class Gpu:
    def __init__(self, capability):
        self.compute_capability = capability


@pytest.mark.parametrize(("capability", "kernels"), [("7.5", 0), ("8.0", 1), ("12.0", 1)])
def test_a_gpu_that_triton_does_not_know_has_loops(capability, kernels, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(jax, "default_backend", lambda: "gpu")
        patched.setattr(jax, "devices", lambda: [Gpu(capability)])
        assert _one_launch._has_triton() == bool(kernels)


def test_they_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(_one_launch, "_WANTED", False)
    jax.clear_caches()
    assert lowered(barrier, gram(7)) == (0, 1)
    jax.clear_caches()


def test_what_is_exported_has_no_kernel():
    """JAX refuses to export one, and the compiler of another day might not know it."""
    shape = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    for platforms in (("cuda",), ("cpu", "cuda", "tpu")):
        exported = export.export(jax.jit(barrier), platforms=platforms)(shape)
        assert "xla.gpu.triton" not in str(exported.mlir_module())
    # What came last was made for three targets, and runs on this one.
    found, expected = exported.call(gram(8)), barrier(gram(8))
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-6)


def test_transformations():
    stack = jnp.stack([gram(8, seed) for seed in range(3)])
    assert lowered(jax.vmap(barrier), stack) == (1, 0)
    assert lowered(jax.vmap(jax.vmap(SOLVERS["dual_cone of each"])), stack[None]) == (1, 0)
    each = jnp.stack([barrier(g).weights for g in stack])
    nested = jax.vmap(jax.vmap(barrier, in_axes=2), in_axes=2)
    found = jax.jit(nested)(stack[None].transpose(2, 3, 0, 1))
    np.testing.assert_allclose(found.weights[0], each, rtol=1e-5)

    def weighed(g):
        return jnp.sum(jax.lax.stop_gradient(barrier(g).weights) * g[0])

    def repeated(g):
        return jax.lax.scan(lambda sum_, _: (sum_ + barrier(g).residual, None), 0.0, length=3)[0]

    assert lowered(jax.grad(weighed), stack[0]) == (1, 0)
    assert lowered(jax.grad(jax.checkpoint(weighed)), stack[0]) == (1, 0)
    assert lowered(repeated, stack[0]) == (1, 1)
    np.testing.assert_allclose(jax.grad(weighed)(stack[0])[0], each[0], rtol=1e-5)


def test_forward_derivatives():
    """G w = 1/w, and so w of c G is w/sqrt(c): its derivative in c at 1 is -w/2."""
    value, slope = jax.jvp(lambda g: barrier(g).weights, (gram(4),), (gram(4),))
    np.testing.assert_allclose(slope, -value / 2, rtol=1e-4)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("check_vma", [None, True, False], ids=["jit", "checked", "unchecked"])
def test_on_several_devices(kind, check_vma):
    spec, mesh = PartitionSpec(None, "data"), AbstractMesh((16,), ("data",), axis_types=(kind,))

    def weights(j):
        over = {"out_sharding": PartitionSpec()} if kind == AxisType.Explicit else {}
        g = jnp.einsum("ij,kj->ik", j, j, **over) if check_vma is None else j @ j.T
        g = g if check_vma is None else jax.lax.psum(g, "data")
        return [solve(g)[0] for solve in SOLVERS.values()]

    if check_vma is not None:
        options = {"mesh": mesh, "in_specs": spec, "out_specs": PartitionSpec()}
        weights = jax.shard_map(weights, check_vma=check_vma, **options)
    shape = jax.ShapeDtypeStruct((8, 64), jnp.float32, sharding=NamedSharding(mesh, spec))
    with jax.sharding.use_abstract_mesh(mesh):
        kernels, loops = lowered(weights, shape)
    assert kernels >= len(SOLVERS)
    assert loops == 0


@pytest.mark.parametrize("part", ["run_in_kernel", "_primitive"])
def test_a_kernel_that_cannot_be_made_costs_speed_alone(monkeypatch, part):
    def broken(*_):
        raise AttributeError("gone")

    jax.clear_caches()  # of the parts that worked
    _one_launch._tell_once.cache_clear()
    monkeypatch.setattr(_one_launch, part, broken)
    with pytest.warns(RuntimeWarning, match="cannot make a GPU kernel.*AttributeError: gone"):
        assert lowered(barrier, gram(7)) == (0, 1)
    _one_launch._tell_once.cache_clear()
    jax.clear_caches()


def interpreted(function, *arguments):
    """A function of arrays as a kernel, run on this host."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_one_launch, "INTERPRETED", True)
        refused = []

        def run(program, values):
            try:
                return run_in_kernel(program, values)
            except NotInKernel as error:
                refused.append(error)
                raise

        patched.setattr(_one_launch, "run_in_kernel", run)
        found = jax.jit(one_launch(function))(*arguments)
        assert not refused
    return found


@pytest.mark.parametrize("num", [1, 2, 3, 5, 8])
def test_operations_of_a_kernel(num):
    """Each operation that a kernel has by another way, against NumPy in float64."""
    rng = np.random.default_rng(num)
    x, i = rng.permutation(num).astype(np.float32), np.int32(num - 1)
    a = rng.normal(size=(num, num)).astype(np.float32)
    positive = (a @ a.T + np.eye(num)).astype(np.float32)

    def operations(x, i, a, positive):
        factor = jax.scipy.linalg.cho_factor(positive, lower=True)
        upper = jax.scipy.linalg.cho_factor(positive)
        return {
            "sort": jnp.sort(x),
            "reversed": x[::-1],
            "cumsum": jnp.cumsum(x),
            "argmin": jnp.argmin(x),
            "argmax of rows": jnp.argmax(a, axis=1),
            "max": jnp.max(a),
            "min of columns": jnp.min(a, axis=0),
            "any": jnp.any(x > num - 1.5),
            "all": jnp.all(x >= 0),
            "entry": x[i],
            "row": a[i],
            "column": a[:, i],
            "set": x.at[i].set(7.0),
            "add": x.at[i].add(7.0),
            "row set": a.at[i].set(x),
            "diagonal": jnp.diagonal(a),
            "diag": jnp.diag(x),
            "transpose": a.T,
            "stack": jnp.stack([x, 2 * x, 3 * x]),
            "product": a @ positive,
            "products": jnp.stack([x, x, x]) @ a,
            "of vectors": x @ a @ x,
            "inner": x @ x,
            "solved": jax.scipy.linalg.cho_solve(factor, x),
            "solved by the other half": jax.scipy.linalg.cho_solve(upper, x),
            "solved for a matrix": jax.scipy.linalg.cho_solve(factor, a),
        }

    found = interpreted(operations, x, i, a, positive)
    x64, a64, p64 = (np.asarray(v, np.float64) for v in (x, a, positive))
    changed, added, rows = x64.copy(), x64.copy(), a64.copy()
    changed[i], rows[i] = 7, x64
    added[i] += 7
    expected = {
        "sort": np.sort(x64),
        "reversed": x64[::-1],
        "cumsum": np.cumsum(x64),
        "argmin": np.argmin(x64),
        "argmax of rows": np.argmax(a64, axis=1),
        "max": a64.max(),
        "min of columns": a64.min(axis=0),
        "any": np.any(x64 > num - 1.5),
        "all": np.all(x64 >= 0),
        "entry": x64[i],
        "row": a64[i],
        "column": a64[:, i],
        "set": changed,
        "add": added,
        "row set": rows,
        "diagonal": np.diagonal(a64),
        "diag": np.diag(x64),
        "transpose": a64.T,
        "stack": np.stack([x64, 2 * x64, 3 * x64]),
        "product": a64 @ p64,
        "products": np.stack([x64, x64, x64]) @ a64,
        "of vectors": x64 @ a64 @ x64,
        "inner": x64 @ x64,
        "solved": np.linalg.solve(p64, x64),
        "solved by the other half": np.linalg.solve(p64, x64),
        "solved for a matrix": np.linalg.solve(p64, a64),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)
        assert found[name].shape == value.shape


def test_not_a_number_is_seen_in_a_kernel():
    x = np.array([1.0, np.nan, 0.0], np.float32)
    sums = interpreted(lambda x: (jnp.max(x), jnp.min(x), jnp.argmin(x), jnp.argmax(x)), x)
    np.testing.assert_array_equal(sums, [np.nan, np.nan, 1, 1])
    found = interpreted(lambda x: (jnp.maximum(x, 0.5), jnp.minimum(x, 0.5)), x)
    np.testing.assert_array_equal(found, [[1, np.nan, 0.5], [0.5, np.nan, 0]])
    # Of a matrix that has no factor, none is found.
    factor = interpreted(lambda a: jax.scipy.linalg.cho_factor(a)[0], np.diag([1, -1, 1.0]))
    assert np.isnan(factor).any()
