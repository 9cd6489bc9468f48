"""The mixture to train: what minimises a measure of risk of an objective, and how sure that is.

The objective is a weighted sum of expected losses at the target N and D, or the worst of them. Two
kinds of optima are found, both under the same constraints and with the law's exact gradients: that
of the measure of risk over the posterior, which is recommended, and that of every posterior draw,
whose spread says what the posterior does not know.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix._cautions import TOLERANCE, doubts, outside, unfinished
from bayesmix._recommendation import Recommendation
from bayesmix.constraints import Constraint
from bayesmix.feasible import FEASIBLE, FeasibleSet, feasible_set
from bayesmix.lagrangian import Constrained
from bayesmix.model import MODEL_VERSION
from bayesmix.objective import Objective, Problem, check_sizes, problem, resolve_objective
from bayesmix.optima import (
    InfiniteObjectiveError,
    draw_optima,
    inside,
    mean_optimum,
    risk_optimum,
)
from bayesmix.optimise import Minima
from bayesmix.posterior import Fit
from bayesmix.predict import predict_at
from bayesmix.risk import Mean, ProbBelow, Regret, Risk, is_mean, value

__all__ = ["Recommendation", "recommend"]

_RANKING_DRAWS = 500  # by which the best observed run is chosen
_ACTIVE = 1e-8  # a weight this close to its bound rests on it
_TIE = 1e-9  # nats
_PACKAGES = ("bayesmix", "numpy", "numba", "xarray", "pymc")
RECOMMENDED, UNCONSTRAINED = "recommended", "unconstrained"


def recommend(
    fit: Fit,
    n_params: float,
    n_tokens: float,
    *,
    objective: Objective | None = None,
    risk: Risk | None = None,
    constraints: Sequence[Constraint] = (),
    baselines: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Recommendation:
    """The mixture that minimises a measure of risk of an objective at N and D.

    Weights are exact: a domain at 0 has no tokens, whatever resolution the swarm's weights were
    printed to.

    Parameters
    ----------
    fit : Fit
        A sampled posterior.
    n_params, n_tokens : float
        N (parameters) and D (tokens) of the run to come.
    objective : mapping or Worst, optional
        Non-negative weights of losses, {domain or ``target:<name>``: weight}; by default the mean
        over the domains with observed losses.
    risk : Risk, optional
        `Mean` (the default), `Quantile`, `CVaR`, `Regret` or `ProbBelow`.
    constraints : sequence of Constraint
        `Bounds`, `Fixed`, `GroupSum`, `TokenBudget`, `KL`, `L1`.
    baselines : mapping, optional
        Mixtures to compare with beside the usual ones: {name: {domain: weight}}, or
        {name: point fit}, whose optimum is taken.
    seed : int
        Of the random starts, the discrepancy and the run noise.

    Returns
    -------
    Recommendation

    Raises
    ------
    ValueError
        If names are unknown or taken, weights negative or all zero, N or D not positive, no
        mixture meets the constraints, none of them has a finite objective, or the mixture to beat
        has none.

    Notes
    -----
    All draws are used. They are those of `predict` at this N and D with the same seed, one by one.

    Examples
    --------
    With the priors' draws for a fit:

    >>> from bayesmix import Bounds, load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> fit = prior_fit(load_dataset("simulated"), draws=20)
    >>> rec = recommend(fit, 4e9, 8e10, constraints=[Bounds({"code": (0.3, 1.0)})])
    >>> round(rec.weights.sel(domain="code").item(), 6)
    0.3
    >>> rec.constraints[["constraint", "binding"]].values.tolist()
    [['code at least 0.3', True]]
    """
    # before constraints count tokens
    check_sizes(n_params, n_tokens)
    constraints = tuple(constraints)
    risk = Mean() if risk is None else risk
    wanted, worst = resolve_objective(fit.components, fit.observed_components, objective)
    domains = fit.runs.domains
    allowed = feasible_set(constraints, domains, n_tokens)
    of = problem(fit, n_params, n_tokens, wanted, worst=worst, seed=seed)
    known, run_ids = _known_mixtures(fit, of)
    for name, given in (baselines or {}).items():
        if name in (*known, RECOMMENDED, UNCONSTRAINED):
            raise ValueError(f"{name!r} is a baseline already: choose another name")
        if hasattr(given, "optimum"):
            if worst:
                raise ValueError(f"baseline {name!r}: a point fit has no optimum of the worst loss")
            given = given.optimum(n_params, n_tokens, wanted).to_series().to_dict()
        known[name] = mixture_of(domains, given, f"baseline {name!r}")
    theirs = risk.baseline if isinstance(risk, ProbBelow) else None
    beat = None if theirs is None else mixture_of(domains, theirs)

    found = choose(of, risk, np.stack([*known.values()]), allowed, beat, seed)
    h, optima = found.best.minima.points[0], found.optima
    if constraints:
        free = feasible_set((), domains, n_tokens)
        beside = choose(of, risk, np.stack([h, *known.values()]), free, beat, seed)
        known[UNCONSTRAINED] = beside.best.minima.points[0]

    at = pd.DataFrame({"n_params": float(n_params), "n_tokens": float(n_tokens)}, index=range(1))
    mixtures = np.stack([h, *known.values()])
    values = of.values(mixtures)
    values[~np.isfinite(values)] = np.nan
    keeps = allowed.violation(mixtures) <= FEASIBLE
    everyone = np.array([RECOMMENDED, *known])
    candidates = (keeps & (everyone != UNCONSTRAINED)) | (everyone == RECOMMENDED)
    named = np.where(np.isnan(values), np.inf, values)[:, candidates]
    # of equal mixtures, such as the only one allowed, each has its share
    first = named <= named.min(axis=1, keepdims=True) + _TIE
    p_best = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    convergence = {
        "residual": float(found.best.minima.residuals[0]),
        "violation": float(allowed.violation(h[None])[0]),
        "gap": float(found.best.gaps[0]),
        "starts": found.starts,
        "agreed": found.agreed,
        "draws_residual": float(optima.residuals.max()),
        "draws_converged": float((optima.residuals <= TOLERANCE).mean()),
        "draws_violation": float(allowed.violation(optima.points).max()),
    }
    names = list(domains)
    return Recommendation(
        weights=xr.DataArray(h, {"domain": names}, "domain", "weights"),
        loss=xr.DataArray(values[:, 0], dims="draw", attrs={"units": "nats per token"}),
        losses=predict_at(fit, h[None], at, seed=seed),
        optima=xr.DataArray(optima.points, {"domain": names}, ("draw", "domain"), "optima"),
        objective=wanted,
        worst=worst,
        risk=str(risk),
        risk_value=value(risk, values[:, 0] - found.less),
        bounds=_bounds(allowed, h, names),
        constraints=_prices(allowed, found.best),
        baselines=xr.Dataset(
            {
                "weights": (("baseline", "domain"), mixtures[1:]),
                "difference": (("baseline", "draw"), (values[:, :1] - values[:, 1:]).T),
            },
            {
                "baseline": list(known),
                "run_id": ("baseline", [run_ids.get(name, "") for name in known]),
                "allowed": ("baseline", keeps[1:]),
                "domain": names,
            },
        ),
        p_best=dict(zip(everyone[candidates].tolist(), p_best.tolist(), strict=True)),
        warnings=(
            *doubts(fit, wanted, n_params, n_tokens),
            *outside(fit, h),
            *unfinished(convergence),
        ),
        convergence=convergence,
        provenance={
            "n_params": float(n_params),
            "n_tokens": float(n_tokens),
            "law": fit.law,
            "seed": seed,
            "draws": of.n_draws,
            "runs": fit.runs.source,
            "runs_hash": fit.runs.hash,
            "model_version": MODEL_VERSION,
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in _PACKAGES},
            },
        },
    )


class Choice(NamedTuple):
    """What `choose` found.

    Attributes
    ----------
    best : Constrained
        One point: least in the measure of risk.
    optima : Minima
        Of every draw.
    less : array, shape (S,), or 0
        What the measure takes the draws relative to.
    starts, agreed : int
        Of the search for the least mean.
    """

    best: Constrained
    optima: Minima
    less: np.ndarray | float
    starts: int
    agreed: int


def choose(
    of: Problem,
    risk: Risk,
    known: np.ndarray,
    allowed: FeasibleSet,
    beat: np.ndarray | None = None,
    seed: int = 0,
) -> Choice:
    """The optimum of a measure of risk, and those of the draws.

    Parameters
    ----------
    of : Problem
    risk : Risk
    known : array, shape (P, K)
        Mixtures to start from.
    allowed : FeasibleSet
    beat : array, shape (K,)
        The baseline of `ProbBelow`.
    seed : int
        Of the random starts.

    Raises
    ------
    InfiniteObjectiveError
        If no mixture that is allowed has a finite objective, or `beat` has none.
    """
    less: np.ndarray | float = 0.0
    if beat is not None:
        less = of.values(beat[None])[:, 0]
        if not np.isfinite(less).all():
            raise InfiniteObjectiveError(
                "the mixture to beat has no finite loss under this law: it lacks tokens of a "
                "domain that the objective counts"
            )
    best, starts, agreed = mean_optimum(of, known, allowed, np.random.default_rng(seed))
    starts_of_draws = np.concatenate([best.minima.points, known])
    optima = draw_optima(of, starts_of_draws, allowed, best.multipliers[0])
    # the draws' own optima may lie in a basin that the search missed
    centre = inside(optima.points.mean(axis=0, keepdims=True), allowed)
    again, _ = risk_optimum(of, Mean(), centre, allowed)
    allows = allowed.violation(again.minima.points)[0] <= FEASIBLE
    if allows and again.minima.values[0] < best.minima.values[0]:
        best = again
    if isinstance(risk, Regret):
        less = optima.values
    if not is_mean(risk):
        best, _ = risk_optimum(
            of, risk, np.concatenate([best.minima.points, centre]), allowed, less
        )
    return Choice(best, optima, less, starts, agreed)


def _known_mixtures(fit: Fit, of: Problem) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Uniform, best observed and swarm-mean mixtures, each (K,), and the run of the second."""
    observed = fit.runs.effective_weights().values
    mean = of.thinned(_RANKING_DRAWS).values(observed).mean(axis=0)
    row = int(np.argmin(mean))
    uniform = np.full(observed.shape[1], 1 / observed.shape[1])
    mixtures = {
        "uniform": uniform,
        "best_observed": observed[row],
        "swarm_mean": observed.mean(axis=0),
    }
    return mixtures, {"best_observed": str(fit.runs.run_ids.values[row])}


