"""Chinchilla's law (Hoffmann et al., arXiv 2203.15556, the parametric loss), by mixture."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesmix.model import components, observed_log_loss
from bayesmix.pointfit.curves import Rows, blank_parameters, fit_curve, rows_at
from bayesmix.pointfit.search import N_STARTS, Bounds, Fitted, Values
from bayesmix.runs import Runs

POWER_BOUNDS: Bounds = {
    "E": (1e-3, 20.0),
    "A": (1e-6, 20.0),
    "alpha": (1e-3, 2.0),
    "B": (1e-6, 20.0),
    "beta": (1e-3, 2.0),
}
_SAME = 1e-9  # weights that differ by less are one mixture
_ENOUGH = 3  # sizes, or horizons, that fix E, A and alpha


def power_terms(p: Mapping[str, np.ndarray], rows: Rows) -> tuple[np.ndarray, Values]:
    """``E + A / N^alpha + B / D^beta`` (R,), nats per token, and its slopes.

    N and D are relative to the fit's reference, so that A and B are in nats per token there; a
    term whose parameters are absent is left out.

    Examples
    --------
    >>> p = {"E": np.array(1.0), "A": np.array(0.5), "alpha": np.array(1.0)}
    >>> power_terms(p, Rows(np.ones((1, 1)), np.log([2.0]), np.zeros(1)))[0]
    array([1.25])
    """
    slopes: Values = {"E": np.ones(len(rows.log_n))}
    loss = slopes["E"] * p["E"]
    for letter, exponent, log_size in (("A", "alpha", rows.log_n), ("B", "beta", rows.log_d)):
        if letter in p:
            slopes[letter] = np.exp(-p[exponent] * log_size)
            term = p[letter] * slopes[letter]
            slopes[exponent] = -term * log_size
            loss = loss + term
    return loss, slopes


def power_start(losses: np.ndarray, runs: Runs, rng: np.random.Generator) -> Values:
    """A start below the least loss, with the terms in N and D where those vary."""
    level = float(np.median(losses))
    values = {"E": np.array(rng.uniform(0.3, 0.9) * losses.min())}
    for size, letter, exponent in ((runs.n_params, "A", "alpha"), (runs.n_tokens, "B", "beta")):
        if np.ptp(size.values) > 0:
            values[letter] = np.array(rng.uniform(0.05, 0.3) * level)
            values[exponent] = np.array(rng.uniform(0.2, 0.5))
    return values


def mixtures_of(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Distinct mixtures (M, K), and the mixture of each row (R,)."""
    mixtures, row = np.unique(runs.effective_weights().values, axis=0, return_inverse=True)
    return mixtures, row.reshape(-1)


def same_mixture(mixtures: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Position of each of the weights (R, K) among the mixtures (M, K), -1 where it is none."""
    distance = abs(weights[:, None, :] - mixtures).max(axis=2)
    return np.where(distance.min(axis=1) < _SAME, distance.argmin(axis=1), -1)


def fit(runs: Runs, rng: np.random.Generator, warm: xr.Dataset | None = None) -> Fitted:
    """Fit every component of every mixture that has three sizes, and three horizons.

    A term in N or D is left out where that does not vary among the runs; a mixture with too few
    values of what does vary is left blank, as the law says nothing about it.
    """
    names, observed = components(runs), observed_log_loss(runs)
    mixtures, of_row = mixtures_of(runs)
    parameters = blank_parameters(runs)
    parameters["mixtures"] = (("mixture", "source"), mixtures)
    rows = rows_at(parameters, mixtures[of_row], runs.n_params.values, runs.n_tokens.values)
    n_needed, d_needed = (
        _ENOUGH if np.ptp(size.values) > 0 else 1 for size in (runs.n_params, runs.n_tokens)
    )
    fitted = {
        key: np.full((len(names), len(mixtures)), np.nan)
        for key in power_start(np.ones(1), runs, rng)
    }
    n_parameters, failed, at_bounds, losses = 0, [], [], []
    for i, m in np.ndindex(len(names), len(mixtures)):
        chosen = (of_row == m) & np.isfinite(observed[:, i])
        here = Rows(*(part[chosen] for part in rows))
        if np.unique(here.log_n).size < n_needed or np.unique(here.log_d).size < d_needed:
            continue
        log_loss = observed[chosen, i]
        starts = [power_start(np.exp(log_loss), runs, rng) for _ in range(N_STARTS)]
        if warm is not None:
            starts = starts[:1]
        end = fit_curve(power_terms, starts, POWER_BOUNDS, here, log_loss)
        for key, value in end.values.items():
            fitted[key][i, m] = value
        where = f"[{names[i]},mixture {m}]"
        n_parameters += len(end.values)
        failed += [] if end.converged else [f"{where}: {end.message}"]
        at_bounds += [name + where for name in end.at_bounds]
        losses.append(end.loss)
    for key, value in fitted.items():
        parameters[key] = (("component", "mixture"), value)
    if not losses:
        few = f"no mixture has {n_needed} sizes and {d_needed} horizons"
        return Fitted(parameters, 0, False, few, (), np.nan)
    message = failed[0] if failed else "every mixture converged"
    loss = float(np.mean(losses))
    return Fitted(parameters, n_parameters, not failed, message, tuple(at_bounds), loss)


def evaluate(
    parameters: xr.Dataset, weights: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
) -> np.ndarray:
    """Losses (R, C), nats per token; NaN at mixtures that were not fitted."""
    at = same_mixture(parameters["mixtures"].values, weights)
    rows = rows_at(parameters, weights, n_params, n_tokens)
    fitted = {str(n): v.values for n, v in parameters.items() if v.dims == ("component", "mixture")}
    losses = [
        power_terms({name: value[i, at] for name, value in fitted.items()}, rows)[0]
        for i in range(parameters.sizes["component"])
    ]
    return np.where(at[:, None] >= 0, np.stack(losses, axis=1), np.nan)
