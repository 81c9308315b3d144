"""Yeast: fourteen yes-or-no labels of a gene, from 103 measurements of it.

2417 genes of baker's yeast, each with its expression in micro-array experiments and its
phylogenetic profile, and the functional groups to which it belongs: fourteen binary labels, 1 % to
75 % of them positive. There are many tasks of one kind and one scale, and few examples: what tasks
gain from each other matters more here than how they are balanced.
"""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmtl import theory
from jaxmtl._typing import Array, PyTree
from jaxmtl.problems._dense import apply_dense_columns, init_dense
from jaxmtl.problems._installed import package_file
from jaxmtl.problems._problem import Batch, Problem

_FEATURES, _LABELS = 103, 14
_TASKS = tuple(f"class_{i:02}" for i in range(1, _LABELS + 1))
# Examples of each split; a third to test on, since the rarest label has 34 positives in all.
_SPLITS = {"train": 1300, "validation": 300, "test": 817}


def yeast() -> Problem:
    """Build the yeast problem: fourteen binary labels, each a task.

    A task's loss is the binary cross-entropy, its metric the area under the ROC curve: the
    probability that a gene with the label gets a higher output than one without. (Accuracy would
    reward a model that never predicts a rare label.) The split is the same at every call.

    Returns:
      A ``Problem`` whose splits hold "features" (N, 103), standardised by the training split, and
      "labels" (N, 14), zeros and ones, both float32. N is 1300, 300 and 817. It has no
      ``standardisation``: there are no regression targets.

    Raises:
      ImportError: if river, which carries the data, is not installed.
      FileNotFoundError: if the installed river does not carry them.

    Examples:
      >>> from jaxmtl.problems.yeast import yeast
      >>> problem = yeast()  # doctest: +SKIP
      >>> problem.tasks[:2]  # doctest: +SKIP
      ('class_01', 'class_02')

    References:
      Elisseeff & Weston, `A kernel method for multi-labelled classification
      <https://papers.nips.cc/paper/2001/hash/39dcaf7a053dc372fbc391d4e6b5d693-Abstract.html>`_,
      2001
    """
    path = package_file("yeast", "river", "datasets/yeast.csv.gz", cure='pip install "river>=0.26"')
    with gzip.open(path, "rt", encoding="utf-8") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1)
    features, labels = table[:, :_FEATURES], table[:, _FEATURES:].astype(np.float32)
    order = np.random.default_rng(0).permutation(len(table))
    rows = dict(zip(_SPLITS, np.split(order, np.cumsum(list(_SPLITS.values()))[:-1]), strict=True))
    mean, std = features[rows["train"]].mean(axis=0), features[rows["train"]].std(axis=0)
    scaled = ((features - mean) / std).astype(np.float32)
    splits = {name: {"features": scaled[r], "labels": labels[r]} for name, r in rows.items()}
    frequencies = splits["train"]["labels"].mean(axis=0, dtype=np.float64)
    return Problem(
        name="Yeast-14",
        tasks=_TASKS,
        init=lambda key: init_dense(key, (_FEATURES, 64, 32), dict.fromkeys(_TASKS, 1)),
        losses=_losses,
        metrics=_metrics,
        maximize=dict.fromkeys(_TASKS, True),
        metric_names=dict.fromkeys(_TASKS, "AUC"),
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        prior_values={
            task: theory.prior_binary_cross_entropy(frequency)
            for task, frequency in zip(_TASKS, frequencies, strict=True)
        },
        learning_rate=3e-3,
        steps=400,
        batch=256,
        shared={"trunk": True, "heads": False},
    )


def _losses(params: PyTree, batch: Batch) -> dict[str, Array]:
    """Evaluate the fourteen cross-entropies, as means over the batch."""
    logits = apply_dense_columns(params, batch["features"])
    errors = optax.sigmoid_binary_cross_entropy(logits, batch["labels"])
    return dict(zip(_TASKS, jnp.mean(errors, axis=0), strict=True))


def _metrics(params: PyTree, split: Batch) -> dict[str, Array]:
    """Evaluate the areas under the ROC curves."""
    logits = apply_dense_columns(params, split["features"])
    areas = jax.vmap(_area_under_curve, in_axes=1)(logits, jnp.asarray(split["labels"]))
    return dict(zip(_TASKS, areas, strict=True))


def _area_under_curve(logits: Array, positive: Array) -> Array:
    """Compute the area under the ROC curve of one label, in which a tie counts one half."""
    ordered = jnp.sort(logits)
    below, upto = (jnp.searchsorted(ordered, logits, side=side) for side in ("left", "right"))
    ranks = (below + upto + 1) / 2  # from 1; ties share their mean rank
    count = jnp.sum(positive)
    above = jnp.sum(ranks * positive) - count * (count + 1) / 2
    return above / (count * (len(logits) - count))
