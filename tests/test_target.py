"""What a program is lowered for decides about its code, not the machine that it is written on."""

import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import jaxmtl
from jaxmtl._platform import made_once
from jaxmtl.backward import _xla_cpu
from jaxmtl.backward._linearise import CACHE
from jaxmtl.balancing._entries import all_finite
from jaxmtl.balancing._gram import gramian
from tests.references import relative_error

OTHERS = ("cuda", "tpu")
# A convolution with its features last, as the way back from NCHW has it on CPU alone.
FEATURES_LAST = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"


def losses_fn(params, images):
    """Of a convolution and a layer, and large enough for a loop over the tasks on CPU."""
    h = lax.conv_general_dilated(images, params["kernel"], (1, 1), "SAME")
    h = jnp.tanh(jnp.mean(jax.nn.relu(h), axis=(2, 3)) @ params["layer"])
    return jnp.mean((h - 1) ** 2, axis=0)


IMAGES = jax.ShapeDtypeStruct((64, 3, 64, 64), jnp.float32)
assert CACHE < 3 * 64 * 4 * 64 * 64 * 4


def params():
    rng = np.random.default_rng(0)
    shapes = {"kernel": (4, 3, 3, 3), "layer": (4, 3)}
    return {name: rng.normal(size=s).astype(np.float32) / 3 for name, s in shapes.items()}


def make_step(balancer):
    optimizer = optax.chain(balancer, optax.sgd(0.1))

    @jax.jit
    def step(params, opt_state, images):
        losses, grads = jaxmtl.value_and_task_grads(losses_fn)(params, images)
        updates, opt_state = optimizer.update(grads, opt_state, params, losses=losses)
        return optax.apply_updates(params, updates), opt_state

    return step, optimizer.init(params())


def texts(platform, function, *args):
    """The program as exported for a platform, and as lowered ahead of time."""
    exported = jax.export.export(jax.jit(function), platforms=[platform])(*args)
    lowered = jax.jit(function).trace(*args).lower(lowering_platforms=(platform,))
    return exported.mlir_module(), lowered.as_text()


@pytest.fixture
def warned(monkeypatch):
    """Count the warnings of a compiler that is to be warned of, whichever is installed."""
    told = []

    def warn(message, *_, **__):
        told.extend([message] * message.startswith("jaxlib"))

    monkeypatch.setattr(_xla_cpu, "_is_affected", lambda: True)
    monkeypatch.setattr(_xla_cpu, "_is_decided", lambda: False)
    monkeypatch.setattr(warnings, "warn", warn)
    _xla_cpu._tell_once.cache_clear()
    yield told
    _xla_cpu._tell_once.cache_clear()


@pytest.mark.parametrize("platform", OTHERS)
def test_a_program_for_another_target_has_nothing_of_the_cpu(platform, warned):
    step, state = make_step(jaxmtl.mgda())
    for text in texts(platform, step, params(), state, IMAGES):
        assert text.count("stablehlo.convolution") == 2  # forward, and back for all tasks
        assert FEATURES_LAST not in text
        # The cotangents of all tasks at the convolution: one pass for all, and no loop over them.
        assert "tensor<3x64x4x64x64xf32>" in text
    assert warned == []


@pytest.mark.parametrize("num_tasks", [3, 5])
@pytest.mark.parametrize("platform", OTHERS)
def test_the_gramian_for_another_target_has_few_contractions_and_no_loop(platform, num_tasks):
    shapes = [(5000, 100), (300, 300), (300, 2), (7,), ()]
    leaves = [jax.ShapeDtypeStruct((num_tasks, *shape), jnp.float32) for shape in shapes]
    for text in texts(platform, gramian, leaves):
        # Two large leaves over all of their axes, as they are, and the small ones in one.
        assert text.count("contracting_dims = [1, 2] x [1, 2]") == 2
        assert text.count("stablehlo.dot_general") == 3
        assert f"tensor<{num_tasks}x608xf32>" in text
        assert "stablehlo.while" not in text


@pytest.mark.parametrize("platform", [*OTHERS, "cpu"])
def test_what_several_read_is_made_once_on_gpus_only(platform):
    small, large = (3, 2**16), (3, 2**16 + 1)
    leaves = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (small, large)]
    for text in texts(platform, made_once, leaves):
        made = [line for line in text.splitlines() if "stablehlo.optimization_barrier" in line]
        assert len(made) == (platform == "cuda")
        assert all(f"tensor<3x{large[1]}xf32>" in line for line in made)


