"""Minimisers on the simplex with bounds, many problems side by side; they know no law.

Every problem is ``min f(h)`` subject to ``sum h = 1`` and ``lower <= h <= upper``. `minimise` is
the spectral projected gradient method (Birgin, Martinez & Raydan 2000, SIAM J. Optim. 10, 1196)
in a metric that shortens the steps of small weights, about which losses bend most.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# points (P, K), and the problem (P,) of each, to values (P,) and gradients (P, K)
Function = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

_MEMORY = 8  # the line search looks back so many values
_SUFFICIENT = 1e-4  # share of the predicted decrease that a step must bring
_BACKTRACKS = 12
_FAR = 1e3  # step length where no curvature is felt
_PATIENCE = 25  # steps without progress after which a problem is left
_ROUNDING = 1e-14  # of a value, relative
# The metric's shortest length, pass by pass: a domain at weight 0 must be able to leave it, where
# the best weights are small steps must be shorter, and at last some have to reach 0 in a long one
_LEAST_LENGTHS = (1e-2, 1e-4, 1e-6, 1e-2)


class Minima(NamedTuple):
    """Where `minimise` ended, problem by problem.

    Attributes
    ----------
    points : array, shape (P, K)
        The best points visited; feasible.
    values : array, shape (P,)
    residuals : array, shape (P,)
        `residual` there: 0 at a stationary point.
    """

    points: np.ndarray
    values: np.ndarray
    residuals: np.ndarray


def project(
    points: np.ndarray, lower: np.ndarray, upper: np.ndarray, metric: np.ndarray | None = None
) -> np.ndarray:
    """Nearest points with ``sum h = 1`` and ``lower <= h <= upper``, exactly.

    Parameters
    ----------
    points : array, shape (P, K)
    lower, upper : array, shape (K,) or (P, K)
        Feasible: ``lower <= upper`` and ``sum lower <= 1 <= sum upper``.
    metric : array, shape (P, K), optional
        Distances are ``sum (h - z)^2 / metric``; 1 by default.

    Returns
    -------
    array, shape (P, K)

    Examples
    --------
    >>> project(np.array([[0.7, 0.7, -0.2]]), np.zeros(3), np.ones(3))
    array([[0.5, 0.5, 0. ]])
    """
    metric = np.ones_like(points) if metric is None else metric

    def shifted(mu: np.ndarray) -> np.ndarray:
        return np.clip(points + mu[:, None] * metric, lower, upper)

    # the sum grows with the shift mu, linearly between knots: bisect over the sorted knots
    knots = np.concatenate([(lower - points) / metric, (upper - points) / metric], axis=1)
    knots.sort(axis=1)
    row = np.arange(len(points))
    left = np.zeros(len(points), dtype=int)
    right = np.full(len(points), knots.shape[1] - 1)
    for _ in range(int(knots.shape[1]).bit_length()):
        middle = (left + right) // 2
        below = shifted(knots[row, middle]).sum(axis=1) <= 1
        left, right = np.where(below, middle, left), np.where(below, right, middle)
    start, end = knots[row, left], knots[row, right]
    from_sum, to_sum = shifted(start).sum(axis=1), shifted(end).sum(axis=1)
    rise = to_sum - from_sum
    share = np.divide(1 - from_sum, rise, out=np.zeros(len(row)), where=rise > 0)
    nearest = shifted(start + share * (end - start))
    # what rounding left over goes to the weights that are free to move
    free = np.where((nearest > lower) & (nearest < upper), metric, 0.0)
    total = free.sum(axis=1, keepdims=True)
    gap = 1 - nearest.sum(axis=1, keepdims=True)
    return np.clip(nearest + gap * free / np.where(total > 0, total, 1), lower, upper)


def residual(
    points: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Largest entry of the projected gradient step, shape (P,): 0 where the KKT conditions hold.

    Examples
    --------
    >>> residual(np.array([[1.0, 0.0]]), np.array([[1.0, 2.0]]), np.zeros(2), np.ones(2))
    array([0.])
    """
    return abs(project(points - gradient, lower, upper) - points).max(axis=1)


