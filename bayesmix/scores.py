"""How good predictions are: errors, calibration and decisions, on cells held out.

A cell is one loss: of a run and a domain or target, or of a run's mean over domains; a pair is
the difference of two runs' mean losses. `score` scores either, against draws or against a point.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix.predict import MEAN
from bayesmix.runs import Runs
from bayesmix.splits import mixture_groups

LEVELS = (50, 80, 90, 95)  # nominal coverage of equal-tailed intervals, percent
WIDTH_LEVEL = 90  # of the interval that is kept, and of its score
# CRPS is the mean pinball loss of these quantiles: t noise of a log loss has no mean, so that one
# draw in a million can make the CRPS of all draws as large as you like
_CRPS_LEVELS = (np.arange(200) + 0.5) / 200


def score(loss: np.ndarray, predicted: np.ndarray, draws: np.ndarray | None = None) -> pd.DataFrame:
    """Scores of each prediction.

    Parameters
    ----------
    loss : array, shape (R,)
        Observed, nats per token.
    predicted : array, shape (R,)
        Point predictions; not finite where nothing is predicted, and then every score is NaN.
    draws : array, shape (R, S), optional
        Predictive draws of what was observed. Without them CRPS is the absolute error, and
        what needs an interval is NaN.

    Returns
    -------
    DataFrame
        ``loss, predicted``; ``lower, upper`` of the 90% equal-tailed interval; ``crps``,
        ``interval_score`` of that interval (nats per token); ``pit``: share of draws at or below
        the observed loss; ``covered_50`` to ``covered_95``: 1 if inside the interval, else 0.

    Examples
    --------
    >>> table = score(np.array([2.0]), np.array([2.1]), np.linspace(1.6, 2.6, 1001)[None])
    >>> table[["lower", "upper", "pit", "covered_50"]].round(2).values.tolist()
    [[1.65, 2.55, 0.4, 1.0]]
    """
    blank = ~np.isfinite(predicted)
    table = pd.DataFrame({"loss": loss, "predicted": predicted})
    if draws is None:
        covered = [f"covered_{level}" for level in LEVELS]
        table[["lower", "upper"]] = np.nan
        table["crps"] = abs(predicted - loss)
        table[["interval_score", "pit", *covered]] = np.nan
    else:
        import scoringrules as sr  # compiles for seconds when imported

        tails = np.array([(50 - level / 2, 50 + level / 2) for level in LEVELS]) / 100
        limits = np.quantile(draws, tails, axis=1)
        lower, upper = limits[LEVELS.index(WIDTH_LEVEL)]
        table["lower"], table["upper"] = lower, upper
        quantiles = np.quantile(draws, _CRPS_LEVELS, axis=1).T
        table["crps"] = sr.crps_quantile(loss, quantiles, _CRPS_LEVELS, backend="numpy")
        table["interval_score"] = sr.interval_score(
            loss, lower, upper, 1 - WIDTH_LEVEL / 100, backend="numpy"
        )
        pit = (draws <= loss[:, None]).mean(axis=1)
        table["pit"] = np.where(np.isfinite(lower + upper), pit, np.nan)
        for level, (low, high) in zip(LEVELS, limits, strict=True):
            covered = ((low <= loss) & (loss <= high)).astype(float)
            # draws with a blank among them, of refits that do not predict a cell, are no interval
            table[f"covered_{level}"] = np.where(np.isfinite(low + high), covered, np.nan)
    table.loc[blank, table.columns != "loss"] = np.nan
    return table


def score_runs(
    runs: Runs,
    domains: Sequence[str],
    predicted: xr.DataArray,
    draws: xr.DataArray | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of every observed cell, and of every pair of runs.

    Parameters
    ----------
    runs : Runs
        Held out, one row a run.
    domains : sequence of str
        Those that are scored and averaged: the ones with losses anywhere in the swarm.
    predicted : DataArray, dims (row, domain)
        Point predictions, nats per token; absent domains are predicted nothing.
    draws : DataArray, dims (draw, row, domain), optional
        Predictive draws of new runs, joint over rows and domains.

    Returns
    -------
    cells : DataFrame
        ``run_id, n_params, n_tokens, domain, weight`` and the columns of `score`. ``domain``
        is also ``target:<name>``, and ``mean`` for the mean over `domains` (without any, over
        targets), of runs with all of them observed; the weight of either is NaN.
    pairs : DataFrame
        ``run_id, other, n_params`` and the columns of `score`, of the mean loss of the one less
        that of the other: runs of one size with different mixtures.
    """
    names = [*domains, *(f"target:{t}" for t in runs.targets)]
    losses = np.hstack([runs.losses.sel(domain=list(domains)).values, runs.target_losses.values])
    n_mean = len(domains) or len(names)
    losses = _with_mean(losses, n_mean)
    points = _with_mean(_values(predicted, names), n_mean)
    ensemble = None
    if draws is not None:
        values = _values(draws.transpose("row", "draw", "domain"), names)
        ensemble = np.moveaxis(_with_mean(values, n_mean), 1, 2)
    return (
        _cells(runs, domains, [*names, MEAN], losses, points, ensemble),
        _pairs(
            runs,
            losses[:, -1],
            points[:, -1],
            None if ensemble is None else ensemble[:, -1],
        ),
    )


