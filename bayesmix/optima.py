"""Where an objective is least at one N and D: under a measure of risk, and for every draw."""

import numpy as np

from bayesmix.feasible import FEASIBLE, FeasibleSet
from bayesmix.kinks import settle
from bayesmix.lagrangian import Constrained, minimise_within
from bayesmix.objective import Problem, draws_target, first_weights, risk_target
from bayesmix.optimise import Minima, project
from bayesmix.penalised import settle_within
from bayesmix.risk import Mean, ProbBelow, Risk, scale

_SEARCH_DRAWS = 200  # of the search from many starts; the polish takes all draws
_RANDOM_STARTS = 16
_POLISHED = 4  # of the search's ends
_TIE = 1e-9  # nats, where the weights sum to 1
_SEARCH_ROUNDS = 5
_PRICED_ROUNDS = 7  # of multipliers, where what they leave is settled afterwards
_BISECTIONS = 40
_LITTLE = 0.05  # of all weight, which a sum leaves to a few
_SHARED = 24  # draws whose optima others are tried at
_BASIN = 1e-2  # ends closer than this in every weight are one


class InfiniteObjectiveError(ValueError):
    """An objective without a finite value at any mixture that is allowed."""


def mean_optimum(
    of: Problem, known: np.ndarray, allowed: FeasibleSet, rng: np.random.Generator
) -> tuple[Constrained, int, int]:
    """The mixture that minimises the posterior mean, from many starts.

    Parameters
    ----------
    of : Problem
    known : array, shape (P, K)
        Mixtures to start from, beside those near the vertices and random ones.
    allowed : FeasibleSet
    rng : Generator
        Of the random starts.

    Returns
    -------
    minimum : Constrained
        One point.
    starts, agreed : int
        Starts of the search, and how many of them ended in the minimum's basin.

    Raises
    ------
    InfiniteObjectiveError
        If the objective is infinite wherever the bounds allow.
    """
    of, unit = of.normalised()
    starts = many_starts(known, allowed, rng)
    few = of.thinned(_SEARCH_DRAWS)
    if not np.isfinite(few.values(starts)).all():
        raise InfiniteObjectiveError(
            "the objective is infinite at every mixture that the bounds allow: this law has no "
            "finite loss for a domain without tokens; give it an upper bound above 0"
        )
    # the kinks of few draws are steep: what lies between them is for the polish
    searched = minimise_within(
        risk_target(few, Mean()),
        starts,
        allowed,
        first_weights(few, Mean(), len(starts)),
        tolerance=1e-5,
        max_steps=150,
        rounds=_SEARCH_ROUNDS,
    )
    ends = searched.minima
    distinct: list[int] = []
    ranked = ends.values
    if allowed.l1_reference is None:  # what a breach that is left would cost
        ranked = ranked + (searched.multipliers * allowed.excess(ends.points)).sum(axis=1)
    for end in np.argsort(ranked):
        if all(_apart(ends.points[end], ends.points[other]) for other in distinct):
            distinct.append(int(end))
    kept = distinct[:_POLISHED]
    candidates = ends.points[kept]
    best, first = risk_optimum(of, Mean(), candidates, allowed, prices=searched.multipliers[kept])
    agreed = sum(not _apart(candidates[first], end) for end in ends.points)
    return best.times(unit), len(starts), agreed


def risk_optimum(
    of: Problem,
    risk: Risk,
    starts: np.ndarray,
    allowed: FeasibleSet,
    less: np.ndarray | float = 0.0,
    prices: np.ndarray | float = 0.0,
) -> tuple[Constrained, int]:
    """The mixture that minimises a measure of risk, from a few starts.

    Parameters
    ----------
    of : Problem
    risk : Risk
    starts : array, shape (P, K)
    allowed : FeasibleSet
    less : array, shape (S,)
        What the measure takes the draws relative to.
    prices : array, shape (P, J)
        Multipliers to start from.

    Returns
    -------
    minimum : Constrained
        One point.
    first : int
        The start it was reached from; of those that end alike, the first.
    """
    of, unit = of.normalised()
    less, prices = less / unit, prices / unit
    near = of.values(starts) - np.reshape(less, (-1, 1))
    # the mixture to beat may be a start, and less itself it has no spread
    widest = int(near.std(axis=0).argmax()) if isinstance(risk, ProbBelow) else 0
    width = scale(risk, near[:, widest])
    target = risk_target(of, risk, width, less)
    weights = first_weights(of, risk, len(starts))
    ends = minimise_within(target, starts, allowed, weights, multipliers=prices)
    breach = allowed.violation(ends.minima.points)
    # what breaks the constraints is no better for being lower
    values = np.where(breach <= max(FEASIBLE, breach.min()), ends.minima.values, np.inf)
    first = int(np.argmax(values <= values.min() + _TIE))
    best = ends.one(first)
    points = _drawn_back(best.minima.points, allowed)
    moved = best.minima.values + (best.slopes * (points - best.minima.points)).sum(axis=1)
    best = best._replace(minima=best.minima._replace(points=points, values=moved))
    # prices and slopes of a chance are not of nats
    return best.times(1 / width if isinstance(risk, ProbBelow) else unit), first


