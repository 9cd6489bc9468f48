"""The linear regression that RegMix (Liu et al., arXiv 2407.01492) compares with its trees."""

import numpy as np
import xarray as xr

from bayesmix.model import components, observed_log_loss
from bayesmix.pointfit.curves import blank_parameters, rows_at
from bayesmix.pointfit.search import Fitted
from bayesmix.runs import Runs


def features(
    parameters: xr.Dataset, weights: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
) -> np.ndarray:
    """Weights, log N and log D relative to the reference, shape (R, K + 2).

    RegMix has one scale and the weights alone; log N and log D add nothing where they are constant.
    """
    return np.column_stack(rows_at(parameters, weights, n_params, n_tokens))


def fit(runs: Runs, rng: np.random.Generator, warm: xr.Dataset | None = None) -> Fitted:
    """Least squares of every component's loss; the least norm where runs are too few."""
    parameters = blank_parameters(runs)
    x = features(
        parameters,
        runs.effective_weights().values,
        runs.n_params.values,
        runs.n_tokens.values,
    )
    losses = np.exp(observed_log_loss(runs))
    slopes = np.full((losses.shape[1], x.shape[1]), np.nan)
    errors, n_parameters = [], 0
    for i, y in enumerate(losses.T):
        seen = np.isfinite(y)
        if seen.any():
            # weights sum to 1: they hold the intercept
            slopes[i], _, rank, _ = np.linalg.lstsq(x[seen], y[seen])
            errors.append((x[seen] @ slopes[i] - y[seen]) ** 2)
            n_parameters += int(rank)
    named = [*runs.domains, "log_n", "log_d"]
    parameters = parameters.assign_coords(feature=named, component=list(components(runs)))
    parameters["slope"] = (("component", "feature"), slopes)
    loss = float(np.concatenate(errors).mean())
    return Fitted(parameters, n_parameters, True, "closed form", (), loss)


def evaluate(
    parameters: xr.Dataset, weights: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
) -> np.ndarray:
    """Losses (R, C), nats per token."""
    return features(parameters, weights, n_params, n_tokens) @ parameters["slope"].values.T
