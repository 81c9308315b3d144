"""What every problem of the registry keeps to, as far as its data are here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmtl import problems, theory
from jaxmtl.problems import PROBLEMS

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture(scope="module", params=PROBLEMS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def problem(name):
    try:
        return problems.load(name)
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(str(error))


def test_every_name_in_a_dictionary_is_a_task_in_leaf_order(problem):
    params = problem.init(jax.random.key(0))
    assert set(params) == {"trunk", "heads"}
    assert set(params["heads"]) <= set(problem.tasks)
    if problem.sample is None:
        batch = {name: array[: problem.batch] for name, array in problem.train.items()}
    else:
        batch = jax.jit(problem.sample)(jax.random.key(1))
    losses = jax.jit(problem.losses)(params, batch)
    assert tuple(losses) == tuple(sorted(problem.tasks)) == problem.tasks
    assert all(np.shape(loss) == () and np.isfinite(loss) for loss in losses.values())
    metrics = jax.jit(problem.metrics)(params, problem.test)
    assert all(np.shape(metric) == () and np.isfinite(metric) for metric in metrics.values())
    for values in (
        metrics,
        problem.maximize,
        problem.metric_names,
        problem.prior_values,
        problem.standardisation,
    ):
        assert values is None or set(values) == set(problem.tasks)


def test_the_data_are_the_same_at_every_call(name, problem):
    again = problems.load(name)
    for split in ("train", "validation", "test"):
        data, rows = getattr(problem, split) or {}, set()
        for key, array in data.items():
            np.testing.assert_array_equal(array, getattr(again, split)[key])
            assert np.all(np.isfinite(array))
            rows.add(len(array))
        assert len(rows) == bool(data)


# The losses of a model that outputs zeros, from a problem and its training data.
ZERO_OUTPUT = {
    "digits": lambda problem, train: {
        "left": theory.zero_output_cross_entropy(10),
        "right": theory.zero_output_cross_entropy(10),
        "reconstruction": theory.zero_output_squared_error(train["image"]),
        "sum": theory.zero_output_squared_error(train["sum"]),
    },
    "multi_fashion": lambda problem, train: dict.fromkeys(
        problem.tasks, theory.zero_output_cross_entropy(10)
    ),
    "qm9": lambda problem, train: {
        task: theory.zero_output_squared_error(column)
        for task, column in zip(problem.tasks, train["targets"].T, strict=True)
    },
    "yeast": lambda problem, train: dict.fromkeys(
        problem.tasks, theory.zero_output_cross_entropy(2)
    ),
}


def test_a_model_of_zeros_starts_where_theory_says(name, problem):
    if name not in ZERO_OUTPUT:
        pytest.skip(f"{problem.name} has no theory")
    zero = jax.tree.map(jnp.zeros_like, problem.init(jax.random.key(0)))
    losses = jax.jit(problem.losses)(zero, problem.train)
    expected = ZERO_OUTPUT[name](problem, problem.train)
    assert set(expected) == set(problem.tasks)
    for task, value in expected.items():
        np.testing.assert_allclose(losses[task], value, rtol=1e-4)
        assert problem.prior_values[task] <= value * (1 + 1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"name must be one of digits, toy, .* but it is .yeats"):
        problems.load("yeats")
