"""The exponential mixing law of Ye et al. (arXiv 2403.16952), nested in power laws."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import xarray as xr

from bayesmix.model import components, observed_log_loss
from bayesmix.pointfit.chinchilla import POWER_BOUNDS, mixtures_of, power_start, power_terms
from bayesmix.pointfit.curves import (
    Rows,
    blank_parameters,
    evaluate_curves,
    fit_curve,
    fit_curves,
    gather,
    rows_at,
)
from bayesmix.pointfit.search import N_STARTS, Fitted, Minimum, Values
from bayesmix.runs import Runs

MIXING_BOUNDS = {"c": (1e-3, 20.0), "k": (1e-6, 1e3), "t": (-100.0, 100.0)}


def mixing(p: Mapping[str, np.ndarray], rows: Rows) -> tuple[np.ndarray, Values]:
    """``c + k exp(sum_j t_j h_j)`` (R,), nats per token, and its slopes.

    Examples
    --------
    >>> p = {"c": np.array(2.0), "k": np.array(1.0), "t": np.array([0.0, 1.0])}
    >>> mixing(p, Rows(np.array([[1.0, 0.0]]), np.zeros(1), np.zeros(1)))[0]
    array([3.])
    """
    grown = np.exp(rows.weights @ p["t"])
    term = p["k"] * grown
    return p["c"] + term, {
        "c": np.ones(len(grown)),
        "k": grown,
        "t": term[:, None] * rows.weights,
    }


def mixing_start(losses: np.ndarray, n_domains: int, rng: np.random.Generator) -> Values:
    """A start of the mixing law below the least loss."""
    c = rng.uniform(0.3, 0.9) * losses.min()
    k = np.median(losses) - c
    return {"c": np.array(c), "k": np.array(k), "t": rng.normal(0, 0.5, n_domains)}


def trend(
    p: Mapping[str, np.ndarray], rows: Rows, mixture: np.ndarray
) -> tuple[np.ndarray, Values]:
    """``E + A_m / N^alpha + B_m / D^beta`` of each row's mixture m, and slopes.

    Ye et al. ("nested use of scaling laws") fit a step law ``E + B / S^beta`` and a size law
    ``E + A / N^alpha`` to every mixture. E and the exponents are shared by a component's mixtures
    here, as two sizes do not fix three parameters.
    """
    of_mixture = [name for name in ("A", "B") if name in p]
    own = dict(p) | {name: p[name][mixture] for name in of_mixture}
    loss, slopes = power_terms(own, rows)
    one_hot = mixture[:, None] == np.arange(p[of_mixture[0]].size)
    return loss, slopes | {name: slopes[name][:, None] * one_hot for name in of_mixture}


def trend_terms(runs: Runs) -> tuple[str, ...]:
    """A where a mixture has two sizes; B where it has two horizons at one size."""
    mixture, sizes = mixtures_of(runs)[1], runs.n_params.values
    problems = np.column_stack([mixture, sizes])
    points = np.column_stack([problems, runs.n_tokens.values])
    counts = [len(np.unique(x, axis=0)) for x in (mixture[:, None], problems, points)]
    return tuple(n for n, more in zip("AB", np.diff(counts), strict=True) if more > 0)


def fit(runs: Runs, rng: np.random.Generator, warm: xr.Dataset | None = None) -> Fitted:
    """Fit the trends, then the mixing law to their values at the reference N and D.

    Where no mixture has two sizes or two horizons, the mixing law is fitted to the losses
    themselves, and is the same at every N and D.
    """

    def start(losses: np.ndarray, rng: np.random.Generator) -> Values:
        return mixing_start(losses, len(runs.domains), rng)

    terms = trend_terms(runs)
    if not terms:
        return fit_curves(runs, mixing, start, MIXING_BOUNDS, rng, warm=warm)
    names, observed = components(runs), observed_log_loss(runs)
    mixtures, of_row = mixtures_of(runs)
    parameters = blank_parameters(runs).assign(mixtures=(("mixture", "source"), mixtures))
    rows = rows_at(parameters, mixtures[of_row], runs.n_params.values, runs.n_tokens.values)
    reference = Rows(mixtures, np.zeros(len(mixtures)), np.zeros(len(mixtures)))
    trends: dict[str, Minimum] = {}
    mixed: dict[str, Minimum] = {}
    for i, name in enumerate(names):
        known = np.isfinite(observed[:, i])
        if not known.any():
            continue
        here = Rows(*(part[known] for part in rows))
        first = _trend_start(runs, terms, np.exp(observed[known, i]), len(mixtures), rng)
        of_known = of_row[known]
        end = fit_curve(
            partial(trend, mixture=of_known), [first], POWER_BOUNDS, here, observed[known, i]
        )
        # where a mixture never shows this component, its trend is blank
        unseen = np.setdiff1d(np.arange(len(mixtures)), of_known)
        for term in terms:
            end.values[term][unseen] = np.nan
        trends[name] = end
        levels = trend(end.values, reference, np.arange(len(mixtures)))[0]
        starts = [start(levels[np.isfinite(levels)], rng) for _ in range(N_STARTS)]
        mixed[name] = _fit_mixing(starts, mixtures, levels)
    by_trend = gather(runs, trends, parameters, np.isfinite(observed), "mixture")
    by_mixing = gather(runs, mixed, by_trend.parameters, np.isfinite(observed), "source")
    return by_mixing._replace(
        n_parameters=by_trend.n_parameters + by_mixing.n_parameters,
        converged=by_trend.converged and by_mixing.converged,
        message=by_mixing.message if by_trend.converged else by_trend.message,
        at_bounds=by_trend.at_bounds + by_mixing.at_bounds,
    )


def evaluate(
    parameters: xr.Dataset, weights: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
) -> np.ndarray:
    """Losses (R, C), nats per token: the mixing law at each N and D, fitted to the trends there."""
    if "alpha" not in parameters and "beta" not in parameters:
        return evaluate_curves(mixing, parameters, weights, n_params, n_tokens)
    rows = rows_at(parameters, weights, n_params, n_tokens)
    mixtures = parameters["mixtures"].values
    every = np.arange(len(mixtures))
    trends = {n: parameters[n].values for n in POWER_BOUNDS if n in parameters}
    mixings = {n: parameters[n].values for n in MIXING_BOUNDS}
    loss = np.full((len(weights), parameters.sizes["component"]), np.nan, weights.dtype)
    scales, scale_of_row = np.unique(
        np.column_stack([rows.log_n, rows.log_d]), axis=0, return_inverse=True
    )
    for s, (log_n, log_d) in enumerate(scales):
        chosen = scale_of_row.reshape(-1) == s
        there = Rows(mixtures, np.full(len(every), log_n), np.full(len(every), log_d))
        for i in range(parameters.sizes["component"]):
            start = {name: value[i] for name, value in mixings.items()}
            if np.isfinite(start["c"]):
                own = {name: value[i] for name, value in trends.items()}
                end = _fit_mixing([start], mixtures, trend(own, there, every)[0])
                loss[chosen, i] = mixing(end.values, Rows(*(part[chosen] for part in rows)))[0]
    return loss


def _fit_mixing(starts: Sequence[Values], mixtures: np.ndarray, levels: np.ndarray) -> Minimum:
    """The mixing law of losses (M,) at the mixtures; a NaN is left out."""
    known = np.isfinite(levels)
    zeros = np.zeros(int(known.sum()))
    rows = Rows(mixtures[known], zeros, zeros)
    return fit_curve(mixing, starts, MIXING_BOUNDS, rows, np.log(levels[known]))


def _trend_start(
    runs: Runs,
    terms: tuple[str, ...],
    losses: np.ndarray,
    n_mixtures: int,
    rng: np.random.Generator,
) -> Values:
    power = power_start(losses, runs, rng)
    start = {"E": power["E"]}
    for term, exponent in (("A", "alpha"), ("B", "beta")):
        if term in terms:
            start |= {term: np.full(n_mixtures, power[term]), exponent: power[exponent]}
    return start
