"""What a method does to two gradients in the plane, and the pictures of the theory."""

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import jaxmtl

GRADS = np.array([[2.0, 0.3], [-0.9, 0.8]])
LOSSES = np.array([2.0, 0.5])
COLOURS = ("#3b82c4", "#d9822b")
GREY, UPDATE = "#888888", "#2a9d5c"  # of colours that are seen on white and on black


def update_of(name):
    """The update of a method's first step on the two gradients.

    Returns:
      (2,) array; None where the method needs more than gradients and losses.
    """
    method = jaxmtl.methods.METHODS[name]
    if method.needs:
        return None
    balancer = jaxmtl.methods.make(name, 2)
    state = balancer.init(jnp.zeros(2))
    grads, losses = jnp.asarray(GRADS, jnp.float32), jnp.asarray(LOSSES, jnp.float32)
    update = jax.jit(balancer.update)(grads, state, losses=losses)[0]
    return np.asarray(update, np.float64)


def draw_method(name, path):
    """Draw the two gradients, their mean and the update of a method.

    Returns:
      Whether there was something to show: an update that is not along the mean of the gradients.
      (That of ``equal`` is the mean itself, and is drawn.)
    """
    update, mean = update_of(name), GRADS.mean(axis=0)
    if update is None:
        return False
    length = np.linalg.norm(update)
    cosine = update @ mean / (length * np.linalg.norm(mean)) if length else 1.0
    if cosine > 1 - 1e-6 and name != "equal":
        return False
    figure, axes = _plane()
    _draw_dual_cone(axes)
    _draw_gradients(axes)
    _draw_arrow(axes, mean, GREY, "mean", dashed=True)
    _draw_arrow(axes, update, UPDATE, name)
    _save(figure, path)
    return True


def draw_dual_cone(path):
    """Draw the directions that have no negative inner product with either gradient."""
    figure, axes = _plane()
    _draw_dual_cone(axes)
    _draw_gradients(axes)
    _draw_arrow(axes, GRADS.mean(axis=0), GREY, "mean", dashed=True)
    _draw_arrow(axes, update_of("dualproj"), UPDATE, "dualproj")
    axes.text(0.55, 1.55, "dual cone", color=GREY)
    _save(figure, path)


def draw_min_norm(path):
    """Draw the convex combinations of the two gradients, and the shortest of them."""
    figure, axes = _plane()
    axes.plot(*GRADS.T, color=GREY, linewidth=1)
    _draw_gradients(axes)
    _draw_arrow(axes, update_of("mgda"), UPDATE, "min-norm point")
    _save(figure, path)


def _plane():
    """A plane without a frame, as wide as high."""
    figure = Figure(figsize=(4.2, 2.7), layout="tight")
    axes = figure.subplots()
    axes.set_aspect("equal")
    axes.axis("off")
    axes.plot(0, 0, "o", color=GREY, markersize=4)
    return figure, axes


def _draw_gradients(axes):
    for i, (gradient, colour) in enumerate(zip(GRADS, COLOURS, strict=True), start=1):
        _draw_arrow(axes, gradient, colour, f"$g_{i}$")


def _draw_arrow(axes, end, colour, label, dashed=False):
    style = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0, "linewidth": 1.8}
    if dashed:
        style |= {"linestyle": (0, (4, 2)), "linewidth": 1.2}
    axes.annotate("", end, xytext=(0, 0), arrowprops=style)
    axes.plot(*end, alpha=0)  # an annotation alone does not count for the limits
    # The label beyond the end, below the line of the mean, above the others.
    right = end[0] >= 0
    offset = (4 if right else -4, -10 if dashed else 3)
    side = "left" if right else "right"
    axes.annotate(label, end, offset, textcoords="offset points", color=colour, ha=side)


def _draw_dual_cone(axes):
    """Fill what lies between the normals of the two gradients, out to a fixed radius."""
    first, second = GRADS
    # Turned by a right angle towards the other gradient.
    edges = np.array([[-first[1], first[0]], [second[1], -second[0]]])
    angles = np.arctan2(edges[:, 1], edges[:, 0])
    arc = np.linspace(angles.min(), angles.max(), 30)
    points = 1.9 * np.stack([np.cos(arc), np.sin(arc)], axis=1)
    assert np.all(points @ GRADS.T > -1e-9)
    axes.fill(*np.concatenate([[[0, 0]], points]).T, color=UPDATE, alpha=0.15, linewidth=0)


def _save(figure, path):
    """As SVG, the same from build to build."""
    axes = figure.axes[0]
    axes.margins(0.12)
    with mpl.rc_context({"svg.hashsalt": "jaxmtl"}):
        figure.savefig(path, transparent=True, metadata={"Date": None})
