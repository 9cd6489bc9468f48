"""The joint law of Shukor et al. (arXiv 2507.09404, "joint scaling law")."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesmix.pointfit.additive import MIXTURE_BOUNDS, mixture_start, mixture_term
from bayesmix.pointfit.chinchilla import POWER_BOUNDS, power_start
from bayesmix.pointfit.curves import Rows, evaluate_curves, fit_curves
from bayesmix.pointfit.search import Fitted, Values
from bayesmix.runs import Runs

BOUNDS = (
    MIXTURE_BOUNDS
    | POWER_BOUNDS
    | {"C_A": (1e-6, 1e6), "gamma_A": (1e-3, 10.0), "C_B": (1e-6, 1e6), "gamma_B": (1e-3, 10.0)}
)


def curve(p: Mapping[str, np.ndarray], rows: Rows) -> tuple[np.ndarray, Values]:
    """Value and slopes of the joint law.

    ``E + 1 / sum_j C_j h_j^gamma_j + A^h / N^alpha + B^h / D^beta`` with
    ``A^h = (sum_j C_A_j h_j)^gamma_A`` and ``B^h = (sum_j C_B_j h_j)^gamma_B``.
    """
    loss, slopes = mixture_term(p, rows.weights)
    loss, slopes["E"] = loss + p["E"], np.ones(len(rows.log_n))
    for letter, exponent, log_size in (("A", "alpha", rows.log_n), ("B", "beta", rows.log_d)):
        if exponent not in p:
            continue
        total = rows.weights @ p[f"C_{letter}"]
        log_total = np.log(total)
        term = np.exp(p[f"gamma_{letter}"] * log_total - p[exponent] * log_size)
        loss = loss + term
        slopes[f"C_{letter}"] = (term * p[f"gamma_{letter}"] / total)[:, None] * rows.weights
        slopes[f"gamma_{letter}"] = term * log_total
        slopes[exponent] = -term * log_size
    return loss, slopes


def fit(runs: Runs, rng: np.random.Generator, warm: xr.Dataset | None = None) -> Fitted:
    """Fit every component; a term in N or D is left out where that does not vary."""
    n_domains = len(runs.domains)

    def start(losses: np.ndarray, rng: np.random.Generator) -> Values:
        power = power_start(losses, runs, rng)
        level = max(np.median(losses) - float(power["E"]), 0.05)
        values = {"E": power["E"]} | mixture_start(level, n_domains, rng)
        for letter, exponent in (("A", "alpha"), ("B", "beta")):
            if letter in power:
                values[f"C_{letter}"] = power[letter] * np.exp(0.2 * rng.normal(size=n_domains))
                values[f"gamma_{letter}"] = np.array(1.0)
                values[exponent] = power[exponent]
        return values

    return fit_curves(runs, curve, start, BOUNDS, rng, warm=warm)


def evaluate(
    parameters: xr.Dataset, weights: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
) -> np.ndarray:
    """Losses (R, C), nats per token."""
    return evaluate_curves(curve, parameters, weights, n_params, n_tokens)