def mixture_of(
    domains: Sequence[str], given: Mapping[str, float], what: str = "the mixture to beat"
) -> np.ndarray:
    """A mixture that was given, shape (K,), checked; domains that it does not name have none."""
    unknown = [name for name in given if name not in domains]
    if unknown:
        raise ValueError(
            f"{what}: unknown domain {', '.join(map(repr, unknown))}; "
            f"valid names: {', '.join(domains)}"
        )
    values = np.array([float(given.get(name, 0.0)) for name in domains])
    if not ((values >= 0).all() and abs(values.sum() - 1) <= 0.005):
        raise ValueError(f"{what}: weights must be 0 or more and sum to 1, got {values.tolist()}")
    return values / values.sum()


def _bounds(allowed: FeasibleSet, h: np.ndarray, names: list[str]) -> xr.Dataset:
    """Bounds of every domain, and which of them the mixture rests on."""
    low, high = allowed.lower, allowed.upper
    active = np.where(h <= low + _ACTIVE, "lower", np.where(h >= high - _ACTIVE, "upper", ""))
    return xr.Dataset(
        {"lower": ("domain", low), "upper": ("domain", high), "active": ("domain", active)},
        {"domain": names},
    )


def _prices(allowed: FeasibleSet, best: Constrained) -> pd.DataFrame:
    """One line a constraint: whether it binds, and what the objective would gain per unit.

    At an optimum the slope of the objective and of the priced constraints is the same in every
    domain that is free to move; what a domain at its bound lacks of it is the bound's price. Under
    `Regret` the draws' own optima are held.
    """
    h, mu = best.minima.points, best.multipliers
    slope = (best.slopes + allowed.pull(h, mu))[0]
    h = h[0]
    corner = np.zeros(len(h))  # what leaving the reference of an L1 distance costs, either way
    if allowed.l1_reference is not None:
        away = h - allowed.l1_reference
        moved = abs(away) > _ACTIVE
        slope = slope + mu[0, -1] * np.where(moved, np.sign(away), 0.0)
        corner = np.where(moved, 0.0, mu[0, -1])
    at_low, at_high = h <= allowed.lower + _ACTIVE, h >= allowed.upper - _ACTIVE
    free = (corner == 0) & ~at_low & ~at_high
    if free.any():
        taken = given = slope[free].mean()
    else:  # what is given up goes to one that can rise, what is taken comes from one that can fall
        taken = (slope + corner)[~at_high].min(initial=np.inf)
        given = (slope - corner)[~at_low].max(initial=-np.inf)
    lines = []
    for names, at, gain in (
        (allowed.lower_names, at_low, slope - corner - taken),
        (allowed.upper_names, at_high, given - corner - slope),
    ):
        lines += [
            (name, bool(on), max(float(price), 0.0) if on else 0.0)
            for name, on, price in zip(names, at, gain, strict=True)
            if name
        ]
    excess = allowed.excess(h[None])[0]
    lines += [
        (name, bool(over > -_ACTIVE), float(price))
        for name, over, price in zip(allowed.names, excess, mu[0], strict=True)
    ]
    return pd.DataFrame(lines, columns=["constraint", "binding", "price"])
