"""VQGAN's adaptive weight: adversarial gradients scaled to the reconstruction's norm."""

from typing import Any

import jax.numpy as jnp

from jaxmtl._checks import check_at_least, check_count
from jaxmtl._task_names import common_names
from jaxmtl._task_values import task_mask
from jaxmtl._typing import Array, PyTree, TaskVector
from jaxmtl.balancing._balancer import make_balancer
from jaxmtl.balancing._base import Balancer, Given, Timing, Weighting
from jaxmtl.balancing._described import described
from jaxmtl.solvers.scaling import reciprocal


@described
def vqgan_adaptive(
    adversary: TaskVector, *, scale: float = 0.8, max_ratio: float = 1e4, start: int = 0
) -> Balancer:
    """Weigh adversarial losses by the ratio of gradient norms at the last layer.

    w = 1 for the reconstruction losses, scale min(||g_rec|| / ||g_adv||, max_ratio) for an
    adversary, with g_rec the sum of the reconstruction losses' gradients; 0 before step ``start``.

    The paper measures at the last layer of the decoder and applies the weights everywhere:
    ``on_shared(vqgan_adaptive(...), last_layer, heads="weighted")``.

    Args:
      adversary: (T,) bools or tree of bools, such as ``{"adversarial": True, "pixels": False}``:
        which losses are adversarial.
      scale: the size of the weighted adversarial gradient, as a share of the reconstruction's.
      max_ratio: the largest ratio.
      start: the first step with adversaries; the authors train the reconstruction alone first.

    Returns:
      A balancer that reads the Gramian. Scale: 1 + scale times g on two identical gradients g.
      Degree 1. An adversary with a gradient of zero has weight zero.

    Deviations from the paper: no constant is added to the adversary's norm, so that gradients of
    any size are treated alike.

    Raises:
      ValueError: if ``adversary`` is not one bool per task, or a number is below 0.

    Examples:
      >>> import jax.numpy as jnp, jaxmtl
      >>> balancer = jaxmtl.vqgan_adaptive([True, False])
      >>> grads = jnp.array([[0.0, 100.0], [2.0, 0.0]])
      >>> updates, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
      >>> print(updates)  # 0.8 times the length of the other
      [2.  1.6]

    References:
      Esser, Rombach & Ommer, `Taming Transformers for High-Resolution Image Synthesis
      <https://arxiv.org/abs/2012.09841>`_, 2021
    """
    mask = task_mask("adversary", adversary)
    check_at_least("scale", scale, 0)
    check_at_least("max_ratio", max_ratio, 0)
    check_count("start", start, 0)

    def update(given: Given, state: PyTree) -> tuple[Array, PyTree]:
        gram, is_adversary = given.gramian, jnp.asarray(mask)
        others = (given.active & ~is_adversary).astype(gram.dtype)
        pull = jnp.sqrt(jnp.maximum(others @ gram @ others, 0))
        ratio = jnp.minimum(pull * reciprocal(jnp.sqrt(jnp.diagonal(gram))), max_ratio)
        return jnp.where(is_adversary, scale * ratio, 1), state

    def without_adversaries(active: Array, dtype: Any) -> Array:
        return jnp.asarray(~mask, dtype)

    waiting = isinstance(start, int) and start == 0
    timing = None if waiting else Timing(start=start, before=without_adversaries)
    names = common_names(adversary=adversary)
    weighting = Weighting(lambda dtype: (), update, frozenset({"gramian"}), mask.shape[0], names)
    return make_balancer(weighting, timing=timing)
