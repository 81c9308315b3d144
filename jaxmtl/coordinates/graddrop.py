"""GradDrop: at each coordinate, the gradients of one sign."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmtl._checks import check_range, optional_num_tasks
from jaxmtl._platform import made_once
from jaxmtl._task_names import common_names
from jaxmtl._task_values import task_vector
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Preparation, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.balancing._gram import rows, solve_dtype
from jaxmtl.balancing._random_keys import next_keys, stored, typed_key


class GradDropState(NamedTuple):
    """The random key of the next step."""

    key_data: Array


@described
def graddrop(
    key: Array | int, *, leak: float | TaskVector = 0.0, num_tasks: int | None = None
) -> Balancer:
    """Keep, at each coordinate, the gradients of one sign, drawn by how much the sign prevails.

    P = (1 + sum_i g_i / sum_i |g_i|) / 2 is the purity of the positive sign. With U uniform on
    [0, 1), the positive entries stay where U < P and the negative ones elsewhere; the others shrink
    to the share l_i of themselves; d is the sum over tasks.

    Args:
      key: a JAX random key (or an int seed); it is kept in the state and split at every step.
      leak: the share l_i that dropped entries keep, from 0 to 1: one number for all tasks, or a
        (T,) array or tree of scalars with one for each. The gradient of a task with a leak of 1 is
        never dropped, and still counts in the purity.
      num_tasks: T; needed to keep the task weights, which are all 1, in the state, unless ``leak``
        has one number for each task.

    Returns:
      A balancer that works on coordinates, not on task weights: it reads neither losses nor
      Gramian. Scale: T g on T identical gradients g. Degree 1. On average over U it is the sum of
      the gradients at coordinates where all agree.

    Deviations from the paper: it masks the gradients of the parameters; the paper masks the
    gradients of a layer's activations, multiplied by the activations' sign.

    Raises:
      ValueError: for a ``leak`` outside [0, 1] or of another length than ``num_tasks``, or a
        ``key`` that is not a random key; at update, if the losses have other names than ``leak``.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.graddrop(0)
      >>> grads = jnp.array([[1.0, 2.0, -3.0], [1.0, -2.0, -1.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(3)))
      >>> print(abs(updates))  # all agree; one of two; all agree
      [2. 2. 4.]

    References:
      Chen et al., `Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout
      <https://arxiv.org/abs/2010.06808>`_, 2020
    """
    key = typed_key(key)
    num_tasks, names = optional_num_tasks(num_tasks), None
    if jax.tree_util.all_leaves([leak]) and np.ndim(leak) == 0:
        check_range("leak", leak, 0, 1)
    else:
        names = common_names(leak=leak)
        leak = task_vector("leak", leak, num_tasks)
        num_tasks = leak.shape[0]
        if not isinstance(leak, jax.core.Tracer) and not np.all((leak >= 0) & (leak <= 1)):
            raise ValueError(f"leak must be from 0 to 1 for every task, but it is {leak}.")

    def mask(
        grads: PyTree, given: Given, state: GradDropState
    ) -> tuple[PyTree, PyTree, GradDropState]:
        next_key, step_key = next_keys(state.key_data, key)
        leaves, treedef = jax.tree.flatten(made_once(grads))

        def pick(leaf: Array, key: Array) -> Array:
            wide = leaf.astype(solve_dtype([leaf]))
            size = jnp.sum(jnp.abs(wide), axis=0)
            purity = (1 + jnp.sum(wide, axis=0) / jnp.where(size == 0, 1, size)) / 2
            # In float32 for every default type, so that the same key gives the same choice.
            positive = jax.random.uniform(key, size.shape, jnp.float32) < purity
            share = jnp.broadcast_to(jnp.asarray(leak, leaf.dtype), given.active.shape)
            kept = jnp.where((wide > 0) == positive[None], leaf, rows(share, leaf) * leaf)
            # A mask would drop an entry that is not finite as if it had the wrong sign.
            return jnp.where(jnp.isfinite(size)[None], kept, jnp.nan)

        keys = jax.random.split(step_key, len(leaves))
        masked = [pick(leaf, key) for leaf, key in zip(leaves, keys, strict=True)]
        kept = jax.tree.unflatten(treedef, masked)
        return kept, kept, GradDropState(next_key)

    def ones(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        return jnp.ones(given.active.shape), state

    return make_balancer(
        Weighting(lambda dtype: (), ones, frozenset(), num_tasks, names),
        preparation=Preparation(lambda params: GradDropState(stored(key)), mask),
    )