def aggregate(scored: pd.DataFrame) -> dict[str, float]:
    """Averages of what `score` gave; NaN if the law leaves one of the cells blank.

    Returns
    -------
    dict
        ``mre`` and ``width`` in percent of the loss, ``mae, crps, interval_score`` in nats per
        token; ``coverage`` of 90% intervals, and ``coverage_50, coverage_80, coverage_95``.
    """
    loss, error = scored["loss"], abs(scored["predicted"] - scored["loss"])
    columns = {
        "mre": 100 * error / loss,
        "mae": error,
        "crps": scored["crps"],
        "interval_score": scored["interval_score"],
        "coverage": scored[f"covered_{WIDTH_LEVEL}"],
        "width": 100 * (scored["upper"] - scored["lower"]) / loss,
        **{f"coverage_{n}": scored[f"covered_{n}"] for n in LEVELS if n != WIDTH_LEVEL},
    }
    return {name: float(values.mean(skipna=False)) for name, values in columns.items()}


def headline(cells: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, float]:
    """The scores of a table's line.

    Parameters
    ----------
    cells, pairs : DataFrame
        As `score_runs` gives them, with a column ``fold`` each if they are of several.

    Returns
    -------
    dict
        Those of `aggregate` over all cells that are `single`, and with ``_pos`` over those whose
        printed weight is above 0; ``coverage_mean, width_mean`` of the mean loss and
        ``coverage_difference`` of pairs, 90%; ``spearman``, ``regret`` (see `ranking`).
    """
    of_mean = cells["domain"] == MEAN
    of_domains = single(cells)
    positive = aggregate(of_domains[of_domains["weight"] > 0])
    mean = aggregate(cells[of_mean])
    return {
        **aggregate(of_domains),
        **{f"{name}_pos": value for name, value in positive.items()},
        "coverage_mean": mean["coverage"],
        "width_mean": mean["width"],
        "coverage_difference": aggregate(pairs)["coverage"],
        **ranking(cells[of_mean]),
    }


