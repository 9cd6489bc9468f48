"""The front of two objectives."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesmix.plots._axes import POSTERIOR, FigSize, interval_label, one, tails


def plot_pareto(
    front: xr.Dataset, *, prob: float = 0.9, ax: Axes | None = None, figsize: FigSize = None
) -> Axes:
    """Posterior means of two objectives along their front, with intervals of both.

    Parameters
    ----------
    front : Dataset
        What `pareto_front` returns.
    prob : float
        Probability of the equal-tailed intervals.
    ax : Axes, optional
    figsize : tuple, optional
        Inches.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If `prob` is not between 0 and 1.

    Examples
    --------
    >>> from bayesmix import load_dataset, pareto_front
    >>> from bayesmix.prior_predictive import prior_fit
    >>> drawn = prior_fit(load_dataset("simulated"), draws=20)  # any fit; here the prior
    >>> objectives = {"code": {"code": 1}, "wiki": {"wiki": 1}}
    >>> ax = plot_pareto(pareto_front(drawn, 4e9, 8e10, objectives, points=3))
    >>> ax.get_xlabel()
    'code: loss, nats per token'
    """
    low, high = np.quantile(front["loss"].transpose("draw", "objective", "point"), tails(prob), 0)
    mean = front["loss"].mean("draw").transpose("objective", "point").values
    ax = one(ax, figsize or (5.5, 4.2))
    reach = [[m - a, b - m] for m, a, b in zip(mean, low, high, strict=True)]
    ax.errorbar(
        mean[0],
        mean[1],
        xerr=np.maximum(reach[0], 0),
        yerr=np.maximum(reach[1], 0),
        fmt="none",
        color=POSTERIOR,
        alpha=0.35,
        linewidth=1,
        label=interval_label(prob),
    )
    ax.plot(*mean, "o-", color=POSTERIOR, markersize=4, label="posterior mean")
    first, second = (str(name) for name in front["objective"].values)
    ax.set_xlabel(f"{first}: loss, nats per token")
    ax.set_ylabel(f"{second}: loss, nats per token")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    return ax
