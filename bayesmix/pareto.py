"""More than one mixture: the front of two objectives, and all that is near the optimum."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from scipy.optimize import minimize

from bayesmix.constraints import Constraint
from bayesmix.feasible import FEASIBLE, FeasibleSet, feasible_set
from bayesmix.objective import Objective, Problem, problem, resolve_objective
from bayesmix.optima import InfiniteObjectiveError, mean_optimum, risk_optimum
from bayesmix.optimise import project
from bayesmix.posterior import Fit
from bayesmix.risk import Mean

_TIE = 1e-9  # nats, where the weights sum to 1
_TRIES = 6  # of the search for the farthest mixture
_FAR = 1e-5  # of a weight: less is no gain


def pareto_front(
    fit: Fit,
    n_params: float,
    n_tokens: float,
    objectives: Mapping[str, Mapping[str, float]],
    *,
    constraints: Sequence[Constraint] = (),
    points: int = 15,
    draws: int = 500,
    seed: int = 0,
) -> xr.Dataset:
    """Mixtures at which one expected objective can only fall if another rises.

    Parameters
    ----------
    fit : Fit
        A sampled posterior.
    n_params, n_tokens : float
        N (parameters) and D (tokens) of the run to come.
    objectives : mapping
        Two: {name: {domain or ``target:<name>``: weight}}.
    constraints : sequence of Constraint
    points : int
        Mixtures along the front, at least 2; fewer where it is straight.
    draws : int
        At most so many posterior draws, evenly spaced.
    seed : int
        Of the random starts and the discrepancy.

    Returns
    -------
    Dataset, dims (point, domain, objective, draw)
        ``weights`` (point, domain), from the least of the first objective to the least of the
        second; ``loss`` (objective, point, draw), nats per token. Attributes ``residual`` and
        ``violation``, the worst of the mixtures', as in `Recommendation.convergence`.

    Raises
    ------
    ValueError
        As `recommend`, unless there are two objectives, weighted sums of losses, and if one is
        infinite where the other is least.

    Examples
    --------
    With the priors' draws for a fit:

    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> fit = prior_fit(load_dataset("simulated"), draws=20)
    >>> front = pareto_front(fit, 4e9, 8e10, {"code": {"code": 1}, "wiki": {"wiki": 1}}, points=3)
    >>> code, wiki = front["loss"].mean("draw").values
    >>> bool((np.diff(code) > 0).all() and (np.diff(wiki) < 0).all())
    True
    """
    if len(objectives) != 2 or points < 2:
        raise ValueError(
            "a front has two objectives, {name: {domain: weight}}, and 2 points or more"
        )
    domains = fit.runs.domains
    resolved = [
        resolve_objective(fit.components, fit.observed_components, objective)
        for objective in objectives.values()
    ]
    if any(worst for _, worst in resolved):
        raise ValueError("the front is that of weighted sums of losses")
    each = [wanted for wanted, _ in resolved]

    def combined(shares: Sequence[float]) -> Problem:
        wanted = {
            name: sum(w * one.get(name, 0.0) for w, one in zip(shares, each, strict=True))
            for name in fit.components
        }
        return problem(fit, n_params, n_tokens, wanted, seed=seed).thinned(draws)

    alone = [combined(shares) for shares in ((1.0, 0.0), (0.0, 1.0))]
    allowed = feasible_set(constraints, domains, n_tokens)
    rng = np.random.default_rng(seed)
    start = np.full((1, len(domains)), 1 / len(domains))
    ends = [mean_optimum(of, start, allowed, rng)[0].minima for of in alone]
    found = np.concatenate([end.points for end in ends])
    residual = max(float(end.residuals[0]) for end in ends)
    means = np.stack([of.values(found).mean(axis=0) for of in alone])
    if not np.isfinite(means).all():
        raise InfiniteObjectiveError(
            "one objective is infinite where the other is least: this law has no finite loss for a "
            "domain without tokens; give the domains of each a lower bound above 0"
        )
    done = {-1}  # chords, by their first point, beyond which nothing lies
    while len(found) < points:
        # the chord that spans the most area, and what lies farthest beyond it (Cohon 1978)
        sides = abs(np.diff(means))
        areas = [0.0 if i in done else area for i, area in enumerate(sides.prod(axis=0))]
        i = int(np.argmax(areas))
        if areas[i] == 0:
            break
        shares = sides[::-1, i] / sides[:, i].sum()
        between = found[i : i + 2].mean(axis=0, keepdims=True)
        of = combined(tuple(shares))
        h = risk_optimum(of, Mean(), np.concatenate([between, found[i : i + 2]]), allowed)[0]
        new = np.stack([one.values(h.minima.points).mean(axis=0) for one in alone])
        residual = max(residual, float(h.minima.residuals[0]))
        if shares @ (means[:, [i]] - new) <= _TIE * of.normalised()[1]:
            done.add(i)
            continue
        done = {j + (j > i) for j in done}
        found = np.insert(found, i + 1, h.minima.points[0], axis=0)
        means = np.insert(means, [i + 1], new, axis=1)
    losses = np.stack([of.values(found).T for of in alone])
    return xr.Dataset(
        {
            "weights": (("point", "domain"), found),
            "loss": (("objective", "point", "draw"), losses),
        },
        {"domain": list(domains), "objective": list(objectives)},
        {"residual": residual, "violation": float(allowed.violation(found).max())},
    )


def near_optimal(
    fit: Fit,
    n_params: float,
    n_tokens: float,
    epsilon: float,
    *,
    objective: Objective | None = None,
    constraints: Sequence[Constraint] = (),
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    """How far every weight can go among mixtures within `epsilon` of the least expected loss.

    By a local search: the mixtures found are in the set, but where `epsilon` is large against the
    law's kinks a weight may go farther.

    Parameters
    ----------
    fit : Fit
        A sampled posterior.
    n_params, n_tokens : float
        N (parameters) and D (tokens) of the run to come.
    epsilon : float
        Nats per token, times the objective's weights.
    objective : mapping, optional
        As in `recommend`.
    constraints : sequence of Constraint
    draws : int
        At most so many posterior draws, evenly spaced.
    seed : int
        Of the random starts and the discrepancy.

    Returns
    -------
    Dataset, dims (end, domain, weight_of)
        ``weights`` (domain, end, weight_of): of the mixtures in the set the one with the
        ``least`` and the ``most`` of each domain; ``loss`` (domain, end), their expected loss.
        Attributes ``optimum``, the least expected loss, and ``residual`` and ``violation``, its
        own and the worst of the mixtures', as in `Recommendation.convergence`.

    Raises
    ------
    ValueError
        As `recommend`, and if `epsilon` is not above 0.

    Examples
    --------
    With the priors' draws for a fit:

    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> fit = prior_fit(load_dataset("simulated"), draws=20)
    >>> near = near_optimal(fit, 4e9, 8e10, epsilon=0.01)
    >>> (near["loss"] - near.attrs["optimum"]).max().item() < 0.01 + 1e-6
    True
    >>> least, most = near["weights"].sel(domain="code", weight_of="code").values
    >>> bool(least < most)
    True
    """
    if not 0 < epsilon < np.inf:
        raise ValueError(f"epsilon must be above 0, got {epsilon!r}")
    wanted, worst = resolve_objective(fit.components, fit.observed_components, objective)
    if worst:
        raise ValueError("the set is that of a weighted sum of losses")
    domains = list(fit.runs.domains)
    of = problem(fit, n_params, n_tokens, wanted, seed=seed).thinned(draws)
    allowed = feasible_set(constraints, domains, n_tokens)
    start = np.full((1, len(domains)), 1 / len(domains))
    best = mean_optimum(of, start, allowed, np.random.default_rng(seed))[0].minima
    ends = np.array(
        [
            [_farthest(of, best.points[0], best.values[0] + epsilon, i, sign, allowed)
             for sign in (1.0, -1.0)]
            for i in range(len(domains))
        ]
    )  # fmt: skip
    mixtures = ends.reshape(-1, len(domains))
    loss = of.values(mixtures).mean(axis=0).reshape(-1, 2)
    return xr.Dataset(
        {"weights": (("domain", "end", "weight_of"), ends), "loss": (("domain", "end"), loss)},
        {"domain": domains, "end": ["least", "most"], "weight_of": domains},
        {
            "optimum": float(best.values[0]),
            "residual": float(best.residuals[0]),
            "violation": float(allowed.violation(mixtures).max()),
        },
    )


def _farthest(
    of: Problem, best: np.ndarray, ceiling: float, domain: int, sign: float, allowed: FeasibleSet
) -> np.ndarray:
    """The mixture with the least (sign 1) or most (-1) of a domain and a loss below the ceiling.

    `best` is the mixture with the least loss, at which SLSQP itself would be stuck.
    """
    k = len(best)
    every = np.ones(of.n_draws)[:, None]
    epsilon = ceiling - of.at(every * best)[0].mean()

    def room(h: np.ndarray) -> np.ndarray:
        left = (ceiling - of.at(every * h)[0].mean()) / epsilon
        return np.concatenate([[left], -allowed.excess(h[None])[0]])

    def slope(h: np.ndarray) -> np.ndarray:
        columns = np.eye(len(allowed.names))
        others = [allowed.pull(h[None], one[None])[0] for one in columns]
        if allowed.l1_reference is not None:
            others[-1] = np.sign(h - allowed.l1_reference)
        return -np.array([of.at(every * h)[1].mean(axis=0) / epsilon, *others])

    def inside(h: np.ndarray, slack: float) -> bool:
        left = room(h)
        return bool(left[0] >= slack and left[1:].min(initial=0.0) >= -FEASIBLE)

    def within(h: np.ndarray, inner: np.ndarray, slack: float) -> np.ndarray:
        """The last mixture on the way from one in the set to another that is in it."""
        h = project(h[None], allowed.lower, allowed.upper)[0]
        if inside(h, slack):
            return h
        low, high = 0.0, 1.0
        while high - low > 1e-9:
            middle = (low + high) / 2
            if inside(inner + middle * (h - inner), slack):
                low = middle
            else:
                high = middle
        return inner + low * (h - inner)

    unit = np.eye(k)[domain]
    others = np.where(unit > 0, 0.0, np.maximum(best, 1e-3))
    towards = others / others.sum() if sign > 0 else unit
    least = np.maximum(allowed.lower, 1e-9 * (allowed.upper > 0))
    # half of epsilon is kept, so that no constraint but the others' binds at the start
    reached = start = within(towards, best, 0.5)
    for _ in range(_TRIES):
        found = minimize(
            lambda h: (sign * h[domain], sign * unit),
            start,
            jac=True,
            method="SLSQP",
            bounds=list(zip(least, allowed.upper, strict=True)),
            constraints=[
                {"type": "ineq", "fun": room, "jac": slope},
                {"type": "eq", "fun": lambda h: h.sum() - 1, "jac": lambda _: np.ones((1, k))},
            ],
            options={"ftol": 1e-9, "maxiter": 200},
        )
        # the search may end outside, where the law has kinks
        end = within(found.x, start, -FEASIBLE)
        gain = sign * (reached - end)[domain]
        if gain > 0:
            reached = end
        if found.success and gain < _FAR:
            break
        start = reached if gain >= _FAR else (start + best) / 2
    return reached
