"""Who transfers to whom: a heat map of tau."""

from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from bayesmix import law as laws
from bayesmix.plots._axes import FigSize, interval_label, one, tails
from bayesmix.posterior import Fit

_MOST_TEXT = 9  # with more domains the intervals' numbers are too small to read
_WORTH_SAYING = 0.1


def plot_transfer(
    fit: Fit, *, prob: float = 0.9, ax: Axes | None = None, figsize: FigSize = None
) -> Axes:
    """Posterior of tau: how much a token of one domain is worth to another.

    Colour is the posterior median. A square shrinks with the width of its interval: a full
    square is certain, a dot is an interval from 0 to 1. Up to nine domains the interval is
    written too. The diagonal is 1 by definition.

    Parameters
    ----------
    fit : Fit
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
        If the law has no transfer, or `prob` is not between 0 and 1.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> ax = plot_transfer(prior_fit(load_dataset("simulated"), draws=20))  # here the prior
    >>> ax.get_ylabel()
    'loss of'
    """
    posterior = fit.posterior["posterior"].to_dataset()
    if not laws.LAWS[fit.law].transfer:
        raise ValueError(f"the {fit.law} law has no transfer between domains")
    low, middle, high = (
        posterior["tau"].quantile([tails(prob)[0], 0.5, tails(prob)[1]], ("chain", "draw")).values
    )
    n_rows, n_columns = middle.shape
    text = n_columns <= _MOST_TEXT
    cell = 0.8 if text else 0.42
    ax = one(ax, figsize or (cell * n_columns + 3.2, cell * n_rows + 2.6))

    pairs = [(i, j) for i in range(n_rows) for j in range(n_columns) if i != j]
    squares = []
    for i, j in pairs:
        side = max(1 - (high[i, j] - low[i, j]), 0.08)
        squares.append(Rectangle((j - side / 2, i - side / 2), side, side))
    heat = PatchCollection(squares, cmap="YlGnBu", clim=(0, 1))
    heat.set_array(np.array([middle[pair] for pair in pairs]))
    ax.add_collection(heat)
    # a dark square may be smaller than its number
    halo = [patheffects.withStroke(linewidth=1.5, foreground="white")]
    for i, j in pairs:
        if text:
            label = f"{middle[i, j]:.2f}\n{low[i, j]:.2f}–{high[i, j]:.2f}"
        elif middle[i, j] >= _WORTH_SAYING:
            label = f"{middle[i, j]:.2f}".removeprefix("0")
        else:
            continue
        ax.text(j, i, label, ha="center", va="center", fontsize=7, path_effects=halo)
    own: dict[str, Any] = {"facecolor": "0.9", "hatch": "///", "edgecolor": "0.75"}
    for i in range(min(n_rows, n_columns)):
        ax.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, **own))
    ax.set_xticks(range(n_columns), fit.runs.domains, rotation=45, ha="right")
    ax.set_yticks(range(n_rows), fit.components)
    ax.tick_params(length=0)
    ax.set(
        xlim=(-0.5, n_columns - 0.5),
        ylim=(n_rows - 0.5, -0.5),
        aspect="equal",
        xlabel="token of",
        ylabel="loss of",
    )
    ax.set_title(
        "What a token of one domain is worth to another\n"
        f"smaller square: wider {interval_label(prob)}; hatched: 1 by definition",
        size=9,
    )
    ax.figure.colorbar(heat, ax=ax, label="tau, posterior median", shrink=0.7)
    return ax
