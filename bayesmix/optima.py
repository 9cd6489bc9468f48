"""Where an objective is least at one N and D: for the posterior mean, and for every draw.

The objective is a weighted sum of the law's losses, of which `law.py` gives values and exact
gradients; `optimise.py` minimises. The mixtures are exact: a domain at 0 has no tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bayesmix import law as laws
from bayesmix.fit import Fit
from bayesmix.model import law_draws
from bayesmix.optimise import Function, Minima, minimise, project

_SEARCH_DRAWS = 200  # of the search from many starts; the polish takes all draws
_RANDOM_STARTS = 16
_POLISHED = 4  # of the search's ends
_AT_ONCE = 8000  # evaluations in one call of the kernel
_TIE = 1e-9  # nats
_BASIN = 1e-2  # ends closer than this in every weight are one


@dataclass(frozen=True)
class Problem:
    """An objective at one N and D under every posterior draw.

    Attributes
    ----------
    parameters : tuple of arrays
        The kernel's, in the order of `law.PARAMETERS`, each with a leading axis of S draws.
    variant : Variant
    n_params, n_tokens : float
        N (parameters) and D (tokens).
    objective : array, shape (C,)
        Non-negative weights over domains and targets.
    """

    parameters: tuple[np.ndarray, ...]
    variant: laws.Variant
    n_params: float
    n_tokens: float
    objective: np.ndarray

    @property
    def n_draws(self) -> int:
        """S, the number of draws."""
        return len(self.parameters[0])

    def subset(self, draws: np.ndarray) -> "Problem":
        """The same under some of the draws."""
        return replace(self, parameters=tuple(values[draws] for values in self.parameters))

    def thinned(self, most: int) -> "Problem":
        """The same under at most so many draws, evenly spaced."""
        if self.n_draws <= most:
            return self
        return self.subset(np.linspace(0, self.n_draws - 1, most).astype(int))

    def values(self, points: np.ndarray) -> np.ndarray:
        """The objective of mixtures (P, K) under every draw, shape (S, P)."""
        sizes = np.ones(len(points))
        at = laws.points(points, self.n_params * sizes, self.n_tokens * sizes)
        loss = laws.evaluate_draws(
            *self.parameters, *at.arrays, self.variant.noise, self.variant.head
        )
        return loss @ self.objective

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Objective (S,) and gradient (S, K), every draw at a mixture of its own (S, K)."""
        return laws.objective_draws(
            *self.parameters,
            np.ascontiguousarray(points),
            np.log(self.n_params),
            np.log(self.n_tokens),
            self.objective,
            self.variant.noise,
            self.variant.head,
        )

    def of_mean(self) -> Function:
        """The posterior mean as a function to minimise, the same for every start."""

        def function(points: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # several points in one call: starting threads costs more than a few draws do
            size = max(_AT_ONCE // self.n_draws, 1)
            values, gradients = [], []
            for start in range(0, len(points), size):
                some = points[start : start + size]
                shape = (len(some), self.n_draws)
                every = self.subset(np.tile(np.arange(self.n_draws), len(some)))
                value, gradient = every.at(np.repeat(some, self.n_draws, axis=0))
                values.append(value.reshape(shape).mean(axis=1))
                gradients.append(gradient.reshape(*shape, -1).mean(axis=1))
            return np.concatenate(values), np.concatenate(gradients)

        return function

    def of_draws(self) -> Function:
        """Every draw's objective as a problem of its own."""

        def function(points: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            these = self if len(draws) == self.n_draws else self.subset(draws)
            return these.at(points)

        return function


def problem(fit: Fit, n_params: float, n_tokens: float, objective: Mapping[str, float]) -> Problem:
    """The problem of a fit's posterior, for an objective {component: weight}."""
    weights = np.array([float(objective.get(name, 0.0)) for name in fit.components])
    draws = law_draws(fit.posterior["posterior"].to_dataset())
    # a loss outside the objective may be infinite at weight 0, and 0 x inf is no number
    draws["tau"][:, weights == 0] = 1.0
    parameters = tuple(draws[name] for name in laws.PARAMETERS)
    return Problem(parameters, laws.LAWS[fit.law], float(n_params), float(n_tokens), weights)


def mean_optimum(
    of: Problem,
    known: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Minima, int, int]:
    """The mixture that minimises the posterior mean, from many starts.

    Parameters
    ----------
    of : Problem
    known : array, shape (P, K)
        Mixtures to start from, beside those near the vertices and random ones.
    lower, upper : array, shape (K,)
        Feasible bounds.
    rng : Generator
        Of the random starts.

    Returns
    -------
    minimum : Minima
        One point.
    starts, agreed : int
        Starts of the search, and how many of them ended in the minimum's basin.

    Raises
    ------
    ValueError
        If the objective is infinite wherever the bounds allow.
    """
    n_domains = len(lower)
    near_vertices = 0.95 * np.eye(n_domains) + 0.05 / n_domains
    random = rng.dirichlet(np.ones(n_domains), _RANDOM_STARTS)
    starts = inside(np.concatenate([known, near_vertices, random]), lower, upper)
    few = of.thinned(_SEARCH_DRAWS)
    if not np.isfinite(few.values(starts)).all():
        raise ValueError(
            "the objective is infinite at every mixture that the bounds allow: this law has no "
            "finite loss for a domain without tokens; give it an upper bound above 0"
        )
    ends = minimise(few.of_mean(), starts, lower, upper, tolerance=1e-5, max_steps=150)
    distinct: list[int] = []
    for end in np.argsort(ends.values):
        if all(_apart(ends.points[end], ends.points[other]) for other in distinct):
            distinct.append(int(end))
    candidates = distinct[:_POLISHED]
    polished = minimise(of.of_mean(), ends.points[candidates], lower, upper)
    # of candidates that end alike, the one that the search had come closest to
    first = int(np.argmax(polished.values <= polished.values.min() + _TIE))
    found = ends.points[candidates[first]]
    agreed = sum(not _apart(found, end) for end in ends.points)
    return Minima(*(part[first : first + 1] for part in polished)), len(starts), agreed


def draw_optima(of: Problem, starts: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Minima:
    """The best of the local minima that every draw reaches from the same few starts (P, K).

    No draw's optimum is worse than the feasible starts themselves.
    """
    starts = project(starts, lower, upper)
    every = np.arange(of.n_draws)
    first = np.tile(inside(starts[:1], lower, upper), (of.n_draws, 1))
    best = minimise(of.of_draws(), first, lower, upper)
    for start in inside(starts[1:], lower, upper):
        _improve(best, of, every, start, lower, upper)
    for start, values in zip(starts, of.values(starts).T, strict=True):
        # a start on the boundary can be better than all that was reached from inside
        _improve(best, of, np.flatnonzero(values < best.values - _TIE), start, lower, upper)
    return best


def _improve(
    best: Minima,
    of: Problem,
    draws: np.ndarray,
    start: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> None:
    """Minimise some draws from a start, and keep in `best` what is better."""
    if not draws.size:
        return
    starts = np.tile(start, (draws.size, 1))
    found = minimise(of.subset(draws).of_draws(), starts, lower, upper)
    better = found.values < best.values[draws]
    for kept, new in zip(best, found, strict=True):
        kept[draws[better]] = new[better]


def inside(points: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Feasible points near the given ones, a hundredth of the way from the bounds' middle.

    On the boundary the capacity gradient of a domain without weight vanishes, and under some laws
    its loss is infinite: no place to start from.
    """
    room = upper - lower
    share = (1 - lower.sum()) / room.sum() if room.sum() > 0 else 0.0
    return 0.99 * project(points, lower, upper) + 0.01 * (lower + share * room)


def _apart(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(abs(one - other).max() > _BASIN)
