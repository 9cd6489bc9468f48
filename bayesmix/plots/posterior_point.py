"""A point fit beside the posterior: its parameters, its predictions, and the mixture it wants."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesmix.plots._axes import (
    ACCENT,
    POSTERIOR,
    FigSize,
    interval_label,
    panels,
    tails,
)

if TYPE_CHECKING:
    from bayesmix.pointfit import PointFit
    from bayesmix.posterior import Fit
    from bayesmix.recommend import Recommendation

_PARAMETERS = {
    "E": "E, nats per token",
    "b": "b, exponent of capacity",
    "a": "a, exponent of data noise",
}


def plot_posterior_point(
    fit: "Fit",
    point: "PointFit",
    rec: "Recommendation",
    *,
    prob: float = 0.9,
    ax: np.ndarray | None = None,
    figsize: FigSize = None,
) -> np.ndarray:
    """Where a point fit sits in the posterior, and what that means for the mixture.

    Parameters
    ----------
    fit : Fit
        A sampled posterior.
    point : PointFit
        Of the same swarm. Parameters are shown where it is ``point:`` and the fit's own law;
        those on a bound, which are no estimates, as hollow triangles.
    rec : Recommendation
        Of the fit, without constraints: its N, D and objective are those of the point's optimum.
    prob : float
        Probability of the equal-tailed intervals.
    ax : array of Axes, optional
        As many as there are panels.
    figsize : tuple, optional
        Inches.

    Returns
    -------
    array of Axes
        Parameters, if they are shared; expected losses at the recommended mixture; optima, whose
        title says which share of the tokens the point's would move from one domain to another.

    Raises
    ------
    ValueError
        If the fits are of other domains or targets, the objective is the worst domain, or `prob`
        is not between 0 and 1.

    Examples
    --------
    >>> from bayesmix import load_dataset, point_fit, recommend
    >>> from bayesmix.prior_predictive import prior_fit
    >>> runs = load_dataset("simulated")
    >>> drawn = prior_fit(runs, draws=20)  # any fit; here the prior
    >>> point = point_fit(runs, "log-linear")
    >>> axes = plot_posterior_point(drawn, point, recommend(drawn, 4e8, 8e9))
    >>> axes[-1].get_xlabel()
    'optimum, fraction of the tokens'
    """
    if point.components != fit.components:
        raise ValueError(
            f"the point fit is of {', '.join(point.components)}; the fit is of "
            f"{', '.join(fit.components)}"
        )
    if rec.worst:
        raise ValueError("a point fit has no optimum of the worst domain: recommend for a sum")
    n_params, n_tokens = (float(rec.losses.draws[name][0]) for name in ("n_params", "n_tokens"))
    posterior = fit.posterior["posterior"].to_dataset().stack(sample=("chain", "draw"))
    shared = point.law == f"point:{fit.law}"
    names = [name for name in _PARAMETERS if shared and name in posterior]
    axes, _ = panels(
        len(names) + 2,
        ax,
        figsize,
        n_columns=len(names) + 2,
        panel=(3.0, 0.3 * len(fit.components) + 2.0),
    )
    quantiles = (*tails(prob), 0.5)

    for panel, name in zip(axes, names, strict=False):
        draws = posterior[name].transpose("sample", ...)
        labels = [str(x) for x in draws[draws.dims[1]].values]
        stuck = [f"{name}[{label}]" in point.at_bounds for label in labels]
        _beside(panel, draws.values, point.parameters[name].values, labels, quantiles, stuck)
        panel.set_xlabel(_PARAMETERS[name])
    bounds = f"{len(point.at_bounds)} of {point.n_parameters} parameters on a bound"
    axes[0].set_title(f"{point.law}: {bounds}", size=9, loc="left")

    losses, optima = axes[-2:]
    components = list(fit.components)
    expected = rec.losses.draws["expected"].isel(row=0).sel(domain=components)
    predicted = point.predict(rec.weights, n_params, n_tokens).isel(row=0).sel(domain=components)
    # relative, since losses of domains differ by more than their intervals are wide
    middle = expected.median("draw")
    _beside(
        losses,
        100 * (expected / middle - 1).transpose("draw", "domain").values,
        100 * (predicted / middle - 1).values,
        components,
        quantiles,
    )
    losses.set_xlabel("expected loss at the recommendation,\n% off the posterior's median")

    best = point.optimum(n_params, n_tokens, rec.objective)
    domains = [str(name) for name in rec.weights["domain"].values]
    _beside(optima, rec.optima.values, best.values, domains, quantiles)
    rows = np.arange(len(domains))
    optima.plot(rec.weights.values, rows, "D", color=POSTERIOR, ms=5, label="recommended")
    low, high = np.quantile(_moved(rec.optima, rec.weights), tails(prob))
    own = float(_moved(best, rec.weights))
    optima.set_title(
        f"point's optimum moves {own:.0%} of the tokens;\ndraws' own {low:.0%} to {high:.0%}",
        size=9,
        loc="left",
    )
    optima.set_xlabel("optimum, fraction of the tokens")
    optima.plot([], [], "x", color=ACCENT, label=point.law)
    optima.plot([], [], color=POSTERIOR, lw=2, label=f"posterior, {interval_label(prob)}")
    optima.legend(loc="lower center", bbox_to_anchor=(0.5, 1.12), fontsize=7)
    return axes


def _moved(optima: xr.DataArray, weights: xr.DataArray) -> xr.DataArray:
    """Share of the tokens that is in another domain: half the L1 distance."""
    return abs(optima - weights).sum("domain") / 2


def _beside(
    panel: Axes,
    draws: np.ndarray,
    point: np.ndarray,
    labels: list[str],
    quantiles: tuple[float, float, float],
    stuck: list[bool] | None = None,
) -> None:
    """Intervals of draws (S, rows) and a point's values (rows,)."""
    low, high, middle = np.quantile(draws, quantiles, axis=0)
    rows = np.arange(len(labels))
    panel.hlines(rows, low, high, color=POSTERIOR, lw=2)
    panel.plot(middle, rows, "|", color=POSTERIOR, ms=9)
    hollow = np.zeros(len(labels), bool) if stuck is None else np.array(stuck)
    panel.plot(point[~hollow], rows[~hollow], "x", color=ACCENT, zorder=3)
    panel.plot(point[hollow], rows[hollow], "^", color=ACCENT, mfc="white", zorder=3)
    panel.set_yticks(rows, labels)
    panel.set_ylim(len(labels) - 0.5, -0.5)
    panel.grid(axis="x", alpha=0.3)
