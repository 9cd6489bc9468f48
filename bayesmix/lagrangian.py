"""The method of multipliers: constraints beside bounds, and measures with corners, made smooth.

`optimise.minimise` works on smooth functions under bounds. What goes beyond is met in rounds: a
constraint ``c(h) <= 0`` (`FeasibleSet.rooted`) adds ``(max(0, mu + r c)^2 - mu^2) / 2r``, and a
maximum over weights p (a tail mean, a worst domain) is taken with a penalty on ``|p - p'|^2``.
After each round mu and p' become what the round ended with, and r grows. Where that settles the
conditions of Karush, Kuhn and Tucker hold exactly, with mu the shadow prices.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bayesmix.feasible import FeasibleSet
from bayesmix.optimise import Minima, minimise

_ROUNDS = 14
_FIRST, _GROWTH, _MOST = 1.0, 10.0, 100.0  # r, per squared unit of the constraint
_STEPS = 40  # of each pass but the last round's: stragglers go on in the next round
_WIDTHS = (1e-1, 1e-2, 1e-3, 1e-4)  # of corners, relative to their scale
_MET = 1e-9  # a breach that is left, and a gap


class Smoothed(NamedTuple):
    """What a `Target` gives at some points.

    Attributes
    ----------
    values : array, shape (Q,)
    gradients : array, shape (Q, K)
    weights : array, shape (Q, ...)
        What the round ended with: p.
    gaps : array, shape (Q,)
        By how much the maximum over p lies above what p gives, nats: 0 where p is right.
    """

    values: np.ndarray
    gradients: np.ndarray
    weights: np.ndarray
    gaps: np.ndarray


# points (Q, K), positions (Q,) of their problems, weights p' of the round before (Q, ...), width
Target = Callable[[np.ndarray, np.ndarray, np.ndarray, float], Smoothed]


class Constrained(NamedTuple):
    """Where `minimise_within` ended, problem by problem.

    Attributes
    ----------
    minima : Minima
    multipliers : array, shape (P, J)
        Shadow prices of the constraints in the order of `FeasibleSet.names`: nats per unit.
    gaps : array, shape (P,)
        What is left of `Smoothed.gaps`, nats.
    slopes : array, shape (P, K)
        The target's gradient, without the constraints'.
    """

    minima: Minima
    multipliers: np.ndarray
    gaps: np.ndarray
    slopes: np.ndarray

    def one(self, position: int) -> "Constrained":
        """A single problem's."""
        keep = slice(position, position + 1)
        minima = Minima(*(part[keep] for part in self.minima))
        return Constrained(minima, *(part[keep] for part in self[1:]))

    def times(self, unit: float) -> "Constrained":
        """The same of the target times `unit`; residuals and gaps stay as they were met."""
        minima = self.minima._replace(values=self.minima.values * unit)
        return self._replace(
            minima=minima, multipliers=self.multipliers * unit, slopes=self.slopes * unit
        )


