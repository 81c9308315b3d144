"""Linear programmes over the simplex, solved to a corner."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmtl._checks import check_count
from jaxmtl._typing import Array
from jaxmtl.solvers._inputs import read_mask, read_matrix, read_vector
from jaxmtl.solvers._one_launch import one_launch
from jaxmtl.solvers.scaling import reciprocal_length


class LinearProgram(NamedTuple):
    """A corner of the feasible weights, and its distance from the best one.

    Attributes:
      weights: (T,) convex weights w.
      residual: the larger of the worst violation of a constraint, relative to its terms, and the
        duality gap relative to max_i |c_i|; 0 if the corner is exact.
      iterations: number of pivots.
    """

    weights: Array
    residual: Array
    iterations: Array


def linear_program(
    objective: Array,
    matrix: Array,
    bound: Array,
    required: Array | None = None,
    active: Array | None = None,
    *,
    max_iterations: int = 1000,
) -> LinearProgram:
    """Find convex weights that maximise <c, w> subject to A w >= b.

    This is the dual simplex method. It starts at the corner with the largest objective, which
    ignores A w >= b, and moves to the next best corner that repairs the worst violation, until none
    is left. After many pivots the lowest index wins among violations and ties, which cannot cycle.
    The system of the last corner is then solved again. Columns and rows are scaled by powers of
    two, so that neither the sizes of A nor their spread do harm.

    Args:
      objective: (T,) c.
      matrix: (M, T) A.
      bound: (M,) b.
      required: (M,) bool, the rows that are constraints; all if None.
      active: (T,) bool, where weights may be above zero; all if None.
      max_iterations: maximum number of pivots.

    Returns:
      A ``LinearProgram``. If several corners are equally good, it is the first one found, which
      depends on the order of the weights. If no weights are feasible, the residual shows it. Not
      differentiable in reverse mode.

    Raises:
      ValueError: if the shapes do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxmtl.solvers import linear_program
      >>> c, row = jnp.array([3.0, 1.0, 0.0]), jnp.array([[-1.0, 0.0, 1.0]])
      >>> print(linear_program(c, row, jnp.zeros(1)).weights)  # w_2 at least w_0
      [0.5 0.  0.5]

    References:
      Lemke, `The dual method of solving the linear programming problem
      <https://doi.org/10.1002/nav.3800010107>`_, 1954

      Bland, `New Finite Pivoting Rules for the Simplex Method
      <https://doi.org/10.1287/moor.2.2.103>`_, 1977
    """
    objective = read_vector("objective", objective)
    matrix, bound = read_matrix("matrix", matrix, "(M, T)"), read_vector("bound", bound, "(M,)")
    max_iterations = check_count("max_iterations", max_iterations)
    num, rows = objective.shape[0], bound.shape[0]
    if matrix.shape != (rows, num):
        raise ValueError(
            f"matrix must have shape (M, T) for a bound of shape (M,) and an objective of shape"
            f" (T,), but they have {matrix.shape}, {bound.shape} and {objective.shape}."
        )
    required, active = read_mask("required", required, rows), read_mask("active", active, num)
    with jax.default_matmul_precision("highest"):
        return _solve(objective, matrix, bound, required, active, max_iterations)


@one_launch
def _solve(
    objective: Array,
    matrix: Array,
    bound: Array,
    required: Array,
    active: Array,
    max_iterations: int,
) -> LinearProgram:
    """Scale, pivot, and take the better of the corner reached and its system solved again."""
    rows, num = matrix.shape
    # In x = w / scale: maximise <c, x> with A x - s = b, <scale, x> = 1, x and s above zero.
    usable = required[:, None] & active[None, :]
    overall = _powers(jnp.max(jnp.abs(jnp.where(usable, matrix, 0))))
    a = jnp.where(active[None, :], matrix, 0) * overall
    scale = _powers(jnp.max(jnp.abs(jnp.where(usable, a, 0)), axis=0))
    row_scale = _powers(jnp.max(jnp.abs(a * scale[None, :]), axis=1))
    a = a * scale[None, :] * row_scale[:, None]
    b = bound * overall * row_scale
    c = jnp.where(active, objective, 0)
    c *= _powers(jnp.max(jnp.abs(c)))
    values, prices, basis, iterations = _dual_simplex(
        c * scale, a, b, scale, required, active, max_iterations
    )
    x = jnp.zeros(num + rows, a.dtype).at[basis].set(values)[:num]
    walked = _convex(x * scale, active)
    solved = _convex(_solve_corner(basis, a, b, scale)[:num] * scale, active)
    # The multipliers of the constraints are the slacks' entries of the objective's row.
    duals = jnp.where(required, jnp.maximum(prices[num:], 0), 0)

    def residual(weights: Array) -> Array:
        x = weights / scale
        short = jnp.where(required, b - a @ x, 0)
        sizes = jnp.abs(a) @ x + jnp.abs(b)
        violation = jnp.max(short / jnp.where(sizes > 0, sizes, 1), initial=0)
        best = jnp.max(c + (a.T @ duals) / scale, where=active, initial=-jnp.inf) - duals @ b
        return jnp.maximum(violation, best - c @ weights)

    left, afresh = residual(walked), residual(solved)
    better = afresh < left  # a NaN of a singular system loses
    weights = jnp.where(better, solved, walked)
    return LinearProgram(weights, jnp.where(better, afresh, left), iterations)


def _powers(sizes: Array) -> Array:
    """Powers of two that bring sizes near one; one for a size of zero."""
    return reciprocal_length(sizes) ** 2


def _convex(weights: Array, active: Array) -> Array:
    weights = jnp.where(active, jnp.maximum(weights, 0), 0)
    return weights / jnp.maximum(jnp.sum(weights), jnp.finfo(weights.dtype).tiny)


def _dual_simplex(
    c: Array,
    a: Array,
    b: Array,
    scale: Array,
    required: Array,
    active: Array,
    max_iterations: int,
) -> tuple[Array, Array, Array, Array]:
    """Pivot from the corner of the largest objective until no basic variable is below zero.

    Returns:
      The basic variables (M + 1,), the objective's row (T + M,), their indices (M + 1,), slacks
      after weights, and the number of pivots.
    """
    rows, num = a.shape
    eps = (rows + num) * jnp.finfo(a.dtype).eps
    may_leave = jnp.concatenate([jnp.ones(num, bool), required])
    may_enter = jnp.concatenate([active, required])
    best = jnp.argmax(jnp.where(active, c / scale, -jnp.inf))
    share, column = scale / scale[best], a[:, best]
    # A row for each constraint, with its slack, and one for the sum of the weights.
    tableau = _stacked(column[:, None] * share[None, :] - a, 1, share)
    values = _below(column / scale[best] - b, 1 / scale[best])
    prices = jnp.pad(c[best] * share - c, (0, rows))
    basis = _below(num + jnp.arange(rows), best)

    def pivot(carry: Any) -> Any:
        tableau, values, prices, basis, count, _ = carry
        x = jnp.zeros(num + rows, a.dtype).at[basis].set(values)[:num]
        size = jnp.abs(x)
        noise = eps * jnp.concatenate([jnp.full(num, jnp.max(size)), jnp.abs(a) @ size + abs(b)])
        below = may_leave[basis] & (values < -noise[basis])
        worst = jnp.argmin(jnp.where(below, values, jnp.inf))
        lowest = jnp.argmin(jnp.where(below, basis, num + rows))
        row = jnp.where(count < 4 * (num + rows), worst, lowest)
        entries = tableau[row]
        enters = may_enter & (entries < -eps * jnp.max(jnp.abs(entries)))
        price = jnp.maximum(prices, 0) / jnp.where(enters, -entries, 1)
        entering = jnp.argmin(jnp.where(enters, price, jnp.inf))
        go_on = jnp.any(below) & jnp.any(enters)
        by = jnp.where(go_on, entries[entering], 1)
        line, value, column = entries / by, values[row] / by, tableau[:, entering]
        new = (
            (tableau - column[:, None] * line[None, :]).at[row].set(line),
            (values - column * value).at[row].set(value),
            prices - prices[entering] * line,
            basis.at[row].set(entering),
        )
        old = tableau, values, prices, basis
        kept = [jnp.where(go_on, *pair) for pair in zip(new, old, strict=True)]
        return *kept, count + go_on.astype(count.dtype), go_on

    start = tableau, values, prices, basis, jnp.zeros((), jnp.int32), jnp.asarray(True)
    _, values, prices, basis, count, _ = lax.while_loop(
        lambda carry: carry[5] & (carry[4] < max_iterations), pivot, start
    )
    return values, prices, basis, count


def _solve_corner(basis: Array, a: Array, b: Array, scale: Array) -> Array:
    """The (T + M,) weights and slacks of a corner, zero outside its basis."""
    rows, num = a.shape
    system, target = _stacked(a, -1, scale)[:, basis], _below(b, 1)
    factor, _, order = lax.linalg.lu(system)

    def solve(target: Array) -> Array:
        z = target[order][:, None]
        lower = {"left_side": True, "lower": True, "unit_diagonal": True}
        z = lax.linalg.triangular_solve(factor, z, **lower)
        return lax.linalg.triangular_solve(factor, z, left_side=True)[:, 0]

    z = solve(target)
    z += solve(target - system @ z)
    return jnp.zeros(num + rows, a.dtype).at[basis].set(z)


def _stacked(a: Array, slack: float, last: Array) -> Array:
    """[[a, slack I], [last, 0]], of shape (M + 1, T + M)."""
    rows, num = a.shape
    i, k = jnp.arange(rows + 1)[:, None], jnp.arange(num + rows)[None, :]
    whole = jnp.where(k == num + i, slack, jnp.pad(a, ((0, 1), (0, rows))))
    return jnp.where(i == rows, jnp.pad(last, (0, rows))[None, :], whole)


def _below(vector: Array, last: Any) -> Array:
    """A vector with one entry more."""
    longer = jnp.pad(vector, (0, 1))
    return jnp.where(jnp.arange(len(longer)) == len(vector), last, longer)
