"""BiMix of Ge et al. (arXiv 2405.14908, "bivariate"): a domain's loss from its own share and D."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesmix.model import observed_log_loss
from bayesmix.pointfit.curves import Rows, blank_parameters, fit_curve, gather, rows_at
from bayesmix.pointfit.search import N_STARTS, Bounds, Fitted, Minimum, Values
from bayesmix.runs import Runs

BOUNDS: Bounds = {"C": (1e-6, 20.0), "alpha": (1e-4, 5.0), "B": (1e-6, 20.0), "beta": (1e-3, 2.0)}
_ENOUGH = 3  # cells


def curve(p: Mapping[str, np.ndarray], rows: Rows) -> tuple[np.ndarray, Values]:
    """``(B / D^beta + C) / h^alpha`` (R,), nats per token, and its slopes.

    Ge et al.'s factor A is 1 here: it is not told apart from B and C. `rows` has the component's
    own weight alone, (R, 1); D is relative to the reference.

    Examples
    --------
    >>> p = {"C": np.array(2.0), "alpha": np.array(0.5)}
    >>> curve(p, Rows(np.array([[0.25]]), np.zeros(1), np.zeros(1)))[0]
    array([4.])
    """
    log_h = np.log(rows.weights[:, 0])
    by_share = np.exp(-p["alpha"] * log_h)
    level, slopes = p["C"], {"C": by_share}
    if "B" in p:
        by_tokens = np.exp(-p["beta"] * rows.log_d)
        level = level + p["B"] * by_tokens
        slopes["B"] = by_share * by_tokens
        slopes["beta"] = -p["B"] * slopes["B"] * rows.log_d
    loss = level * by_share
    return loss, slopes | {"alpha": -loss * log_h}


def fit(runs: Runs, rng: np.random.Generator, warm: xr.Dataset | None = None) -> Fitted:
    """Fit every domain on cells of positive weight; rows of every N count as one size.

    A printed zero, an unknown small weight, is used only where a domain has too few others.
    Targets have no proportion, and no prediction.
    """
    weights, observed = runs.effective_weights().values, observed_log_loss(runs)
    usable = np.isfinite(observed)
    usable[:, len(runs.domains) :] = False
    parameters = blank_parameters(runs)
    found: dict[str, Minimum] = {}
    for i, name in enumerate(runs.domains):
        seen = usable[:, i] & (weights[:, i] > 0)
        printed = seen & (runs.weights.values[:, i] > 0)
        usable[:, i] = chosen = printed if printed.sum() >= _ENOUGH else seen
        if not chosen.any():
            continue
        n_params, n_tokens = runs.n_params.values[chosen], runs.n_tokens.values[chosen]
        rows = rows_at(parameters, weights[chosen, i : i + 1], n_params, n_tokens)
        level = float(np.exp(np.median(observed[chosen, i])))
        starts = [_start(runs, level, rng) for _ in range(N_STARTS)]
        if warm is not None and "C" in warm and np.isfinite(warm["C"].values[i]):
            starts = [{key: warm[key].values[i] for key in starts[0]}]
        found[name] = fit_curve(curve, starts, BOUNDS, rows, observed[chosen, i])
    return gather(runs, found, parameters, usable, "source")


def evaluate(
    parameters: xr.Dataset, weights: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
) -> np.ndarray:
    """Losses (R, C), nats per token; NaN for targets and for a domain at weight 0."""
    loss = np.full((len(weights), parameters.sizes["component"]), np.nan, weights.dtype)
    if "C" not in parameters:  # no cell that it could be fitted to
        return loss
    for i in range(weights.shape[1]):
        seen = weights[:, i] != 0
        rows = rows_at(parameters, weights[seen, i : i + 1], n_params[seen], n_tokens[seen])
        p = {str(name): parameters[name].values[i] for name in BOUNDS if name in parameters}
        loss[seen, i] = curve(p, rows)[0]
    return loss


def _start(runs: Runs, level: float, rng: np.random.Generator) -> Values:
    alpha = rng.uniform(0.02, 0.3)
    level *= len(runs.domains) ** -alpha
    start = {"C": np.array(0.7 * level), "alpha": np.array(alpha)}
    if np.ptp(runs.n_tokens.values) > 0:
        start |= {"B": np.array(0.3 * level), "beta": np.array(rng.uniform(0.1, 0.5))}
    return start
