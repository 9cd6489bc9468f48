"""Where an objective is least at one N and D: for the posterior mean, and for every draw."""

from typing import Protocol

import numpy as np

from bayesmix.kinks import settle
from bayesmix.objective import Problem
from bayesmix.optimise import Function, Minima, minimise, project

_SEARCH_DRAWS = 200  # of the search from many starts; the polish takes all draws
_RANDOM_STARTS = 16
_POLISHED = 4  # of the search's ends
_TIE = 1e-9  # nats
_BASIN = 1e-2  # ends closer than this in every weight are one


class Objective(Protocol):
    """What `mean_optimum` asks of an objective; `Problem` is one."""

    def thinned(self, most: int) -> "Objective":
        """The same under at most so many draws."""

    def values(self, points: np.ndarray) -> np.ndarray:
        """Values at mixtures (P, K), shape (S, P)."""

    def of_mean(self) -> Function:
        """The mean over draws, as a function to minimise."""


def mean_optimum(
    of: Objective,
    known: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Minima, int, int]:
    """The mixture that minimises the posterior mean, from many starts.

    Parameters
    ----------
    of : Objective
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
    settle(of, best, lower, upper)
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
