"""Inside ``shard_map`` gradients are those of all examples, or a sentence says why not."""

import numpy as np
import pytest

from tests import references
from tests.devices import manual
from tests.test_many_devices import run_program

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("many_devices")]

kinds = pytest.mark.parametrize("kind", manual.OF_LOSSES)


@pytest.fixture(scope="module")
def results():
    return run_program("manual", devices=8)


def assert_on_each_device(result, losses, grads):
    assert not isinstance(result, str), result
    found = np.asarray(result["losses"]), np.asarray(result["grads"])
    for actual, wanted in zip(found, (losses, grads), strict=True):
        for of_device in actual:
            assert references.relative_error(of_device, wanted) < 1e-6


def mapped(way):
    reason = "this jax maps no sum over devices"
    return pytest.param(way, marks=pytest.mark.skipif(not manual.MAPS_SUMS, reason=reason))


@kinds
@pytest.mark.parametrize("way", [mapped("checked"), "checked, one by one", "unchecked, means"])
def test_task_gradients_are_those_of_all_examples(results, kind, way):
    assert_on_each_device(results[kind][way], *manual.exact())


@kinds
def test_gradients_of_each_devices_own_losses_are_summed_as_those_of_jax_are(results, kind):
    if not manual.MAPS_SUMS and kind == "array":
        pytest.skip("this jax maps no sum over devices")
    _, grads = manual.exact()
    result = results[kind]["own"]
    assert not isinstance(result, str), result
    for of_device in result["grads"]:
        assert references.relative_error(of_device, 8 * grads) < 1e-6


@kinds
@pytest.mark.parametrize("way", ["lean", mapped("stacked"), "stacked, one by one"])
def test_a_balanced_gradient_is_that_of_all_examples(results, kind, way):
    losses, grads = manual.exact()
    weights = references.min_norm_weights(grads.reshape(manual.NUM_TASKS, -1))
    assert_on_each_device(results[kind][way], losses, np.tensordot(weights, grads, 1))


@kinds
@pytest.mark.parametrize("way", ["unchecked, stacked", "unchecked, lean"])
def test_gradients_that_nobody_averages_are_refused(results, kind, way):
    assert "between value_and_task_grads and balancer.update" in results[kind][way]


@kinds
def test_what_reads_the_losses_only_is_not_refused(results, kind):
    """Its gradient is each device's own, as that of ``jax.grad`` is, and may be averaged after."""
    losses, grads = manual.exact()
    result = results[kind]["unchecked, losses only"]
    assert not isinstance(result, str), result
    average = np.mean(result["grads"], axis=0)
    assert references.relative_error(average, np.tensordot(1 / losses, grads, 1)) < 1e-5


@pytest.mark.skipif(not manual.MAPS_SUMS, reason="this jax maps no sum over devices")
def test_the_recipe_of_the_page_takes_the_step_of_one_device(results):
    found, wanted = results["page"]
    assert references.relative_error(np.array(found), np.array(wanted)) < 1e-5
