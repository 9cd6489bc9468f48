"""How the recommended weights move with scale."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesmix.plots._axes import (
    ACCENT,
    POSTERIOR,
    FigSize,
    interval_label,
    label_outer,
    panels,
    tails,
)


def plot_scale_path(
    path: xr.Dataset,
    *,
    prob: float = 0.9,
    ax: Sequence[Axes] | np.ndarray | None = None,
    figsize: FigSize = None,
) -> np.ndarray:
    """Weight of every domain along a path of sizes, one panel a domain.

    Along D where N does not vary. The line is recommended; the band holds the optima of the
    posterior draws.

    Parameters
    ----------
    path : Dataset
        What `scale_path` returns.
    prob : float
        Probability of the equal-tailed bands.
    ax : array of Axes, optional
        One a domain.
    figsize : tuple, optional
        Inches.

    Returns
    -------
    array of Axes, shape (K,)

    Raises
    ------
    ValueError
        If `prob` is not between 0 and 1, or the number of Axes is wrong.

    Examples
    --------
    >>> from bayesmix import load_dataset, scale_path
    >>> from bayesmix.prior_predictive import prior_fit
    >>> drawn = prior_fit(load_dataset("simulated"), draws=20)  # any fit; here the prior
    >>> axes = plot_scale_path(scale_path(drawn, [1e8, 1e9], [2e9, 2e10]))
    >>> [ax.get_title() for ax in axes]
    ['code', 'prose', 'qa', 'wiki', 'papers']
    """
    names = [str(name) for name in path["domain"].values]
    optima = path["optima"].transpose("draw", "step", "domain").values
    low, high = np.quantile(optima, tails(prob), axis=0)
    weights = path["weights"].transpose("step", "domain").values
    n_params, n_tokens = path["n_params"].values, path["n_tokens"].values
    along_n = np.ptp(n_params) > 0
    sizes, label = (n_params, "N, parameters") if along_n else (n_tokens, "D, tokens")
    n_columns = min(4, len(names))
    axes, figure = panels(len(names), ax, figsize, n_columns=n_columns, panel=(2.8, 2.2))
    for i, (name, panel) in enumerate(zip(names, axes, strict=True)):
        panel.fill_between(
            sizes,
            low[:, i],
            high[:, i],
            color=POSTERIOR,
            alpha=0.25,
            linewidth=0,
            label=f"optima of draws, {interval_label(prob)}",
        )
        panel.plot(sizes, weights[:, i], "o-", color=ACCENT, markersize=3, label="recommended")
        panel.set_xscale("log")
        panel.set_ylim(bottom=0)
        panel.set_title(name, fontsize=10)
        panel.grid(alpha=0.3)
    label_outer(axes, None if figure is None else n_columns, label, "weight")
    if figure is not None:
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=2, fontsize=8)
    return axes