def draw_optima(
    of: Problem,
    starts: np.ndarray,
    allowed: FeasibleSet,
    multipliers: np.ndarray | float = 0.0,
) -> Minima:
    """The best of the local minima that every draw reaches from the same few starts (P, K).

    No draw's optimum is worse than the feasible starts themselves. `multipliers`, of shape (J,),
    are the shadow prices at the first start.
    """
    of, unit = of.normalised()
    multipliers = multipliers / unit
    every = np.arange(of.n_draws)
    inner = inside(starts, allowed)
    priced = bool(allowed.names) and not of.worst and allowed.l1_reference is None
    options = {"rounds": _PRICED_ROUNDS} if priced else {}
    first = _minimise(of, every, inner[0], allowed, multipliers, **options)
    best = first.minima
    if priced:
        settle_within(of, best, first.multipliers, allowed)
    failed = np.flatnonzero(allowed.violation(best.points) > FEASIBLE)
    best.values[failed] = np.inf
    _improve(best, of, failed, inner[0], allowed)
    # rounds of multipliers cost more than the other starts are worth
    if not _is_hard(of, allowed):
        for start in inner[1:]:
            _improve(best, of, every, start, allowed)
    starts = project(starts, allowed.lower, allowed.upper)
    kinks = _at_kinks(starts[0], allowed)
    if len(kinks):  # there what some draws found may be better for others
        some = np.linspace(0, of.n_draws - 1, min(of.n_draws, _SHARED)).astype(int)
        starts = np.concatenate([starts, best.points[some], kinks])
    starts = starts[allowed.violation(starts) <= FEASIBLE]
    # what a breach that still counts as none is worth
    prices = np.broadcast_to(first.multipliers, (of.n_draws, len(allowed.names)))
    tie = _TIE + FEASIBLE * prices.sum(axis=1)
    for start, values in zip(starts, of.values(starts).T, strict=True):
        # a start on the boundary can be better than all that was reached from inside
        better = np.flatnonzero(values < best.values - tie)
        _improve(best, of, better, start, allowed)
        lost = better[values[better] < best.values[better] - tie[better]]
        # no search ended as low within the set: the start itself, which is no optimum
        best.points[lost], best.values[lost], best.residuals[lost] = start, values[lost], np.inf
    left = np.flatnonzero(np.isinf(best.values))
    if left.size:  # nor is a start feasible
        best.values[left] = np.diagonal(of.subset(left).values(best.points[left]))
        best.residuals[left] = np.inf
    if not _is_hard(of, allowed):
        settle(of, best, allowed.lower, allowed.upper)
    return best._replace(values=best.values * unit)


def _is_hard(of: Problem, allowed: FeasibleSet) -> bool:
    return of.worst or bool(allowed.names)


def _minimise(
    of: Problem,
    draws: np.ndarray,
    start: np.ndarray,
    allowed: FeasibleSet,
    multipliers: np.ndarray | float = 0.0,
    **options: int,
) -> Constrained:
    """Minimise some draws' objectives from one start."""
    these = of if draws.size == of.n_draws else of.subset(draws)
    starts = np.tile(start, (draws.size, 1))
    return minimise_within(
        draws_target(these),
        starts,
        allowed,
        first_weights(these, None, draws.size),
        multipliers=multipliers,
        **options,
    )


def _improve(
    best: Minima, of: Problem, draws: np.ndarray, start: np.ndarray, allowed: FeasibleSet
) -> None:
    """Minimise some draws from a start, and keep in `best` what is better."""
    if not draws.size:
        return
    found = _minimise(of, draws, start, allowed).minima
    found.values[allowed.violation(found.points) > FEASIBLE] = np.inf
    better = found.values < best.values[draws]
    for kept, new in zip(best, found, strict=True):
        kept[draws[better]] = new[better]


def many_starts(known: np.ndarray, allowed: FeasibleSet, rng: np.random.Generator) -> np.ndarray:
    """Mixtures that are known, near every vertex and at random, moved `inside`."""
    n_domains = len(allowed.lower)
    near_vertices = 0.95 * np.eye(n_domains) + 0.05 / n_domains
    random = rng.dirichlet(np.ones(n_domains), _RANDOM_STARTS)
    return inside(np.concatenate([known, near_vertices, random]), allowed)


def inside(points: np.ndarray, allowed: FeasibleSet) -> np.ndarray:
    """Points within bounds near the given ones, a hundredth of the way from the bounds' middle.

    On the boundary the capacity gradient of a domain without weight vanishes, and under some laws
    its loss is infinite: no place to start from.
    """
    lower, upper = allowed.lower, allowed.reach()
    room = upper - lower
    share = (1 - lower.sum()) / room.sum() if room.sum() > 0 else 0.0
    return 0.99 * project(points, lower, upper) + 0.01 * (lower + share * room)


def _at_kinks(point: np.ndarray, allowed: FeasibleSet) -> np.ndarray:
    """Mixtures (P, K) near a point in which one of a few domains has all that is left to them.

    Small weights are at kinks of the law, on either side of which there may be a minimum.
    """
    made = []
    for few, most in allowed.at_most():
        for one in np.flatnonzero(few & (most < _LITTLE)):
            h = np.where(few, allowed.lower, point)
            h[one] += most - h[few].sum()
            h[~few] *= (1 - h[few].sum()) / h[~few].sum()
            made.append(h)
    return np.array(made).reshape(-1, len(point))


def _drawn_back(points: np.ndarray, allowed: FeasibleSet) -> np.ndarray:
    """Points (P, K), those that rounds left outside moved towards the centre of a divergence."""
    centres = allowed.kl_references
    centres = centres[allowed.violation(centres) <= FEASIBLE / 2]
    outside = allowed.violation(points) > FEASIBLE
    if not (len(centres) and outside.any()):
        return points
    low, high = np.zeros((len(points), 1)), outside.astype(float)[:, None]
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        within = allowed.violation(points + middle * (centres[0] - points)) <= FEASIBLE
        low, high = np.where(within[:, None], low, middle), np.where(within[:, None], middle, high)
    return points + high * (centres[0] - points)


def _apart(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(abs(one - other).max() > _BASIN)
