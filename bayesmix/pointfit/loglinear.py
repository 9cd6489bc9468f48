"""The log-linear law of Olmix (arXiv 2602.12237): one scale, a constant and one exponential."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesmix.pointfit.curves import Rows, evaluate_curves, fit_curves
from bayesmix.pointfit.exponential import MIXING_BOUNDS, mixing, mixing_start
from bayesmix.pointfit.search import Fitted, Values
from bayesmix.runs import Runs


def curve(p: Mapping[str, np.ndarray], rows: Rows) -> tuple[np.ndarray, Values]:
    """``c + exp(sum_j t_j h_j)``: the mixing law of Ye et al. with k = 1, and no N or D."""
    loss, slopes = mixing({**p, "k": np.ones(())}, rows)
    return loss, {name: slopes[name] for name in p}


def fit(runs: Runs, rng: np.random.Generator, warm: xr.Dataset | None = None) -> Fitted:
    """Fit every component; rows of every N and D count as one scale."""

    def start(losses: np.ndarray, rng: np.random.Generator) -> Values:
        values = mixing_start(losses, len(runs.domains), rng)
        # weights sum to 1: a shift of every t is a factor of the exponential
        return {"c": values["c"], "t": values["t"] + np.log(values["k"])}

    return fit_curves(runs, curve, start, MIXING_BOUNDS, rng, warm=warm)


def evaluate(
    parameters: xr.Dataset, weights: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
) -> np.ndarray:
    """Losses (R, C), nats per token, the same at every N and D."""
    return evaluate_curves(curve, parameters, weights, n_params, n_tokens)
