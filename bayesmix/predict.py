"""The posterior predictive at any mixture, size and horizon."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from bayesmix._cautions import below_floor
from bayesmix._tables import warn
from bayesmix.discrepancy import discrepancy_draws
from bayesmix.draws import law_draws, losses
from bayesmix.model import components, observed_domains, weight_doubt
from bayesmix.noise import at_printed_zeros, scale_and_dof
from bayesmix.posterior import Fit
from bayesmix.runs import Runs, floor_weights

MEAN = "mean"
_MOST_LOG = 600.0  # of a run's noise in log loss
# draws x rows x components held at once: about 1 GiB with the noise beside it
_MOST_CELLS = 60_000_000
_LEAST_DRAWS = 100  # fewer make no interval
_DRAWS_OF_BLOCK = 1000  # where there are so many


@dataclass(frozen=True, repr=False)
class Prediction:
    """Predictive draws of losses.

    Attributes
    ----------
    draws : Dataset
        ``expected``: the law's loss with its discrepancy and, at weights printed as 0, its shift;
        ``loss``: that of a new run, with its noise; both in nats per token.
        Dims ``draw``, ``row``, ``domain`` (domains, then ``target:<name>``, then ``mean`` over the
        domains with observed losses); coords ``n_params`` (parameters), ``n_tokens`` (tokens).
    mixtures : DataFrame
        The rows asked for, other columns carried through.

    Examples
    --------
    What `predict` returns:

    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> fit = prior_fit(load_dataset("simulated"), draws=20)  # any fit; here the prior
    >>> made = predict(fit, fit.runs.frame.head(3))  # at their N and D
    >>> made.draws["expected"].sizes
    Frozen({'draw': 20, 'row': 3, 'domain': 7})
    >>> made.summary(prob=0.8).query("domain == 'mean'")["run_id"].tolist()
    ['m00_50M', 'm00_50M', 'm01_50M']
    """

    draws: xr.Dataset
    mixtures: pd.DataFrame

    def summary(self, prob: float = 0.9) -> pd.DataFrame:
        """One line a row and domain.

        Parameters
        ----------
        prob : float
            Probability of the equal-tailed intervals, between 0 and 1.

        Returns
        -------
        DataFrame
            ``row, run_id, n_params, n_tokens, domain``; ``mean, sd`` of the expected loss;
            ``lower, upper``: interval of a new run's loss; ``expected_lower, expected_upper``:
            of the expected loss; ``prob``. Losses in nats per token.

        Raises
        ------
        ValueError
            If `prob` is not between 0 and 1.
        """
        if not 0 < prob < 1:
            raise ValueError(f"prob must lie between 0 and 1, got {prob}")
        tails = [(1 - prob) / 2, (1 + prob) / 2]
        expected, loss = self.draws["expected"], self.draws["loss"]
        # a blank among the draws is a blank, not a smaller sample
        inner, outer = (x.quantile(tails, "draw", skipna=False) for x in (expected, loss))
        columns = {
            "mean": expected.mean("draw", skipna=False),
            "sd": expected.std("draw", skipna=False),
            "lower": outer.isel(quantile=0, drop=True),
            "upper": outer.isel(quantile=1, drop=True),
            "expected_lower": inner.isel(quantile=0, drop=True),
            "expected_upper": inner.isel(quantile=1, drop=True),
        }
        table = xr.Dataset(columns)
        frame = table.to_dataframe(dim_order=["row", "domain"]).reset_index()
        if "run_id" in self.mixtures:
            frame["run_id"] = self.mixtures["run_id"].to_numpy()[frame["row"]]
        else:
            frame["run_id"] = ""
        frame["prob"] = prob
        first = ["row", "run_id", "n_params", "n_tokens", "domain"]
        return frame[[*first, *columns, "prob"]]

    def __repr__(self) -> str:
        n_rows, n_draws = self.draws.sizes["row"], self.draws.sizes["draw"]
        means = self.summary()
        means = means[means["domain"] == MEAN].drop(columns=["domain", "prob"])
        return (
            f"Prediction of {n_rows} rows from {n_draws} draws; the mean over domains, nats per "
            f"token, with 90% equal-tailed intervals:\n{means.head(10).to_string(index=False)}"
        )

    def _repr_html_(self) -> str:
        return self.summary().to_html(index=False, max_rows=40, float_format="{:.4g}".format)


def predict(
    fit: Fit,
    weights: pd.DataFrame | xr.DataArray | Mapping[str, float],
    n_params: float | ArrayLike | None = None,
    n_tokens: float | ArrayLike | None = None,
    *,
    discrepancy: bool = True,
    seed: int = 0,
) -> Prediction:
    """Losses at any mixture, size and horizon.

    Parameters
    ----------
    fit : Fit
        A sampled posterior.
    weights : DataFrame, DataArray or mapping
        Mixtures: a table with ``weight_<domain>`` columns, an array with dims (row, domain) or
        (domain,), or one mixture as {domain: weight}. Weights sum to 1.
    n_params, n_tokens : float or array, optional
        N (parameters) and D (tokens): one of all rows, or one for each; else the table's own
        columns.
    discrepancy : bool
        Whether intervals hold the law's own misfit outside the fitted N and D.
    seed : int
        Of the discrepancy and the run noise.

    Returns
    -------
    Prediction

    Raises
    ------
    ValueError
        If domains are missing or unknown, weights do not sum to 1, N or D is not given, there is
        no mixture, or there are so many that fewer than 100 draws would fit.

    Warns
    -----
    UserWarning
        Where N is at or below the law's floor H under some draws: see `below_floor`.

    Notes
    -----
    At one N and D the draws are those of `recommend` with the same seed, one by one, so that
    differences between the two are of mixtures alone; but of a swarm with printed weights a 0 is a
    printed one here, and no tokens at all to `recommend`. Nor are they where more than 6e7
    numbers (draws x rows x losses) would be held, of which evenly spaced draws are kept; nor at
    several (N, D), whose misfits are drawn together.

    Examples
    --------
    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> fit = prior_fit(load_dataset("simulated"), draws=20)  # any fit; here the prior
    >>> even = dict.fromkeys(fit.runs.domains, 0.2)
    >>> table = predict(fit, even, n_params=4e9, n_tokens=8e10).summary()
    >>> table["domain"].tolist()
    ['code', 'prose', 'qa', 'wiki', 'papers', 'target:exam', 'mean']
    >>> bool((table["lower"] < table["upper"]).all())
    True
    """
    mixtures = mixture_table(fit.runs.domains, weights, n_params, n_tokens)
    for sentence in below_floor(fit, mixtures["n_params"].to_numpy()):
        warn(sentence, UserWarning)
    return _predict_rows(fit, mixtures, discrepancy, seed)


def summaries(
    fit: Fit, table: pd.DataFrame, *, prob: float = 0.9, discrepancy: bool = True
) -> Iterator[pd.DataFrame]:
    """`Prediction.summary` of any number of mixtures, in blocks that have room for 1,000 draws.

    A block is predicted by itself: expected losses at one N and D do not depend on where blocks
    begin, but intervals of new runs do by their noise, and several (N, D) by their misfits.

    Parameters
    ----------
    fit, table, discrepancy
        As in `predict`, N and D in the table.
    prob : float
        Probability of the equal-tailed intervals, between 0 and 1.

    Yields
    ------
    DataFrame
        Of some of the rows; ``row`` counts from the first of all.
    """
    mixtures = mixture_table(fit.runs.domains, table, None, None)
    sizes = fit.posterior["posterior"].sizes
    cells = min(sizes["chain"] * sizes["draw"], _DRAWS_OF_BLOCK) * len(fit.components)
    n_blocks = math.ceil(len(mixtures) * cells / _MOST_CELLS)
    # blocks as long as each other, or the last would have more draws
    at_once = math.ceil(len(mixtures) / n_blocks)
    for first in range(0, len(mixtures), at_once):
        block = mixtures.iloc[first : first + at_once].reset_index(drop=True)
        found = _predict_rows(fit, block, discrepancy).summary(prob)
        yield found.assign(row=found["row"] + first)


def _predict_rows(fit: Fit, mixtures: pd.DataFrame, discrepancy: bool, seed: int = 0) -> Prediction:
    """`predict` for a table that is checked."""
    return predict_at(
        fit,
        mixtures[[f"weight_{d}" for d in fit.runs.domains]].to_numpy(float),
        mixtures,
        resolution=fit.runs.weight_resolution,
        discrepancy=discrepancy,
        seed=seed,
    )


def predict_at(
    fit: Fit,
    weights: np.ndarray,
    mixtures: pd.DataFrame,
    *,
    resolution: float = 0.0,
    discrepancy: bool = True,
    seed: int = 0,
) -> Prediction:
    """`predict` for weights that are exact, or printed to a resolution.

    Parameters
    ----------
    fit : Fit
    weights : array, shape (R, K)
        Fractions that sum to 1.
    mixtures : DataFrame
        R rows, with ``n_params``, ``n_tokens`` and what is to be carried through.
    resolution : float
        0 where a zero is a zero; else one that was printed is an unknown below it.
    discrepancy : bool
        Whether intervals hold the law's own misfit outside the fitted N and D.
    seed : int
        Of the discrepancy and the run noise.
    """
    n_params, n_tokens = (mixtures[n].to_numpy(float) for n in ("n_params", "n_tokens"))
    most = _MOST_CELLS // (len(weights) * len(fit.components))
    posterior = fit.posterior["posterior"].to_dataset()
    if most < min(_LEAST_DRAWS, posterior.sizes["chain"] * posterior.sizes["draw"]):
        raise ValueError(
            f"{len(weights)} mixtures at once leave room for {most} draws: predict at most "
            f"{_MOST_CELLS // (_LEAST_DRAWS * len(fit.components))} at a time"
        )
    draws = law_draws(posterior, most=most)
    floored = floor_weights(weights, resolution)
    expected = losses(draws, fit.law, floored, n_params, n_tokens)
    # without tokens of any use a loss is infinite under some laws: a blank
    expected[~np.isfinite(expected)] = np.nan
    rng = np.random.default_rng(seed)
    if discrepancy:
        expected *= np.exp(discrepancy_draws(fit.runs, draws, n_params, n_tokens, rng))
    expected *= at_printed_zeros(draws["zero_shift"], weights, resolution)
    doubt = weight_doubt(weights, resolution, expected.shape[2])
    scale, dof = scale_and_dof(draws, doubt)
    noise = rng.standard_t(dof)
    run = draws["common"][:, None, :] * rng.normal(size=expected.shape[:2])[:, :, None]
    wider = draws["outlier_scale"][:, None] * rng.exponential(size=expected.shape[:2])
    scale *= np.exp(wider)[:, :, None]
    # a t variable of few degrees of freedom can be beyond what exp takes
    loss = expected * np.exp(np.minimum(run + scale * noise, _MOST_LOG))
    return Prediction(
        xr.Dataset(
            {
                "expected": named_losses(fit.runs, expected, mixtures),
                "loss": named_losses(fit.runs, loss, mixtures),
            }
        ),
        mixtures,
    )


def named_losses(runs: Runs, values: np.ndarray, mixtures: pd.DataFrame) -> xr.DataArray:
    """Dims and coords of losses (draw, row, component), and their mean over observed domains."""
    names = components(runs)
    seen = [names.index(name) for name in observed_domains(runs)]
    # with targets alone there is no such mean
    mean = (
        values[:, :, seen].mean(axis=2, keepdims=True)
        if seen
        else np.full((*values.shape[:2], 1), np.nan)
    )
    return xr.DataArray(
        np.concatenate([values, mean], axis=2),
        dims=("draw", "row", "domain"),
        coords={
            "row": np.arange(len(mixtures)),
            "domain": [*names, MEAN],
            "n_params": ("row", mixtures["n_params"].to_numpy(float)),
            "n_tokens": ("row", mixtures["n_tokens"].to_numpy(float)),
        },
        attrs={"units": "nats per token"},
    )


def mixture_table(
    domains: tuple[str, ...],
    weights: pd.DataFrame | xr.DataArray | Mapping[str, float],
    n_params: float | ArrayLike | None,
    n_tokens: float | ArrayLike | None,
) -> pd.DataFrame:
    """The mixtures as a table with N and D, checked; see `predict`."""
    if isinstance(weights, pd.DataFrame):
        table = weights.reset_index(drop=True).copy()
    elif isinstance(weights, xr.DataArray):
        rows = weights if "row" in weights.dims else weights.expand_dims("row")
        rows = rows.transpose("row", "domain")
        table = pd.DataFrame(rows.values, columns=[f"weight_{d}" for d in rows["domain"].values])
    elif not isinstance(weights, Mapping):
        raise ValueError(
            "mixtures are a {domain: weight}, a DataFrame with columns weight_<domain> or a "
            f"DataArray with dim domain, not {type(weights).__name__}"
        )
    else:
        table = pd.DataFrame([{f"weight_{name}": value for name, value in weights.items()}])
    if table.empty:
        raise ValueError("there is no mixture to predict")
    given = {str(c).removeprefix("weight_") for c in table if str(c).startswith("weight_")}
    if given != set(domains):
        raise ValueError(
            f"the mixtures' domains are {', '.join(sorted(given))}; the fit's are "
            f"{', '.join(domains)}"
        )
    values = table[[f"weight_{d}" for d in domains]].to_numpy(float)
    wrong = np.flatnonzero(~(np.all(values >= 0, axis=1) & (abs(values.sum(axis=1) - 1) <= 0.005)))
    if wrong.size:
        row = int(wrong[0])
        raise ValueError(
            f"mixture {row + 1}: weights must be non-negative and sum to 1, "
            f"got {values[row].tolist()}"
        )
    table[[f"weight_{d}" for d in domains]] = values / values.sum(axis=1, keepdims=True)
    for name, value in {"n_params": n_params, "n_tokens": n_tokens}.items():
        if value is not None:
            given_values = np.asarray(value, dtype=float)
            if given_values.shape not in ((), (len(table),)):
                raise ValueError(
                    f"{name} must be one number or {len(table)}, one for each mixture, got "
                    f"an array of shape {given_values.shape}"
                )
            table[name] = given_values
        if name not in table:
            raise ValueError(f"{name} is neither given nor a column of the mixtures")
        numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
        wrong = np.flatnonzero(~(np.isfinite(numbers) & (numbers > 0)))
        if wrong.size:
            row = int(wrong[0])
            cell = table[name].iloc[row]
            said = repr(cell) if isinstance(cell, str) else f"{numbers[row]:g}"
            raise ValueError(f"mixture {row + 1}: {name} must be positive and finite, got {said}")
        table[name] = numbers
    return table
