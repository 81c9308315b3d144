"""Learning-rate annealing: averaged weights bring the gradients to a common size."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmtl._checks import check_num_tasks, check_share
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Preparation, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import rows, solve_dtype
from jaxmtl.balancing._rounding import ROUNDINGS, is_rounding
from jaxmtl.gradients._one_task import read_one_task
from jaxmtl.gradients._shares import average_shares
from jaxmtl.solvers._one_launch import one_launch


class LRAnnealingState(NamedTuple):
    """The (T,) averaged weights."""

    weights: Array


@described
def lr_annealing(
    num_tasks: int, *, decay: float = 0.9, reference: int | str | TaskVector | None = None
) -> Balancer:
    """Weigh by the running average of mean_j ||g_j|| / ||g_i||, or of max |g_r| / mean |g_i|.

    w_i <- decay w_i + (1 - decay) mean_j ||g_j|| / ||g_i||, starting at one. jaxpi uses this to
    balance the residual, boundary and initial losses of physics-informed networks. At equilibrium
    all weighted gradients have the same norm, the mean of the raw norms.

    With a reference task r, the residual, the weights of the others approach
    max |g_r| / mean |g_i| over all entries, and the reference keeps weight one; this is the form of
    the first paper and of jinns. The largest entry is many times the mean entry, so all other
    gradients become longer than the reference's by this factor.

    Args:
      num_tasks: T.
      decay: the share of the old weights. (In jinns, ``decay`` is the share of the *new* weights.)
      reference: the name of the reference task, such as "residual" (the losses are then passed to
        ``update`` by name), its index, or one bool for each task, of which one is true.

    Returns:
      A balancer that reads the Gramian; with a reference, the largest and the mean entries of the
      stacked gradients of all leaves that it weighs. Scale: T g on T identical gradients g; with a
      reference 1 + (T - 1) max |g| / mean |g| times g, at equilibrium. Degree 1 in a common factor
      of all gradients at all steps. Absent tasks keep their weights, and all tasks do if the
      reference is absent. A gradient that is zero, or rounding error compared with the longest (8
      eps, as for ``skip_rounding``: a loss that starts at its exact minimum), is not measured, and
      its task keeps its weight too.

      Update the weights rarely, ``every(lr_annealing(T), 1000)``: at each step, with the default
      ``decay``, the weights follow the noise of the points, and when the residual is nearly solved
      they leave little for the other tasks. Burgers' equation (viscosity 0.01 / pi, three tanh
      points at each step, Adam), relative L2 errors, mean and standard deviation of five seeds:

      ==================================  ========================  ==========================
      weights                             4000 steps, rate 1e-3     8000 steps, 5e-3 to 0
      ==================================  ========================  ==========================
      one each                            0.426 (0.009)             0.132 (0.023)
      every 1000 steps                    0.430 (0.007)             0.120 (0.051)
      each step, decay 0.999              0.520 (0.013)             0.138 (0.055)
      each step, decay 0.9                0.828 (0.046)             0.612 (0.221)
      reference, every 1000 steps         0.332 (0.012)             0.286 (0.026)
      reference, each step, decay 0.999   0.412 (0.027)             0.353 (0.028)
      reference, each step, decay 0.9     0.479 (0.021)             0.391 (0.032)
      ``ntk``, every 1000 steps           0.407 (0.011)             0.096 (0.035)
      ``conflict_free``, each step        0.360 (0.042)             0.108 (0.014)
      ``upgrad``, each step               0.406 (0.015)             0.071 (0.007)
      ==================================  ========================  ==========================

      The start at one matters: averages that begin with the first measurement, as in other methods
      of this package, reach 0.519 (0.068) and 0.270 (0.179) every 1000 steps, and 0.718 (0.041) and
      0.499 (0.013) at each step with a decay of 0.999. The gradients of an untrained network are
      not a good guide. Weights of one for the first 1000 steps, by ``warm_up``, and updates every
      1000 steps from there on reach 0.470 (0.021) and 0.112 (0.028).

      With a reference, ``every`` saves no backward passes, since the stacked gradients are read at
      each step.

    Deviations from the papers: no constant is added to the divisors, so that gradients of any size
    are treated alike. The mean entry is over all parameters equally; jinns averages the sizes of
    the leaves' means over the leaves.

    Raises:
      ValueError: for a ``decay`` outside [0, 1) or a ``reference`` that is not one of T tasks; at
        update, if the losses do not have its name, or have other names than ``reference``.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> grads, params = jnp.array([[3.0, 0.0], [0.0, 1.0]]), jnp.zeros(2)
      >>> balancer = jaxmtl.lr_annealing(2, decay=0.0)
      >>> updates, _ = balancer.update(grads, balancer.init(params))
      >>> print(updates)  # both as long as they are on average
      [2. 2.]
      >>> balancer = jaxmtl.lr_annealing(2, decay=0.0, reference=0)
      >>> updates, _ = balancer.update(grads, balancer.init(params))
      >>> print(updates.round(4))  # 3 / 0.5 times the second
      [3. 6.]

    References:
      Wang, Teng & Perdikaris, `Understanding and Mitigating Gradient Flow Pathologies in
      Physics-Informed Neural Networks <https://arxiv.org/abs/2001.04536>`_, 2021

      Wang, Sankaran, Wang & Perdikaris, `An Expert's Guide to Training Physics-informed Neural
      Networks <https://arxiv.org/abs/2308.08468>`_, 2023
    """
    check_num_tasks(num_tasks)
    check_share("decay", decay)
    one = None if reference is None else read_one_task("reference", reference, num_tasks)

    def place(given: Given) -> Any:
        return None if one is None else one.place(given)

    def init(dtype: jnp.dtype) -> LRAnnealingState:
        return LRAnnealingState(jnp.ones(num_tasks, dtype))

    def update(given: Given, state: LRAnnealingState) -> tuple[Array, LRAnnealingState]:
        sizes, active = jnp.sqrt(jnp.diagonal(given.gramian)), given.active
        if one is None:
            weights = _averaged(state.weights, sizes, active, jnp.asarray(decay, sizes.dtype))
        else:
            weights = average_shares(state.weights, sizes, active, decay, place(given))
        return weights, LRAnnealingState(weights)

    def measure(grads: PyTree, given: Given, state: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        filled = [leaf for leaf in jax.tree.leaves(grads) if leaf.size]
        leaves = [leaf.astype(solve_dtype([leaf])) for leaf in filled]
        entries = sum(leaf[0].size for leaf in leaves)

        def over_leaves(reduce: Callable[..., Array]) -> Array:
            each = [reduce(jnp.abs(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in leaves]
            return reduce(jnp.stack(each), axis=0)

        means = over_leaves(jnp.sum) / entries
        sizes = jnp.where(place(given), over_leaves(jnp.max), means)
        # A largest entry says nothing about the rounding error of a mean.
        sizes = jnp.where(is_rounding(means, given.active, ROUNDINGS), 0, sizes)
        # Each row has one repeated entry, so for any set of leaves the norms have the ratios of the
        # sizes. The unit makes the norms over all leaves equal the sizes, whose squares are in
        # range.
        entry = sizes / math.sqrt(entries)
        alike = jax.tree.map(lambda leaf: jnp.broadcast_to(rows(entry, leaf), leaf.shape), grads)
        return alike, grads, state

    weighting = Weighting(
        init,
        update,
        frozenset({"gramian"}),
        num_tasks,
        None if one is None else one.names,
        named=() if one is None else one.named,
        roundings=0.0,  # the method leaves such tasks out itself, and holds their weights
    )
    sized = None if one is None else Preparation(lambda params: (), measure)
    return make_balancer(weighting, preparation=sized)


@one_launch
def _averaged(weights: Array, sizes: Array, active: Array, decay: Array) -> Array:
    """The average of mean_j ||g_j|| / ||g_i||, without tasks whose gradient is rounding error."""
    return average_shares(weights, sizes, active & ~is_rounding(sizes, active, ROUNDINGS), decay)
