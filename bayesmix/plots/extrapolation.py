"""Loss against N, with bands; the fitted range is shaded."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayesmix.plots._axes import interval_label
from bayesmix.posterior import Fit
from bayesmix.predict import MEAN, predict

_POINTS = 25


def plot_extrapolation(
    fit: Fit,
    *,
    mixture: Mapping[str, float] | None = None,
    n_params: Sequence[float],
    tokens_per_parameter: float | None = None,
    domain: str = MEAN,
    prob: float = 0.9,
    ax: Axes | None = None,
) -> Axes:
    """Loss of a mixture against the size of the model.

    Parameters
    ----------
    fit : Fit
    mixture : mapping, optional
        {domain: weight}; the swarm's mean by default.
    n_params : sequence of float
        The least and the greatest N, parameters.
    tokens_per_parameter : float, optional
        D / N; by default that of the swarm's reference point.
    domain : str
        A domain, ``target:<name>`` or ``mean`` over the domains with observed losses.
    prob : float
        Of the equal-tailed bands.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the domain is unknown or has no loss, and as `bayesmix.predict.predict`.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> drawn = prior_fit(load_dataset("simulated"), draws=20)  # any fit; here the prior
    >>> ax = plot_extrapolation(drawn, n_params=(5e7, 4e9), tokens_per_parameter=20, domain="code")
    >>> ax.get_ylabel()
    'loss of code (nats per token)'
    """
    runs = fit.runs
    if mixture is None:
        mixture = dict(zip(runs.domains, runs.weights.mean("row").values, strict=True))
    if tokens_per_parameter is None:
        ratio = np.log(runs.n_tokens.values / runs.n_params.values)
        tokens_per_parameter = float(np.exp(ratio.mean()))
    sizes = np.geomspace(min(n_params), max(n_params), _POINTS)
    table = pd.DataFrame([{f"weight_{d}": w for d, w in mixture.items()}] * _POINTS)
    table = table.assign(n_params=sizes, n_tokens=tokens_per_parameter * sizes)
    summary = predict(fit, table).summary(prob)
    names = summary["domain"].unique()
    if domain not in names:
        raise ValueError(f"unknown domain {domain!r}; valid names: {', '.join(names)}")
    line = summary[summary["domain"] == domain]
    if line["mean"].isna().all():
        raise ValueError(f"{domain!r} has no loss under this law, or none was observed")
    ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")[1] if ax is None else ax
    fitted = runs.n_params.values
    ax.axvspan(fitted.min(), fitted.max(), color="0.9", label="fitted sizes")
    label = interval_label(prob)
    ax.fill_between(
        sizes, line["lower"], line["upper"], color="C0", alpha=0.2, label=f"new run, {label}"
    )
    ax.fill_between(
        sizes,
        line["expected_lower"],
        line["expected_upper"],
        color="C0",
        alpha=0.35,
        label=f"expected, {label}",
    )
    ax.plot(sizes, line["mean"], color="C0", label="posterior mean")
    ax.set(
        xscale="log",
        xlabel=f"N (parameters), at {tokens_per_parameter:.3g} tokens a parameter",
        ylabel=f"loss of {domain} (nats per token)",
    )
    ax.legend()
    return ax
