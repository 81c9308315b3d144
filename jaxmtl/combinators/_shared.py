"""Balancer -> Balancer: which leaves are balanced, and how much each task matters."""

from typing import Any

from jaxmtl._checks import check_choice
from jaxmtl._task_names import common_names
from jaxmtl._task_values import constant_vector
from jaxmtl._typing import Array, LeafSelector, PyTree, TaskVector
from jaxmtl.balancing._balancer import rebuild
from jaxmtl.balancing._base import Balancer, Given, check_balancer
from jaxmtl.balancing._described import described
from jaxmtl.balancing._leaf_roles import LeafRoles


@described
def on_shared(balancer: Balancer, shared: LeafSelector, heads: str = "own") -> Balancer:
    """Balance the gradients of the shared leaves only.

    The Gramian, and with it every norm and conflict that the method sees, is computed over the
    shared leaves. They receive the combination sum_i w_i g_i. The other leaves receive
      - ``heads="own"``: sum_i g_i. For a leaf that only one task uses, this is that task's own
        gradient, unweighted, as in multi-task papers with task-specific heads;
      - ``heads="weighted"``: sum_i w_i g_i, as if the weighted losses had been summed. With the
        last shared layer as ``shared`` this is GradNorm's setting: the gradients are measured at
        that layer, and the weights applied to all leaves.

    Args:
      balancer: any balancer of this package, also one that is already restricted: then only leaves
        that both select are shared.
      shared: a tree of bools of the parameters' structure or a prefix of it, such as
        ``{"trunk": True, "heads": False}``, or a function of the leaf's path, such as
        ``lambda path: path.startswith("trunk/")``. Paths are keys, attributes and list indices,
        "trunk/layers/0/kernel"; for flax nnx without the final "value".
      heads: "own" or "weighted".

    Returns:
      The restricted balancer. ``shared`` need not exclude a leaf whose stacked gradient is zero
      because of ``jax.lax.stop_gradient``, or that is None in the tree. It must exclude a leaf that
      the optimizer after the balancer freezes with ``optax.set_to_zero``: such a leaf still has
      gradients, and would count in the Gramian.

    Raises:
      ValueError: for an unknown ``heads``; at the first update, if the mask does not fit the
        gradients or selects nothing.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.on_shared(jaxmtl.mgda(), {"trunk": True, "heads": False})
      >>> grads = {"trunk": jnp.array([[3.0], [1.0]]), "heads": jnp.array([[5.0, 0.0], [0.0, 7.0]])}
      >>> state = balancer.init({"trunk": jnp.ones(1), "heads": jnp.ones(2)})
      >>> updates, _ = balancer.update(grads, state)
      >>> print(updates["trunk"], updates["heads"])
      [1.] [5. 7.]
    """
    check_balancer(balancer)
    check_choice("heads", heads, ("own", "weighted"))
    roles = balancer.roles
    weighted = (*roles.weighted, shared) if heads == "own" else roles.weighted
    return rebuild(balancer, roles=LeafRoles((*roles.measured, shared), weighted))


@described
def prioritise(balancer: Balancer, priorities: TaskVector) -> Balancer:
    """Multiply the weights of any method by the user's own priorities, w_i <- p_i w_i.

    This adds domain knowledge to a method: the method makes the tasks comparable in size, the
    priorities say which matter more. Priorities of one change nothing; they are not normalised.

    Args:
      balancer: any balancer that computes task weights.
      priorities: (T,) array or tree of scalars, above zero.

    Returns:
      A balancer with the scale of ``balancer`` times the priorities, and the same degree. Methods
      that promise not to conflict with any task lose this promise.

    Raises:
      ValueError: if a priority is not finite and above zero, or their number is not the number of
        tasks.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.prioritise(jaxmtl.equal(), [1.0, 3.0])
      >>> updates, _ = balancer.update(jnp.eye(2), balancer.init(jnp.zeros(2)))
      >>> print(updates)
      [0.5 1.5]
    """
    check_balancer(balancer)
    factors = constant_vector("priorities", priorities, above=0.0)
    inner = balancer.weighting
    if inner.num_tasks not in (None, factors.shape[0]):
        raise ValueError(
            f"priorities holds {factors.shape[0]} values, but the balancer was built for"
            f" {inner.num_tasks} tasks: give one for each."
        )

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        weights, state = inner.update(given, state)
        return weights * factors.astype(weights.dtype), state

    names = common_names(inner.names, priorities=priorities)
    weighting = inner._replace(update=update, num_tasks=factors.shape[0], names=names)
    timing = balancer.timing
    if timing is not None:
        before = timing.before

        def prioritised(active: Array, dtype: Any) -> Array:
            return before(active, dtype) * factors.astype(dtype)

        timing = timing._replace(before=prioritised, held=timing.held * factors)
    return rebuild(balancer, weighting=weighting, timing=timing)