def test_a_program_for_the_cpu_is_todays(warned):
    step, state = make_step(jaxmtl.mgda())
    for text in texts("cpu", step, params(), state, IMAGES):
        assert text.count(FEATURES_LAST) == 1
        assert "tensor<3x64x4x64x64xf32>" not in text
        assert "stablehlo.while" in text
    assert len(warned) == 1


def test_exported_for_the_cpu_and_run_the_numbers_are_those_of_the_program():
    step, state = make_step(jaxmtl.upgrad())
    images = np.random.default_rng(1).normal(size=IMAGES.shape).astype(np.float32)
    exported = jax.export.export(step, platforms=["cpu"])(params(), state, IMAGES)
    assert exported.platforms == ("cpu",)
    found, _ = exported.call(params(), state, images)
    wanted, _ = step(params(), state, images)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_one_program_for_several_targets_holds_the_code_of_each():
    step, state = make_step(jaxmtl.upgrad())
    exported = jax.export.export(step, platforms=["cpu", "cuda"])(params(), state, IMAGES)
    images = np.random.default_rng(1).normal(size=IMAGES.shape).astype(np.float32)
    found, _ = exported.call(params(), state, images)
    wanted, _ = step(params(), state, images)
    for name, leaf in found.items():
        assert (
            relative_error(np.asarray(leaf - params()[name]), wanted[name] - params()[name]) < 1e-5
        )


def test_nothing_is_left_of_the_choices_in_the_compiled_program():
    step, state = make_step(jaxmtl.normalize())
    assert "conditional" not in step.lower(params(), state, IMAGES).compile().as_text()


def on_meshes(code):
    """Run lines in a process with eight CPU devices; what they print."""
    cure = _xla_cpu.CURE if _xla_cpu._is_affected() else ""
    flags = f"{cure} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "NPROC": "16", "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


SHARDED_OR_NOT = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from jaxmtl.balancing._gram import gramian

J = np.random.default_rng(0).normal(size=(5, 8, 4000)).astype(np.float32)
EXACT = np.einsum("ixy,jxy->ij", J.astype(np.float64), J)

def told(function, *args, run=True):
    lowered = jax.jit(function).trace(*args).lower(lowering_platforms=("cpu",))
    whole = "contracting_dims = [1, 2] x [1, 2]" in lowered.as_text()
    if run:
        found = np.asarray(lowered.compile()(*args))
        np.testing.assert_allclose(found, EXACT, atol=1e-6 * np.max(np.diag(EXACT)))
    print("whole" if whole else "blocks")

def of(leaf):
    return gramian([leaf])

spec = PartitionSpec(None, "data")
told(of, jnp.asarray(J))  # on one of eight devices
told(of, jax.device_put(J, jax.devices()[3]))
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    told(of, jax.device_put(J, NamedSharding(mesh, spec)))
    told(lambda leaf: of(jnp.tanh(leaf) * 0 + leaf), jax.device_put(J, NamedSharding(mesh, spec)))
    with jax.set_mesh(mesh):
        told(lambda leaf: of(leaf), J)
sharding = NamedSharding(AbstractMesh((16,), ("data",), axis_types=(AxisType.Auto,)), spec)
told(of, jax.ShapeDtypeStruct((5, 16, 2), np.float32, sharding=sharding), run=False)
"""


@pytest.mark.parametrize(("kind", "sums"), [(AxisType.Explicit, 1), (AxisType.Auto, 0)])
@pytest.mark.parametrize("function", [gramian, all_finite])
def test_on_explicit_axes_one_sum_over_the_devices_is_asked_for(function, kind, sums):
    """On others XLA decides, when it compiles."""
    mesh = AbstractMesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
    specs = [("data", "model"), ("model", "data"), (("data", "model"),), ("model",), ()]
    leaves = [
        jax.ShapeDtypeStruct(
            (3, *[8] * len(spec), 5),
            jnp.float32,
            sharding=NamedSharding(mesh, PartitionSpec(None, *spec)),
        )
        for spec in specs
    ]
    for function_of in (function, jax.vmap(function)):
        lowered = jax.jit(function_of).trace(leaves).lower(lowering_platforms=("tpu",))
        assert lowered.as_text().count("stablehlo.all_reduce") == sums
        leaves = [  # for the second: one axis more, in front
            jax.ShapeDtypeStruct(
                (2, *leaf.shape),
                leaf.dtype,
                sharding=NamedSharding(mesh, PartitionSpec(None, *leaf.sharding.spec)),
            )
            for leaf in leaves
        ]


@pytest.mark.slow
def test_what_is_sharded_is_told_by_the_arguments_not_by_the_number_of_devices():
    sharded = ["whole"] * 3
    assert on_meshes(SHARDED_OR_NOT) == ["blocks", "blocks", *sharded, *sharded, "whole"]
