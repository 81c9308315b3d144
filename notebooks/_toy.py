"""The picture of the front page: ``python notebooks/_toy.py`` draws it again."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import jaxmtl
from jaxmtl import plotting
from jaxmtl.problems.toy import STARTS, pareto_set, toy_losses

METHODS = {"equal weights": jaxmtl.equal(), "mgda": jaxmtl.mgda(), "imtl_g": jaxmtl.imtl_g()}
COLOURS = ("#E69F00", "#56B4E9", "#D55E00", "#0072B2", "#CC79A7")
STEPS, KEPT = 45_000, 450


def paths(balancer):
    """The way of Adam behind a balancer, from each of the papers' starts.

    Returns:
      (5, KEPT + 1, 2) points, in float64.
    """
    optimizer = optax.chain(balancer, optax.adam(1e-3))

    def step(carry, _):
        point, state = carry
        losses, grads = jaxmtl.value_and_task_grads(toy_losses)(point)
        updates, state = optimizer.update(grads, state, point, losses=losses)
        return (optax.apply_updates(point, updates), state), None

    def many_steps(carry, _):
        carry, _ = jax.lax.scan(step, carry, length=STEPS // KEPT)
        return carry, carry[0]

    def descend(start):
        carry = start, optimizer.init(start)
        _, path = jax.lax.scan(many_steps, carry, length=KEPT)
        return jnp.concatenate([start[None], path])

    with jax.enable_x64(True):
        return np.asarray(jax.jit(jax.vmap(descend))(jnp.array(STARTS, float)))


def draw_paths(path):
    """Draw where the methods go in the plane of the two-loss toy, and its Pareto set."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    ends = np.linspace(-10.5, 10.5, 211)
    losses = toy_losses(np.stack(np.meshgrid(ends, ends)).astype(np.float32))
    mean = (losses["first"] + losses["second"]) / 2
    for axis, (name, balancer) in zip(figure.subplots(1, 3), METHODS.items(), strict=True):
        axis.set_prop_cycle(color=COLOURS)
        axis.plot(*pareto_set().T, color="#009E73", linewidth=7, alpha=0.5)
        plotting.plot_trajectories(paths(balancer), axis, contours=(ends, ends, mean), linewidth=2)
        axis.set(xlim=(-10.5, 10.5), ylim=(-10.5, 10.5), xticks=[], yticks=[])
        axis.set_title(name, fontsize=12)
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    jaxmtl.use_safe_cpu_compiler()
    draw_paths(Path(__file__).parent / "pictures" / "toy.png")