def minimise(
    function: Function,
    starts: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    tolerance: float = 1e-7,
    max_steps: int = 300,
    lengths: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Minima:
    """Local minima of many problems, side by side, from one start each.

    Parameters
    ----------
    function : callable
        Takes points (Q, K) and the positions (Q,) of their problems in `starts`; returns values
        (Q,) and gradients (Q, K). A value that is not finite is stepped back from.
    starts : array, shape (P, K)
        Projected first; values there must be finite.
    lower, upper : array, shape (K,) or (P, K)
        As in `project`.
    tolerance : float
        On `residual`.
    max_steps : int
        Of each problem in each of four passes. A problem that makes no progress is left sooner:
        where the function has a kink, gradients do not tend to zero and the residual says so.
    lengths : callable
        From points to the scale of a step in each variable, (Q, K); the points by default.

    Returns
    -------
    Minima

    Examples
    --------
    >>> def parabola(h, problem):
    ...     return ((h - 0.6) ** 2).sum(axis=1), 2 * (h - 0.6)
    >>> minimise(parabola, np.array([[1.0, 0.0]]), np.zeros(2), np.ones(2)).points.round(6)
    array([[0.5, 0.5]])
    """
    low, high = (np.broadcast_to(bound, starts.shape) for bound in (lower, upper))

    def metric_of(least: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda points: np.maximum(lengths(points), least) ** 2

    first, *later = map(metric_of, _LEAST_LENGTHS)
    best = _descend(function, starts, low, high, first, tolerance, max_steps)
    for metric in later:
        going = np.flatnonzero(best.residuals > tolerance)
        if not going.size:
            break

        def function_of(
            points: np.ndarray, rows: np.ndarray, going: np.ndarray = going
        ) -> tuple[np.ndarray, np.ndarray]:
            return function(points, going[rows])

        found = _descend(
            function_of, best.points[going], low[going], high[going], metric, tolerance, max_steps
        )
        for part, new in zip(best, found, strict=True):
            part[going] = new
    # steps end within rounding of a bound, on either side of it
    points = np.where(best.points < low + _ROUNDING, low, best.points)
    return best._replace(points=np.where(points > high - _ROUNDING, high, points))


def _descend(
    function: Function,
    starts: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    metric_at: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
    max_steps: int,
) -> Minima:
    """`minimise` in one metric, bounds of shape (P, K)."""
    h = project(starts, low, high)
    problem = np.arange(len(h))
    f, g = function(h, problem)
    left = residual(h, g, low, high)
    best = Minima(h.copy(), f.copy(), left.copy())
    recent = np.full((len(h), _MEMORY), -np.inf)
    recent[:, 0] = f
    length = np.ones(len(h))
    idle = np.zeros(len(h), dtype=int)
    for step in range(1, max_steps + 1):
        going = (left > tolerance) & (idle < _PATIENCE)
        if not going.any():
            break
        if not going.all():
            h, f, g, problem = h[going], f[going], g[going], problem[going]
            recent, length, idle = recent[going], length[going], idle[going]
            low, high = low[going], high[going]
        metric = metric_at(h)
        d = project(h - length[:, None] * metric * g, low, high, metric) - h
        new_h, new_f, new_g = _search(function, problem, h, f, g, d, recent.max(axis=1))
        length = _spectral_length(new_h - h, new_g - g, metric, long=step % 2 == 0)
        h, f, g = new_h, new_f, new_g
        left = residual(h, g, low, high)
        recent[:, step % _MEMORY] = f
        # at the end values differ by rounding alone, and the residual tells points apart
        gain = best.values[problem] - f
        rounding = _ROUNDING * (1 + abs(f))
        better = (gain > rounding) | ((gain >= -rounding) & (left < best.residuals[problem]))
        for part, now in zip(best, (h, f, left), strict=True):
            part[problem[better]] = now[better]
        idle = np.where(better, 0, idle + 1)
    return best


def _search(
    function: Function,
    problem: np.ndarray,
    h: np.ndarray,
    f: np.ndarray,
    g: np.ndarray,
    d: np.ndarray,
    ceiling: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Backtrack along `d` until below `ceiling` by enough; where that fails, stay."""
    slope = (g * d).sum(axis=1)
    ceiling = ceiling + _ROUNDING * (1 + abs(ceiling))
    new_h, new_f, new_g = h.copy(), f.copy(), g.copy()
    t = np.ones(len(h))
    todo = np.arange(len(h))
    for _ in range(_BACKTRACKS):
        trial = h[todo] + t[todo, None] * d[todo]
        value, gradient = function(trial, problem[todo])
        found = value <= ceiling[todo] + _SUFFICIENT * t[todo] * slope[todo]
        new_h[todo[found]], new_f[todo[found]], new_g[todo[found]] = (
            trial[found],
            value[found],
            gradient[found],
        )
        todo, value = todo[~found], value[~found]
        if not todo.size:
            break
        # the minimum of the parabola through both values and the slope, within reason
        rise = value - f[todo] - t[todo] * slope[todo]
        curved = np.isfinite(rise) & (rise > 0)
        inner = -0.5 * t[todo] * slope[todo] / np.where(curved, rise, 1.0)
        t[todo] *= np.where(curved, np.clip(inner, 0.1, 0.5), 0.5)
    return new_h, new_f, new_g


def _spectral_length(s: np.ndarray, y: np.ndarray, metric: np.ndarray, *, long: bool) -> np.ndarray:
    """Barzilai-Borwein step lengths, long and short in turn, from a step and its gradients'."""
    curvature = (s * y).sum(axis=1)
    if long:
        above, below = (s * s / metric).sum(axis=1), curvature
    else:
        above, below = curvature, (y * y * metric).sum(axis=1)
    convex = curvature > 0
    ratio = np.divide(above, below, out=np.ones(len(s)), where=convex)
    # downhill without curvature: go far, or the search creeps along a slope to its end
    return np.where(convex, np.clip(ratio, 1e-6, 1e6), _FAR)
