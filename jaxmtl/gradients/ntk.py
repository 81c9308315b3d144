"""NTK weights: every loss made to fall at the rate of the whole."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_count, check_num_tasks, check_share
from jaxmtl._typing import Array, PyTree
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import solve_dtype
from jaxmtl.balancing._random_keys import typed_key
from jaxmtl.gradients._shares import average_shares


@described
def ntk(num_tasks: int, *, decay: float = 0.9) -> Balancer:
    """Weigh by the traces of the neural tangent kernels, sum_j tr K_j / tr K_i, averaged.

    K_i holds the inner products of the gradients of task i's residuals, one for each point; its
    trace is how fast that loss falls under gradient descent. No Gramian of the losses tells it, so
    it comes as an argument: ``update(..., ntk_traces=traces)``, from ``ntk_traces``.

    Args:
      num_tasks: T.
      decay: the share of the old weights, which start at one.

    Returns:
      A balancer that reads the traces alone. Scale: T (decay + (1 - decay) T) g on T identical
      gradients g with equal traces at the first step, T^2 g at rest. Degree 1. Absent tasks keep
      their weights. Traces change slowly: compute them every 1000 steps or so, and pass the last
      ones in between, with ``every(ntk(T), 1000)``.

    Deviations from the paper: the average over the steps, which later practice has added; 0 gives
    the paper's. For residuals that are averaged over N_i points, divide each trace by N_i.

    Raises:
      ValueError: for a ``decay`` outside [0, 1); at update, where ``ntk_traces`` are missing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.ntk(2, decay=0.0)
      >>> state = balancer.init(jnp.zeros(2))
      >>> updates, _ = balancer.update(jnp.eye(2), state, ntk_traces=jnp.array([3.0, 1.0]))
      >>> print(updates.round(4))
      [1.3333 4.    ]

    References:
      Wang, Yu & Perdikaris, `When and Why PINNs Fail to Train: A Neural Tangent Kernel Perspective
      <https://arxiv.org/abs/2007.14527>`_, 2022
    """
    check_num_tasks(num_tasks)
    check_share("decay", decay)

    def update(given: Given, weights: Array) -> tuple[Array, Array]:
        traces = jnp.abs(given.extra["ntk_traces"])
        weights = average_shares(weights, traces, given.active, decay)
        return weights, weights

    return make_balancer(
        Weighting(
            lambda dtype: jnp.ones(num_tasks, dtype),
            update,
            frozenset(),
            num_tasks,
            extra=frozenset({"ntk_traces"}),
        )
    )


def ntk_traces(
    residuals_fn: Callable[[PyTree], PyTree],
    params: PyTree,
    key: Array | int,
    *,
    num_probes: int = 1,
) -> PyTree:
    """Estimate the traces of the tasks' neural tangent kernels without forming them.

    tr K_i = sum over points of ||grad r_p||^2 = E ||grad sum_p e_p r_p||^2 with random signs e_p: T
    backward passes a probe, however many points there are.

    Args:
      residuals_fn: params -> a tree of residual arrays, one leaf of any shape for each task.
      params: where.
      key: a JAX random key (or an int seed) for the signs.
      num_probes: how many estimates are averaged. The relative error of one is at most
        sqrt(2), usually far less; that of n is smaller by sqrt(n).

    Returns:
      A tree like that of the residuals, of scalars.

    Raises:
      ValueError: where ``num_probes`` is not a positive int or ``key`` is none.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> def residuals(x):
      ...     return {"boundary": 3.0 * x[:1], "inside": x}
      >>> traces = jaxmtl.ntk_traces(residuals, jnp.ones(4), 0)
      >>> {name: float(trace) for name, trace in traces.items()}
      {'boundary': 9.0, 'inside': 4.0}

    References:
      Hutchinson, `A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian
      Smoothing Splines <https://doi.org/10.1080/03610919008812866>`_, 1990
    """
    check_count("num_probes", num_probes)
    residuals, pull_back = jax.vjp(lambda p: jax.tree.map(jnp.asarray, residuals_fn(p)), params)
    leaves, treedef = jax.tree.flatten(residuals)
    dtype = solve_dtype(jax.tree.leaves(params))

    def square(tree: PyTree) -> Array:
        sums = [jnp.sum(jnp.square(leaf.astype(dtype))) for leaf in jax.tree.leaves(tree)]
        return jnp.sum(jnp.stack(sums))

    def probe(key: Array) -> list[Array]:
        def trace(task: int, key: Array) -> Array:
            signs: list[Any] = [jnp.zeros_like(leaf) for leaf in leaves]
            signs[task] = jax.random.rademacher(key, leaves[task].shape, leaves[task].dtype)
            return square(pull_back(jax.tree.unflatten(treedef, signs))[0])

        return [trace(i, k) for i, k in enumerate(jax.random.split(key, len(leaves)))]

    probes = jax.lax.map(probe, jax.random.split(typed_key(key), num_probes))
    return jax.tree.unflatten(treedef, [jnp.mean(traces) for traces in probes])
