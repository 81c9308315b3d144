"""How much larger the errors are than those of single-task training."""

from collections.abc import Sequence

import numpy as np

from jaxmtl.reproductions._runs import Record

SINGLE = "single task"  # the row that the others are compared with


def delta_m(runs: Sequence[Record]) -> dict[str, np.ndarray]:
    """Average over the tasks how much larger the errors are than those of single-task training.

    delta_m = 100/11 sum_i (M_i - S_i) / S_i, S_i the mean over the seeds of the row "single task";
    lower is better.

    Args:
      runs: of one problem, size, learning rate and number of steps, of ``load("qm9")``.

    Returns:
      Row -> (seeds,) percent; NaN where a training diverged.

    Raises:
      ValueError: where the runs are of several such, or "single task" is not among them.

    Examples:
      >>> import jaxmtl
      >>> alone = {"row": "single task", "mae": [[1.0, 4.0], [3.0, 4.0]]}
      >>> together = {"row": "equal", "mae": [[3.0, 4.0], [2.0, 5.0]]}
      >>> print(jaxmtl.reproductions.delta_m([alone, together])["equal"])
      [25.  12.5]
    """
    kinds = {
        tuple(run.get(field) for field in ("problem", "size", "rate", "steps")) for run in runs
    }
    rows = {run["row"]: np.array(run["mae"], float) for run in runs}
    if len(kinds) != 1 or len(rows) != len(runs) or SINGLE not in rows:
        raise ValueError(
            "runs must be of one problem, size, rate and number of steps, each row once and"
            f" {SINGLE!r} among them, but they are {sorted(rows)} of {sorted(kinds, key=str)}."
        )
    alone = rows[SINGLE].mean(axis=0, keepdims=True)
    return {row: 100 * np.mean((errors - alone) / alone, axis=1) for row, errors in rows.items()}
