"""Seed noise, where a swarm repeats its runs: beside it, what the fit takes for noise."""

import numpy as np
import pandas as pd

from bayesmix.model import components, observed_log_loss
from bayesmix.posterior import Fit
from bayesmix.runs import Runs, equal_points


def seed_noise(runs: Runs) -> pd.Series:
    """Standard deviation of log loss among runs that differ in nothing but the seed.

    Pooled over the cells of equal mixture, N and D with two or more runs.

    Parameters
    ----------
    runs : Runs

    Returns
    -------
    Series, index component
        As a fraction of the loss; NaN where nothing repeats.

    Examples
    --------
    >>> row = {"n_params": 1e8, "n_tokens": 2e9, "weight_web": 0.5, "weight_code": 0.5}
    >>> from bayesmix import runs_from_frame
    >>> twice = pd.DataFrame([{"run_id": r, **row, "loss_web": 3 * np.exp(e)}
    ...                       for r, e in (("a", 0.01), ("b", -0.01))])
    >>> seed_noise(runs_from_frame(twice)).round(4).to_dict()
    {'web': 0.0141, 'code': nan}
    """
    log_loss = pd.DataFrame(observed_log_loss(runs), columns=list(components(runs)))
    scale = np.log(np.column_stack([runs.n_params.values, runs.n_tokens.values]))
    code = equal_points(runs.weights.values, scale)
    # a run that was evaluated twice is one seed
    by_run = log_loss.groupby([code, runs.run_ids.values]).mean()
    by_cell = by_run.groupby(level=0)
    squares = ((by_run - by_cell.transform("mean")) ** 2).sum()
    freedom = (by_cell.count() - 1).clip(lower=0).sum()
    return ((squares / freedom.where(freedom > 0)) ** 0.5).rename("seed_noise")


def noise_table(fit: Fit) -> pd.DataFrame:
    """Seed noise beside what the fit takes for noise: noise and misfit together.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    DataFrame, index component
        ``seed_noise``: see `seed_noise`, over the fitted rows; ``noise_and_misfit``: posterior
        median of the scale of a run's error in log loss. Fractions of the loss. Where nothing
        repeats ``seed_noise`` is blank: the two cannot be told apart.

    Examples
    --------
    The bundled small swarm repeats runs with other seeds; with the priors' draws for a fit:

    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> noise_table(prior_fit(load_dataset("tinyswarm"), draws=20))["seed_noise"].round(3).to_dict()
    {'python': 0.012, 'c': 0.01, 'prose': 0.011, 'german': 0.006, 'french': 0.007, 'tables': 0.027}
    """
    posterior = fit.posterior["posterior"].to_dataset()
    together = ((posterior["sigma"] ** 2 + posterior["common"] ** 2) ** 0.5).median(
        ("chain", "draw")
    )
    table = seed_noise(fit.runs).to_frame()
    table["noise_and_misfit"] = together.sel(component=list(table.index)).values
    return table.rename_axis("component")


def noise_sentence(fit: Fit) -> str:
    """Say what noise there is, and whether seed noise can be told from misfit.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    str
        Medians over components, in percent of the loss.
    """
    table = 100 * noise_table(fit).median()
    together = f"{table['noise_and_misfit']:.2g}% of the loss"
    if np.isnan(table["seed_noise"]):
        return (
            f"Noise and misfit together are {together}; no (mixture, N, D) repeats, so that seed "
            "noise cannot be told apart."
        )
    return f"Noise and misfit together are {together}, seed noise {table['seed_noise']:.2g}%."