def minimise_within(
    target: Target,
    starts: np.ndarray,
    allowed: FeasibleSet,
    weights: np.ndarray,
    *,
    multipliers: np.ndarray | float = 0.0,
    tolerance: float = 1e-7,
    max_steps: int = 300,
    rounds: int = _ROUNDS,
) -> Constrained:
    """Local minima of many problems over a set of mixtures, side by side.

    Parameters
    ----------
    target : callable
        Of a `Problem.normalised`, to which widths and tolerances are right.
    starts : array, shape (P, K)
        Mixtures; they need not be feasible.
    allowed : FeasibleSet
    weights : array, shape (P, ...)
        p' of the first round; of size 0 where the target has no corners.
    multipliers : array, shape (J,) or (P, J)
        mu of the first round, of all problems or of each.
    tolerance, max_steps
        As in `optimise.minimise`, in each round.
    rounds : int
        At most so many.

    Returns
    -------
    Constrained
    """
    space = _Space(allowed)
    points = space.points(starts)
    lower, upper = space.bounds()
    # prices are of the constraints as stated, mu of their roots
    rate = allowed.rooted(np.zeros((1, len(allowed.names))))[1]
    mu = np.broadcast_to(multipliers / rate, (len(points), len(allowed.names))).copy()
    gaps = np.full(len(points), np.inf)
    values, left = np.empty(len(points)), np.empty(len(points))
    weights, slopes = weights.copy(), np.empty(starts.shape)
    going = np.arange(len(points))
    steepness = _FIRST
    only = not mu.shape[1] and not weights.size  # nothing to go round for
    for turn in range(rounds):
        width = _WIDTHS[min(turn, len(_WIDTHS) - 1)]

        def function(
            y: np.ndarray,
            rows: np.ndarray,
            going: np.ndarray = going,
            width: float = width,
            steepness: float = steepness,
        ) -> tuple[np.ndarray, np.ndarray]:
            which = going[rows]
            at = target(space.mixtures(y), which, weights[which], width)
            excess, rate = allowed.rooted(space.excess(y))
            active, penalty = priced(excess, mu[which], steepness)
            return at.values + penalty, space.gradient(y, at.gradients, active * rate)

        found = minimise(
            function,
            points[going],
            lower,
            upper,
            tolerance=tolerance,
            max_steps=max_steps if only else min(max_steps, _STEPS),
            lengths=space.lengths,
        )
        points[going], left[going] = found.points, found.residuals
        at = target(space.mixtures(found.points), going, weights[going], width)
        excess = allowed.rooted(space.excess(found.points))[0]
        change = np.maximum(excess, -mu[going] / steepness)
        mu[going] = np.maximum(mu[going] + steepness * excess, 0)
        weights[going], values[going] = at.weights, at.values
        gaps[going], slopes[going] = at.gaps, at.gradients
        open_ = (abs(change) > _MET).any(axis=1) | (at.gaps > _MET)
        open_ |= found.residuals > tolerance
        if only or not open_.any():
            break
        going = going[open_]
        steepness = min(steepness * _GROWTH, _MOST)
    return Constrained(Minima(space.mixtures(points), values, left), mu * rate, gaps, slopes)


def priced(excess: np.ndarray, mu: np.ndarray, steepness: float) -> tuple[np.ndarray, np.ndarray]:
    """The multipliers of the next round (P, J), and what breaking the constraints costs (P,)."""
    active = np.maximum(mu + steepness * excess, 0)
    return active, (active**2 - mu**2).sum(axis=1) / (2 * steepness)


class _Space:
    """The variables of a feasible set: the mixture itself, or twice as many with an L1 distance."""

    def __init__(self, allowed: FeasibleSet) -> None:
        self.allowed = allowed
        self.k = len(allowed.lower)
        self.reference = allowed.l1_reference

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = self.allowed.lower, self.allowed.upper
        if self.reference is None:
            return lower, upper
        above, below = np.maximum(upper - self.reference, 0), np.maximum(self.reference - lower, 0)
        least = np.maximum(lower - self.reference, 0), np.maximum(self.reference - upper, 0)
        return (
            np.concatenate([least[0], 1 / self.k - below]),
            np.concatenate([above, 1 / self.k - least[1]]),
        )

    def points(self, mixtures: np.ndarray) -> np.ndarray:
        if self.reference is None:
            return mixtures.copy()
        away = mixtures - self.reference
        return np.concatenate([np.maximum(away, 0), 1 / self.k + np.minimum(away, 0)], axis=1)

    def mixtures(self, y: np.ndarray) -> np.ndarray:
        if self.reference is None:
            return y
        return self.reference - 1 / self.k + y[:, : self.k] + y[:, self.k :]

    def lengths(self, y: np.ndarray) -> np.ndarray:
        return y if self.reference is None else np.tile(self.mixtures(y), 2)

    def excess(self, y: np.ndarray) -> np.ndarray:
        every = self.allowed.excess(self.mixtures(y))
        if self.reference is not None:
            every[:, -1] = 2 * y[:, : self.k].sum(axis=1) - self.allowed.l1_limit
        return every

    def gradient(self, y: np.ndarray, slope: np.ndarray, active: np.ndarray) -> np.ndarray:
        if not active.shape[1]:
            return slope
        slope = slope + self.allowed.pull(self.mixtures(y), active)
        if self.reference is None:
            return slope
        return np.concatenate([slope + 2 * active[:, -1:], slope], axis=1)
