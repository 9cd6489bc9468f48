"""How choices move with scale: along a path, and where one mixture overtakes another."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from bayesmix.constraints import Constraint
from bayesmix.draws import law_draws, losses
from bayesmix.feasible import feasible_set
from bayesmix.objective import (
    Objective,
    check_sizes,
    discrepancy_factors,
    problem,
    resolve_objective,
)
from bayesmix.optima import InfiniteObjectiveError
from bayesmix.posterior import Fit
from bayesmix.recommend import choose, mixture_of
from bayesmix.risk import Mean, ProbBelow, Risk

_SIZES = 200  # at which the sign is looked at; between two the root is on the chord


def scale_path(
    fit: Fit,
    n_params: Sequence[float],
    n_tokens: Sequence[float],
    *,
    objective: Objective | None = None,
    risk: Risk | None = None,
    constraints: Sequence[Constraint] = (),
    draws: int = 500,
    seed: int = 0,
) -> xr.Dataset:
    """The recommendation along a path of sizes and horizons.

    Parameters
    ----------
    fit : Fit
        A sampled posterior.
    n_params, n_tokens : sequence of float, length R
        N (parameters) and D (tokens) of each step.
    objective, risk, constraints, seed
        As in `recommend`; a token budget tightens as D grows.
    draws : int
        At most so many posterior draws, evenly spaced.

    Returns
    -------
    Dataset, dims (step, domain, draw)
        ``weights`` (step, domain), recommended; ``optima`` (step, draw, domain), of every draw;
        ``loss`` (step, draw), the objective's expected loss at the recommendation, nats per
        token. Coords ``n_params`` and ``n_tokens`` (step). Attributes ``residual`` and
        ``violation``, the worst of the recommendations', as in `Recommendation.convergence`.

    Raises
    ------
    ValueError
        As `recommend`, and if the path's sizes and horizons differ in number.

    Examples
    --------
    With the priors' draws for a fit:

    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> fit = prior_fit(load_dataset("simulated"), draws=20)
    >>> scale_path(fit, [1e8, 1e9], [2e9, 2e10])["optima"].sizes
    Frozen({'step': 2, 'draw': 20, 'domain': 5})
    """
    if not len(n_params):
        raise ValueError("a path has one size or more")
    if len(n_params) != len(n_tokens):
        raise ValueError(f"{len(n_params)} sizes, but {len(n_tokens)} horizons")
    constraints = tuple(constraints)
    risk = Mean() if risk is None else risk
    wanted, worst = resolve_objective(fit.components, fit.observed_components, objective)
    domains = list(fit.runs.domains)
    beat = mixture_of(domains, risk.baseline) if isinstance(risk, ProbBelow) else None
    starts = np.full((1, len(domains)), 1 / len(domains))
    weights, optima, losses = [], [], []
    residuals, breaches = [0.0], [0.0]
    for size, horizon in zip(n_params, n_tokens, strict=True):
        of = problem(fit, size, horizon, wanted, worst=worst, seed=seed).thinned(draws)
        allowed = feasible_set(constraints, domains, horizon)
        found = choose(of, risk, starts, allowed, beat, seed)
        h = found.best.minima.points
        starts = np.concatenate([starts[:1], h])
        weights.append(h[0])
        optima.append(found.optima.points)
        losses.append(of.values(h)[:, 0])
        residuals.append(found.best.minima.residuals[0])
        breaches.append(allowed.violation(h)[0])
    return xr.Dataset(
        {
            "weights": (("step", "domain"), np.array(weights)),
            "optima": (("step", "draw", "domain"), np.array(optima)),
            "loss": (("step", "draw"), np.array(losses)),
        },
        {
            "domain": domains,
            "n_params": ("step", np.asarray(n_params, dtype=float)),
            "n_tokens": ("step", np.asarray(n_tokens, dtype=float)),
        },
        {"residual": float(max(residuals)), "violation": float(max(breaches))},
    )


def overtakes(
    fit: Fit,
    a: Mapping[str, float],
    b: Mapping[str, float],
    *,
    n_params: tuple[float, float],
    tokens_per_param: float = 20.0,
    objective: Objective | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """The size from which mixture `a` is better than `b`, as a posterior.

    Outside the fitted N and D a draw's law is off by the same at all sizes, beside what grows.

    Parameters
    ----------
    fit : Fit
        A sampled posterior.
    a, b : mapping
        Mixtures, {domain: weight}.
    n_params : tuple
        The least and the greatest N that is looked at, parameters.
    tokens_per_param : float
        D = this times N.
    objective : mapping or Worst, optional
        As in `recommend`.
    seed : int
        Of the discrepancy.

    Returns
    -------
    Dataset, dims (draw, size)
        ``n_params`` (draw): the first N at which `a` goes from worse to better, blank where it
        does not; ``first``, ``last`` (draw): whether `a` is better at the least and at the
        greatest N; ``difference`` (draw, size): the objective of `a` less that of `b`, nats per
        token, along ``size`` in parameters.

    Raises
    ------
    ValueError
        If names are unknown, weights do not sum to 1, sizes are not positive and ascending, or
        neither mixture has a finite loss.

    Examples
    --------
    With the priors' draws for a fit:

    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> fit = prior_fit(load_dataset("simulated"), draws=20)
    >>> even, code = dict.fromkeys(fit.runs.domains, 0.2), {"code": 0.6, "wiki": 0.4}
    >>> passing = overtakes(fit, even, code, n_params=(1e8, 1e11))
    >>> passing["difference"].sizes
    Frozen({'draw': 20, 'size': 200})
    >>> bool(passing["last"].all())  # better at the greatest size in every draw
    True
    """
    low, high = n_params
    if not 0 < low < high < np.inf:
        raise ValueError(f"sizes must be positive and ascending, got {n_params!r}")
    check_sizes(high, tokens_per_param * high)
    wanted, worst = resolve_objective(fit.components, fit.observed_components, objective)
    domains = list(fit.runs.domains)
    pair = np.stack([mixture_of(domains, a, "a"), mixture_of(domains, b, "b")])
    draws = law_draws(fit.posterior["posterior"].to_dataset())
    counted = np.array([float(wanted.get(name, 0.0)) for name in fit.components])

    sizes = np.geomspace(low, high, _SIZES)
    both = np.tile(sizes, 2)
    weights = np.repeat(pair, _SIZES, axis=0)
    loss = losses(draws, fit.law, weights, both, tokens_per_param * both)
    # one outside the objective may be infinite
    loss = np.where(counted > 0, loss, 0.0)
    # independent offsets at each of many sizes would cross and cross back, the more the finer
    factors = discrepancy_factors(fit, sizes, tokens_per_param * sizes, seed, path=True) * counted
    n_draws = len(loss)
    parts = loss.reshape(n_draws, 2, _SIZES, -1) * factors[:, None]
    total = parts.max(axis=3) if worst else parts.sum(axis=3)
    if np.isinf(total).all(axis=1).any():
        raise InfiniteObjectiveError(
            "neither mixture has a finite loss under this law: both lack tokens of a domain that "
            "the objective counts"
        )
    ahead = total[:, 0] - total[:, 1]
    crosses = (ahead[:, :-1] >= 0) & (ahead[:, 1:] < 0)
    cell, every = crosses.argmax(axis=1), np.arange(n_draws)
    before, after = ahead[every, cell], ahead[every, cell + 1]
    crossed = crosses.any(axis=1)
    share = np.full(n_draws, np.nan)
    share[crossed] = before[crossed] / (before[crossed] - after[crossed])
    crossing = sizes[cell] * (sizes[1] / sizes[0]) ** share
    return xr.Dataset(
        {
            "n_params": ("draw", crossing),
            "first": ("draw", ahead[:, 0] < 0),
            "last": ("draw", ahead[:, -1] < 0),
            "difference": (("draw", "size"), ahead),
        },
        {"size": sizes},
    )
