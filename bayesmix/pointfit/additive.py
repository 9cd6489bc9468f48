"""The additive law of Shukor et al. (arXiv 2507.09404, "additive scaling law")."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesmix.pointfit.chinchilla import POWER_BOUNDS, power_start, power_terms
from bayesmix.pointfit.curves import Rows, evaluate_curves, fit_curves
from bayesmix.pointfit.search import Fitted, Values
from bayesmix.runs import Runs

MIXTURE_BOUNDS = {"C": (1e-6, 1e6), "gamma": (1e-3, 10.0)}


def mixture_term(p: Mapping[str, np.ndarray], weights: np.ndarray) -> tuple[np.ndarray, Values]:
    """``1 / sum_j C_j h_j^gamma_j`` (R,), nats per token, and its slopes.

    Examples
    --------
    >>> p = {"C": np.array([1.0, 1.0]), "gamma": np.array([1.0, 2.0])}
    >>> mixture_term(p, np.array([[0.5, 0.5]]))[0].round(4)
    array([1.3333])
    """
    log_h = np.log(np.where(weights == 0, 1.0, weights))
    power = np.where(weights == 0, 0.0, np.exp(p["gamma"] * log_h))
    term = 1 / (power @ p["C"])
    to_sum = -(term**2)[:, None] * power
    return term, {"C": to_sum, "gamma": to_sum * p["C"] * log_h}


def mixture_start(level: float, n_domains: int, rng: np.random.Generator) -> Values:
    """A start whose mixture term is about `level` (nats per token) at the uniform mixture."""
    gamma = rng.uniform(0.1, 0.9, n_domains)
    C = np.exp(rng.normal(-1.0, 1.0, n_domains))
    return {"C": C / (level * (C * n_domains**-gamma).sum()), "gamma": gamma}


def curve(p: Mapping[str, np.ndarray], rows: Rows) -> tuple[np.ndarray, Values]:
    """``E + 1 / sum_j C_j h_j^gamma_j + A / N^alpha + B / D^beta`` and its slopes."""
    mixture, mixture_slopes = mixture_term(p, rows.weights)
    power, power_slopes = power_terms(p, rows)
    return power + mixture, power_slopes | mixture_slopes


def fit(runs: Runs, rng: np.random.Generator, warm: xr.Dataset | None = None) -> Fitted:
    """Fit every component; a term in N or D is left out where that does not vary."""

    def start(losses: np.ndarray, rng: np.random.Generator) -> Values:
        power = power_start(losses, runs, rng)
        level = max(np.median(losses) - float(power["E"]), 0.05)
        return power | mixture_start(level, len(runs.domains), rng)

    return fit_curves(runs, curve, start, POWER_BOUNDS | MIXTURE_BOUNDS, rng, warm=warm)


def evaluate(
    parameters: xr.Dataset, weights: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
) -> np.ndarray:
    """Losses (R, C), nats per token."""
    return evaluate_curves(curve, parameters, weights, n_params, n_tokens)
