"""Direct normalisation of each gradient."""

import numbers
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmtl._checks import check_at_least, check_share
from jaxmtl._task_names import common_names
from jaxmtl._typing import Array, TaskVector
from jaxmtl.balancing._averages import follow
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._rounding import leave_out_rounding
from jaxmtl.losses._first_losses import init_first_losses, observe, relative_losses
from jaxmtl.losses._lower_bounds import excess, known_excess, read_lower_bounds
from jaxmtl.losses._sizes import read_size


class NormalizeState(NamedTuple):
    """The method's state; entries that are not needed are empty.

    Attributes:
      first: the initial losses, for the rate adjustment.
      norms: (T,) averaged norms of the gradients.
      steps: (T,) int32, the number of steps in each average.
    """

    first: Any = ()
    norms: Any = ()
    steps: Any = ()


@described
def normalize(
    *,
    alpha: float = 0.0,
    decay: float = 0.0,
    reference: str | float = 1.0,
    num_tasks: int | None = None,
    initial_losses: TaskVector | None = None,
    lower_bounds: TaskVector | None = None,
) -> Balancer:
    """Weigh each task by the reciprocal of its gradient's norm, w_i = R r_i^alpha / ||g_i||.

    GradNorm approaches these weights by learning; here they hold at every step. With ``alpha``
    above zero they have GradNorm's rate adjustment r_i = (L_i/L_i(0)) / mean_j(L_j/L_j(0)), so
    that tasks that train slowly have larger weights. With ``decay`` above zero ||g_i|| is an
    average over the steps: at the features, with ``prioritise``, this is EnCodec's balancer.

    Args:
      alpha: strength of the rate adjustment; 0 is none.
      decay: the share of the old norm in the average, which is corrected for its start; 0 uses
        each step's norm alone, EnCodec uses 0.999.
      reference: R, the length to which every gradient is scaled, or the name of the task whose
        gradient has it, such as "reconstruction" (the losses are then passed to ``update`` by
        name).
      num_tasks: T; needed for the rate adjustment and the average, which are kept for each task,
        and to keep the task weights in the state.
      initial_losses: (T,) array or tree of scalars, L_i(0) if theory gives it; if None, the first
        loss of each task.
      lower_bounds: (T,) array or tree of scalars b, lower bounds of the losses; in the rate
        adjustment L - b replaces L. Zeros if None. Needed for losses that may be negative or cross
        zero. A loss below its bound counts as zero.

    Returns:
      A balancer that reads the Gramian, and the losses if ``alpha`` is not 0. Scale: the sum of
      T vectors of length R, T R g/||g|| on T identical gradients g. Degree 0, or 1 with a reference
      by name: plain gradient descent keeps its step length to the end, so put a normalising
      optimizer such as Adam after it, or decay the learning rate. A gradient of zero stays zero. A
      gradient that is merely small, of a task that is almost solved, counts as much as any other,
      and so does one that is only rounding error (``skip_rounding`` leaves it out; ``every``,
      ``smooth`` and a ``decay`` do so already). If the reference is absent, or its gradient is
      zero, all weights are zero, unless a ``decay`` keeps its length.

    Raises:
      ValueError: for alpha < 0, a decay outside [0, 1), or a reference that is neither a name nor a
        number above zero; for a rate adjustment or an average without ``num_tasks``; at update,
        if ``losses`` are needed and missing, or none has the reference's name.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.normalize()
      >>> grads = jnp.array([[3.0, 4.0], [0.0, 100.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates)
      [0.6 1.8]

    References:
      Proposed without a name in `Strategies for Balancing Multiple Loss Functions in Deep
      Learning`; the rate adjustment is that of Chen et al., `GradNorm
      <https://arxiv.org/abs/1711.02257>`_, 2018; the average that of Défossez, Copet, Synnaeve &
      Adi, `High Fidelity Neural Audio Compression <https://arxiv.org/abs/2210.13438>`_, 2022
    """
    check_at_least("alpha", alpha, 0)
    check_share("decay", decay)
    weigh, named = read_size(reference)
    bounds, num_tasks = read_lower_bounds(lower_bounds, num_tasks)
    adjusts, averages = (not isinstance(x, numbers.Real) or x != 0 for x in (alpha, decay))
    for argument, value in [("initial_losses", initial_losses), ("lower_bounds", lower_bounds)]:
        if value is not None and not adjusts:
            raise ValueError(f"{argument} are for the rate adjustment: pass an alpha above 0.")
    if num_tasks is None and (adjusts or averages):
        what = "a rate adjustment (alpha" if adjusts else "an average (decay"
        raise ValueError(
            f"normalize with {what} other than 0) keeps values for each task, and so needs their"
            f" number: write normalize({'alpha' if adjusts else 'decay'}=..., num_tasks=...)."
            " Inside optax.inject_hyperparams, list alpha and decay in static_args if they are"
            " 0."
        )
    kept = num_tasks or 0
    known = known_excess("initial_losses", initial_losses, kept, bounds) if adjusts else None

    def init(dtype: jnp.dtype) -> NormalizeState:
        state = NormalizeState()
        if adjusts:
            state = state._replace(first=init_first_losses(kept, known, dtype))
        if averages:
            zeros, none = jnp.zeros(kept, dtype), jnp.zeros(kept, jnp.int32)
            state = state._replace(norms=zeros, steps=none)
        return state

    def update(given: Given, state: NormalizeState) -> tuple[Array, NormalizeState]:
        norms, active = jnp.sqrt(jnp.diagonal(given.gramian)), given.active
        if averages:
            norms, steps = follow(state.norms, state.steps, norms, active, decay)
            state = state._replace(norms=norms, steps=steps)
        place = given.named.get("reference")
        # With an average, an absent reference still has a length.
        weights = weigh(norms, None if place is None else place & (active | averages))
        if adjusts:
            losses = excess(given.losses, bounds)
            state = state._replace(first=observe(state.first, losses, active))
            weights *= relative_losses(state.first, losses, active) ** alpha
        return weights, state

    reads = frozenset({"losses", "gramian"} if adjusts else {"gramian"})
    names = common_names(initial_losses=initial_losses, lower_bounds=lower_bounds)
    weighting = Weighting(init, update, reads, num_tasks, names, named=named)
    return make_balancer(leave_out_rounding(weighting) if averages else weighting)