def single(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells of single losses: of domains, or of targets where no domain has losses."""
    of_domains = cells["weight"].notna()
    return cells[of_domains if of_domains.any() else cells["domain"] != MEAN]


def ranking(mean_cells: pd.DataFrame) -> dict[str, float]:
    """How well predictions order the held-out runs of one size by mean loss.

    Parameters
    ----------
    mean_cells : DataFrame
        Cells of the mean loss; a column ``fold`` if they are of several.

    Returns
    -------
    dict
        ``spearman``: rank correlation; ``regret``: the mean loss of the run predicted best less
        that of the best run, nats per token (runs that tie for best: their average). Averaged
        over folds and sizes with two runs at least, the correlation over those where neither
        losses nor predictions are all equal; NaN where a law leaves a mean blank.

    Examples
    --------
    >>> ranking(pd.DataFrame({
    ...     "n_params": 1e8, "loss": [3.0, 2.0, 2.5], "predicted": [2.9, 2.4, 2.3]}))
    {'spearman': 0.5, 'regret': 0.5}
    """
    by = [name for name in ("fold", "n_params") if name in mean_cells]
    spearmans, regrets = [], []
    for _, at_size in mean_cells.groupby(by, sort=False):
        if len(at_size) < 2:
            continue
        loss, predicted = at_size["loss"], at_size["predicted"]
        if predicted.isna().any():
            return {"spearman": np.nan, "regret": np.nan}
        # predictions that are all equal, as of a mixture that is repeated, have no order
        if predicted.nunique() > 1 and loss.nunique() > 1:
            spearmans.append(predicted.rank().corr(loss.rank()))
        regrets.append(loss[predicted == predicted.min()].mean() - loss.min())
    return {
        "spearman": float(np.mean(spearmans)) if spearmans else np.nan,
        "regret": float(np.mean(regrets)) if regrets else np.nan,
    }


def _values(predicted: xr.DataArray, names: list[str]) -> np.ndarray:
    """Values at named components, NaN where nothing finite is predicted."""
    values = predicted.reindex(domain=names).values.astype(float)
    return np.where(np.isfinite(values), values, np.nan)


def _with_mean(values: np.ndarray, n_domains: int) -> np.ndarray:
    """Append the mean over the first components of the last axis."""
    mean = values[..., :n_domains].mean(axis=-1, keepdims=True)
    return np.concatenate([values, mean], axis=-1)


def _cells(
    runs: Runs,
    domains: Sequence[str],
    names: list[str],
    losses: np.ndarray,
    points: np.ndarray,
    ensemble: np.ndarray | None,
) -> pd.DataFrame:
    row, column = np.nonzero(np.isfinite(losses))
    weights = np.full(losses.shape, np.nan)
    weights[:, : len(domains)] = runs.weights.sel(domain=list(domains)).values
    where = pd.DataFrame(
        {
            "run_id": runs.run_ids.values[row],
            "n_params": runs.n_params.values[row],
            "n_tokens": runs.n_tokens.values[row],
            "domain": np.array(names)[column],
            "weight": weights[row, column],
        }
    )
    scored = score(
        losses[row, column],
        points[row, column],
        None if ensemble is None else ensemble[row, column],
    )
    return where.join(scored)


def _pairs(
    runs: Runs, losses: np.ndarray, points: np.ndarray, ensemble: np.ndarray | None
) -> pd.DataFrame:
    """Scores of differences of means, run by run, so that draws of few pairs are held at once."""
    ids, n_params = runs.run_ids.values, runs.n_params.values
    tables = [
        pd.DataFrame({"run_id": ids[i], "other": ids[j], "n_params": n_params[i]}).join(
            score(
                losses[i] - losses[j],
                points[i] - points[j],
                None if ensemble is None else ensemble[i] - ensemble[j],
            )
        )
        for i, j in _partners(runs, losses)
    ]
    return pd.concat(tables, ignore_index=True)


def _partners(runs: Runs, losses: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Each row with the later rows of its size that have another mixture."""
    groups, n_params = mixture_groups(runs), runs.n_params.values
    rows, seen = np.arange(len(runs)), np.isfinite(losses)
    found = [
        (int(i), rows[(rows > i) & seen & (n_params == n_params[i]) & (groups != groups[i])])
        for i in rows[seen]
    ]
    # no pair at all is a table without lines, not the absence of a table
    return [(i, others) for i, others in found if len(others)] or [(0, rows[:0])]
