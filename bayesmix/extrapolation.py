"""How far a prediction lies from the data, and what its width is made of."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix.posterior import Fit
from bayesmix.predict import Prediction, predict

PROB = 0.9


def extrapolation(
    fit: Fit,
    weights: Any,
    n_params: float | None = None,
    n_tokens: float | None = None,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Distance from the data, and the width of 90% equal-tailed intervals by source.

    Parameters
    ----------
    fit : Fit
    weights, n_params, n_tokens
        As in `bayesmix.predict.predict`.
    seed : int
        Of the discrepancy and the run noise.

    Returns
    -------
    DataFrame
        One line a row and domain: ``efolds_n``, ``efolds_d``: e-folds by which N and D lie outside
        the fitted range; ``mixture_distance``: half the L1 distance to the nearest fitted mixture,
        a fraction of the tokens; ``width``: of the interval of a new run, % of its mean loss;
        ``parameters``, ``discrepancy``, ``run_noise``: the parts of it, which add in squares.

    Raises
    ------
    ValueError
        As `bayesmix.predict.predict`.

    Examples
    --------
    >>> import bayesmix as bm
    >>> from bayesmix.prior_predictive import prior_fit
    >>> fit = prior_fit(bm.load_dataset("simulated"), draws=20)
    >>> half = {"code": 0.5, "prose": 0.5, "qa": 0, "wiki": 0, "papers": 0}
    >>> table = bm.extrapolation(fit, half, n_params=4e8 * np.e, n_tokens=8e9)
    >>> table[["efolds_n", "efolds_d"]].iloc[0].round(6).tolist()
    [1.0, 0.0]
    """
    law = predict(fit, weights, n_params, n_tokens, discrepancy=False, seed=seed)
    full = predict(fit, weights, n_params, n_tokens, seed=seed)
    centre = full.draws["expected"].mean("draw")
    of_law = _width(law.draws["expected"]) / centre
    expected = _width(full.draws["expected"]) / centre
    new_run = _width(full.draws["loss"]) / centre
    parts = xr.Dataset(
        {
            "width": new_run,
            "parameters": of_law,
            "discrepancy": _rest(expected, of_law),
            "run_noise": _rest(new_run, expected),
        }
    )
    table = (100 * parts).to_dataframe(dim_order=["row", "domain"]).reset_index()
    far = _distances(fit, full).iloc[table["row"]].reset_index(drop=True)
    first = ["row", "domain", "n_params", "n_tokens"]
    return pd.concat([table[first], far, table[list(parts)]], axis=1)


def _distances(fit: Fit, prediction: Prediction) -> pd.DataFrame:
    fitted = np.log(np.column_stack([fit.runs.n_params.values, fit.runs.n_tokens.values]))
    asked = np.log(prediction.mixtures[["n_params", "n_tokens"]].to_numpy(float))
    outside = np.maximum(np.maximum(asked - fitted.max(axis=0), fitted.min(axis=0) - asked), 0.0)
    mixtures = prediction.mixtures[[f"weight_{d}" for d in fit.runs.domains]].to_numpy(float)
    apart = abs(mixtures[:, None, :] - fit.runs.weights.values[None, :, :]).sum(axis=2) / 2
    return pd.DataFrame(
        {
            "efolds_n": outside[:, 0],
            "efolds_d": outside[:, 1],
            "mixture_distance": apart.min(axis=1),
        }
    )


def _width(draws: xr.DataArray) -> xr.DataArray:
    ends = draws.quantile([(1 - PROB) / 2, (1 + PROB) / 2], "draw", skipna=False)
    return ends.isel(quantile=1, drop=True) - ends.isel(quantile=0, drop=True)


def _rest(whole: xr.DataArray, part: xr.DataArray) -> xr.DataArray:
    """What is left of a width in squares; draws are finite, so it can be below 0 by chance."""
    return (whole**2 - part**2).clip(min=0.0) ** 0.5
