"""NTK weights: every loss made to fall at the rate of the whole."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._checks import (
    check_callable,
    check_choice,
    check_floating,
    check_num_tasks,
    check_share,
    static_count,
)
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import solve_dtype
from jaxmtl.balancing._random_keys import typed_key
from jaxmtl.gradients._shares import average_shares
from jaxmtl.solvers.scaling import reciprocal


class NTKState(NamedTuple):
    """The (T,) averaged weights."""

    weights: Array


@described
def ntk(num_tasks: int, *, decay: float = 0.9) -> Balancer:
    """Weigh by the traces of the neural tangent kernels, mean_j tr K_j / tr K_i, averaged.

    K_i holds the inner products of the gradients of task i's residuals, one for each point; its
    trace is how fast that loss falls under gradient descent. No Gramian of the losses tells it, so
    it comes as an argument: ``traces, errors = jaxmtl.ntk_traces(residuals_fn, params, key)``, then
    ``update(..., ntk_traces=traces)``.

    Args:
      num_tasks: T.
      decay: the share of the old weights, which start at one.

    Returns:
      A balancer that reads the traces alone. Scale: T g on T identical gradients g with equal
      traces. Degree 1. Absent tasks keep their weights, and so do those with a trace of zero.
      Traces change slowly: compute them every 1000 steps or so, and pass the last ones in between,
      with ``every(ntk(T), 1000)``.

    Deviations from the paper: the mean over the tasks, where the paper has T times that, and the
    average over the steps, as jaxpi has both. The paper's losses are sums over the points;
    ``ntk_traces`` takes them for means, unless told.

    Raises:
      ValueError: for a ``decay`` outside [0, 1); at update, if ``ntk_traces`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.ntk(2, decay=0.0)
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, _ = balancer.update(jnp.eye(2), state, ntk_traces=jnp.array([3.0, 1.0]))
      >>> print(updates.round(4))
      [0.6667 2.    ]

    References:
      Wang, Yu & Perdikaris, `When and Why PINNs Fail to Train: A Neural Tangent Kernel Perspective
      <https://arxiv.org/abs/2007.14527>`_, 2022
    """
    check_num_tasks(num_tasks)
    check_share("decay", decay)

    def init(dtype: jnp.dtype) -> NTKState:
        return NTKState(jnp.ones(num_tasks, dtype))

    def update(given: Given, state: NTKState) -> tuple[Array, NTKState]:
        traces = jnp.abs(given.extra["ntk_traces"])
        weights = average_shares(state.weights, traces, given.active, decay)
        return weights, NTKState(weights)

    extra = frozenset({"ntk_traces"})
    return make_balancer(Weighting(init, update, frozenset(), num_tasks, extra=extra))


class NTKTraces(NamedTuple):
    """Estimates of the traces of the tasks' neural tangent kernels.

    Attributes:
      traces: a tree like that of the residuals, of scalars; what ``update(..., ntk_traces=traces)``
        takes.
      standard_errors: a tree of the same structure: how far the traces may be off. Zero where they
        are exact.
    """

    traces: PyTree
    standard_errors: PyTree


def ntk_traces(
    residuals_fn: Callable[[PyTree], PyTree],
    params: PyTree,
    key: Array | int,
    *,
    num_probes: int = 16,
    reduction: str = "mean",
) -> NTKTraces:
    """Estimate the traces of the tasks' neural tangent kernels without forming them.

    tr K_i = sum over points p of ||grad r_p||^2. With J the Jacobian of task i's residuals, K their
    kernel J J', and Q an orthonormal basis of K S for a few columns S of random signs,

        tr K  ~  ||J' Q||^2  +  mean over random signs e of ||J' (I - Q Q') e||^2.

    The kernels of physics-informed networks have few large eigenvalues. The first term is exact on
    those; the second, with little left to vary, estimates the rest.

    Args:
      residuals_fn: params -> a tree of residual arrays, one leaf of any shape for each task.
      params: where.
      key: a JAX random key (or an int seed) for the signs.
      num_probes: passes through each task's residuals: three quarters backward, one quarter
        forward. A task of no more entries than that has its trace exactly, entry by entry.
      reduction: how the losses come from the residuals. "mean": mean of squares, as in most PINN
        codes, and each trace is divided by the number of the residual's entries; "sum": sum of
        squares, and it is not.

    Returns:
      The traces, and their standard errors. On two networks for Burgers' equation (viscosity
      0.01 / pi, 400 points inside, 50 on an edge), before and after training, the default was off
      by 6 % at most (root mean square), with 8 probes by 26 %, with 32 by 1 %; the mean over 16
      plain random signs by 19 to 34 %, a single one by 74 to 138 %.

    Raises:
      ValueError: if ``num_probes`` is no whole number of at least 8, ``reduction`` is unknown,
        ``key`` is none, or a residual has no entries.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> def residuals(x):
      ...     return {"boundary": 3.0 * x[:1], "inside": x}
      >>> traces, errors = jaxmtl.ntk_traces(residuals, jnp.ones(4), 0)
      >>> {name: float(trace) for name, trace in traces.items()}  # each point's, on average
      {'boundary': 9.0, 'inside': 1.0}
      >>> traces, errors = jaxmtl.ntk_traces(residuals, jnp.ones(4), 0, reduction="sum")
      >>> {name: float(trace) for name, trace in traces.items()}
      {'boundary': 9.0, 'inside': 4.0}

    References:
      Meyer, Musco, Musco & Woodruff, `Hutch++: Optimal Stochastic Trace Estimation
      <https://arxiv.org/abs/2010.09649>`_, 2021
    """
    check_callable("residuals_fn", residuals_fn, "params -> residuals")
    check_floating("parameter", params)
    num_probes = static_count("num_probes", num_probes, 8)
    check_choice("reduction", reduction, ("mean", "sum"))

    def residuals_of(params: PyTree) -> PyTree:
        residuals = residuals_fn(params)
        check_floating("residual", residuals)
        return jax.tree.map(jnp.asarray, residuals)

    shapes, treedef = jax.tree.flatten(jax.eval_shape(residuals_of, params))
    if not shapes or not all(math.prod(leaf.shape) for leaf in shapes):
        raise ValueError(
            "residuals_fn must return a tree of arrays with at least one entry each, one array a"
            f" task, but their shapes are {[leaf.shape for leaf in shapes]}."
        )
    estimates = []
    for i, task_key in enumerate(jax.random.split(typed_key(key), len(shapes))):
        # A function for each task: the others' residuals are not differentiated along.
        of_task = lambda p, i=i: jnp.ravel(jax.tree.leaves(residuals_of(p))[i])  # noqa: E731
        trace = _trace(of_task, params, task_key, num_probes)
        entries = math.prod(shapes[i].shape) if reduction == "mean" else 1
        estimates.append([value / entries for value in trace])
    traces, errors = zip(*estimates, strict=True)
    return NTKTraces(jax.tree.unflatten(treedef, traces), jax.tree.unflatten(treedef, errors))


def _trace(
    of_task: Callable[[PyTree], Array], params: PyTree, key: Array, num_probes: int
) -> tuple[Array, Array]:
    """The trace of J J' for one task's residuals, and its standard error."""
    residuals, backward = jax.vjp(of_task, params)
    forward = jax.linear_transpose(lambda cotangent: backward(cotangent)[0], residuals)
    dtype = solve_dtype([residuals, *jax.tree.leaves(params)])
    size = len(residuals)

    def pull_back(vector: Array) -> PyTree:
        return backward(vector.astype(residuals.dtype))[0]

    def squares(vectors: Array) -> Array:  # ||J' v||^2 for each row v
        def square(vector: Array) -> Array:
            leaves = jax.tree.leaves(pull_back(vector))
            return jnp.sum(jnp.stack([jnp.sum(jnp.square(leaf.astype(dtype))) for leaf in leaves]))

        return jax.vmap(square)(vectors)

    if size <= num_probes:
        return jnp.sum(squares(jnp.eye(size, dtype=dtype))), jnp.zeros((), dtype)
    sketched = num_probes // 4
    signs = jax.random.rademacher(key, (num_probes - 2 * sketched, size), dtype)
    sketch, rest = signs[:sketched], signs[sketched:]
    with jax.default_matmul_precision("highest"):
        images = jax.vmap(lambda vector: forward(pull_back(vector))[0])(sketch).astype(dtype)
        # In units of the largest entry: the squares of squared gradients leave float32's range.
        basis = jnp.linalg.qr(images.T * reciprocal(jnp.max(jnp.abs(images))))[0].T
        rest = squares(rest - (rest @ basis.T) @ basis)
    unit = jnp.max(rest)
    error = unit * jnp.std(rest * reciprocal(unit), ddof=1) / math.sqrt(len(rest))
    return jnp.sum(squares(basis)) + jnp.mean(rest), error
