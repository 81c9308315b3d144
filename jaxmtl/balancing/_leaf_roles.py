"""Which leaves a balancer measures and weighs."""

from typing import NamedTuple

import jax
import numpy as np

from jaxmtl._checks import leaf_path, shown
from jaxmtl._typing import LeafSelector, PyTree


class LeafRoles(NamedTuple):
    """Which leaves enter the Gramian and which receive the task weights.

    A leaf has a role if every selector of the tuple selects it; the empty tuple selects all. A leaf
    without task weights receives the plain sum over tasks, which for a task-specific leaf is its
    own task's gradient.
    """

    measured: tuple[LeafSelector, ...] = ()
    weighted: tuple[LeafSelector, ...] = ()


def selected_only(selectors: tuple[LeafSelector, ...], tree: PyTree) -> PyTree:
    """The tree with None in the place of the leaves that are not selected."""
    leaves, treedef = jax.tree.flatten(tree)
    chosen = zip(leaves, select_leaves(selectors, tree), strict=True)
    return jax.tree.unflatten(treedef, [leaf if selected else None for leaf, selected in chosen])


def select_leaves(selectors: tuple[LeafSelector, ...], tree: PyTree) -> list[bool]:
    """Say for each leaf of the tree whether every selector selects it.

    Raises:
      ValueError: if a mask does not fit the tree, or no leaf is left.
    """
    paths = [leaf_path(path) for path, _ in jax.tree.leaves_with_path(tree)]
    chosen = [True] * len(paths)
    for selector in selectors:
        # A mask may be callable too: an equinox module of bools.
        if callable(selector) and jax.tree_util.all_leaves([selector]):
            mask = [selector(path) for path in paths]
            if not all(isinstance(m, bool | np.bool_) for m in mask):
                odd = next(m for m in mask if not isinstance(m, bool | np.bool_))
                raise ValueError(
                    "A function that selects shared leaves must return True or False for each"
                    ' path, such as lambda path: path.startswith("trunk/"), but it returned'
                    f" {shown(odd)}."
                )
        else:
            try:
                mask = jax.tree.leaves(jax.tree.broadcast(selector, tree))
            except ValueError as error:
                raise ValueError(
                    "The mask of shared leaves must be a tree of bools with the structure of the"
                    f" parameters, or a prefix of it, but it does not fit: {error}. The leaves are"
                    f" {', '.join(paths)}; a function of the path serves any container, such as"
                    ' lambda path: path.startswith("trunk/").'
                ) from error
            if not all(isinstance(m, bool | np.bool_) for m in mask):
                raise ValueError(
                    "The mask of shared leaves must be made of bools, but it is"
                    f" {selector!r}; for paths, give a function such as"
                    ' lambda path: path.startswith("trunk/").'
                )
        chosen = [c and bool(m) for c, m in zip(chosen, mask, strict=True)]
    if paths and not any(chosen):
        numbered = all(path.isdigit() for path in paths)
        cure = (
            " They are in a list, so their paths are numbers: pass a list of bools, one for each,"
            ' such as [variable.path.startswith("trunk/") for variable in variables].'
        )
        raise ValueError(
            f"No leaf is selected as shared. The leaves are: {', '.join(paths)}.{cure * numbered}"
        )
    return chosen
