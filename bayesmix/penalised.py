"""Every draw's objective with its constraints as prices, so that kinks can be settled under them.

The method of multipliers (`lagrangian`) stalls where a draw's optimum rests on a kink of the law.
`settle_within` goes on from there: it minimises along the kinks (`kinks`) what the constraints
make of the objective, ``f + sum_j (max(0, mu_j + r c_j)^2 - mu_j^2) / 2r``, and moves the prices
mu until they hold.
"""

from dataclasses import dataclass, replace

import numpy as np

from bayesmix.feasible import FeasibleSet
from bayesmix.kinks import settle
from bayesmix.lagrangian import priced
from bayesmix.objective import Problem
from bayesmix.optimise import Minima, minimise, residual

_STEEPNESS = 100.0  # r, per squared unit of the constraint
_ROUNDS = 24  # of two domains under a tight bound some need more than 8
_STEPS = 100  # of gradients in a round
_PATIENCE = 2  # rounds after which a draw that no round settles is left
_MET = 1e-9  # a breach that is left
_SETTLED = 1e-7


@dataclass(frozen=True, kw_only=True)
class Penalised(Problem):
    """A problem whose `at` has what breaking constraints costs; its `values` have not.

    Attributes
    ----------
    allowed : FeasibleSet
        Without an L1 distance, whose penalty has corners.
    multipliers : array, shape (S, J)
        mu, of what `FeasibleSet.rooted` makes of the constraints.
    """

    allowed: FeasibleSet
    multipliers: np.ndarray

    def subset(self, draws: np.ndarray) -> "Penalised":
        """The same under some of the draws."""
        return replace(
            self,
            parameters=tuple(values[draws] for values in self.parameters),
            objective=self.objective[draws],
            multipliers=self.multipliers[draws],
        )

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Value (S,) and gradient (S, K), every draw at a mixture of its own (S, K)."""
        value, gradient = super().at(points)
        excess, rate = self.allowed.rooted(self.allowed.excess(points))
        active, cost = priced(excess, self.multipliers, _STEEPNESS)
        return value + cost, gradient + self.allowed.pull(points, active * rate)

    def of_rows(self, points: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`at` of the draws in `rows`, as `minimise` calls it."""
        return self.subset(rows).at(points)


def settle_within(of: Problem, best: Minima, multipliers: np.ndarray, allowed: FeasibleSet) -> None:
    """Improve, in place, the draws' optima under constraints at which the rounds stalled.

    Parameters
    ----------
    of : Problem
        Normalised, of a sum, not of the worst domain.
    best : Minima
        One point a draw.
    multipliers : array, shape (S, J)
        Shadow prices there.
    allowed : FeasibleSet
        Without an L1 distance.
    """
    parts = {name: getattr(of, name) for name in Problem.__dataclass_fields__}
    excess = allowed.rooted(allowed.excess(best.points))[0]
    rate = allowed.rooted(np.zeros_like(excess))[1]
    every = Penalised(**parts, allowed=allowed, multipliers=multipliers / rate)
    slack = np.maximum(excess, -every.multipliers / _STEEPNESS)
    going = np.flatnonzero((best.residuals > _SETTLED) | (abs(slack) > _MET).any(axis=1))
    for turn in range(_ROUNDS):
        if not going.size:
            return
        these = every.subset(going)
        if turn:
            # new prices: to the next kink by gradients
            found = minimise(
                these.of_rows,
                best.points[going],
                allowed.lower,
                allowed.upper,
                max_steps=_STEPS,
            )
        else:
            points = best.points[going]
            value, slope = these.at(points)
            left = residual(points, slope, allowed.lower, allowed.upper)
            found = Minima(points, value, left)
        settle(these, found, allowed.lower, allowed.upper)
        excess = allowed.rooted(allowed.excess(found.points))[0]
        change = np.maximum(excess, -these.multipliers / _STEEPNESS)
        every.multipliers[going] = priced(excess, these.multipliers, _STEEPNESS)[0]
        best.points[going] = found.points
        best.values[going] = of.subset(going).at(found.points)[0]
        best.residuals[going] = found.residuals
        open_ = (abs(change) > _MET).any(axis=1)
        unsettled = found.residuals > _SETTLED
        going = going[open_ & ~unsettled if turn >= _PATIENCE else open_ | unsettled]
