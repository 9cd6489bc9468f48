"""The recommended mixture beside the optimum of every posterior draw."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from bayesmix.plots._axes import ACCENT, POSTERIOR, FigSize, interval_label, one, tails
from bayesmix.runs import Runs

if TYPE_CHECKING:
    from bayesmix.recommend import Recommendation

_MOST_POINTS = 300  # optima drawn as points; the interval is of all of them


def plot_recommendation(
    rec: "Recommendation",
    *,
    runs: Runs | None = None,
    prob: float = 0.9,
    ax: Axes | None = None,
    figsize: FigSize = None,
) -> Axes:
    """Recommended weights, and how far the optima of the posterior draws spread around them.

    A wide spread of optima says that the posterior does not know the best weight of a domain, or
    that it hardly matters.

    Parameters
    ----------
    rec : Recommendation
    runs : Runs, optional
        The swarm: the range of weights that it tried is shaded.
    prob : float
        Probability of the equal-tailed interval of the optima.
    ax : Axes, optional
    figsize : tuple, optional
        Inches.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If `prob` is not between 0 and 1, or the swarm's domains are others.

    Examples
    --------
    >>> from bayesmix import load_dataset, recommend
    >>> from bayesmix.prior_predictive import prior_fit
    >>> drawn = prior_fit(load_dataset("simulated"), draws=20)  # any fit; here the prior
    >>> ax = plot_recommendation(recommend(drawn, 4e9, 8e10), runs=drawn.runs)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['code', 'prose', 'qa', 'wiki', 'papers']
    """
    names = [str(name) for name in rec.weights["domain"].values]
    if runs is not None and set(runs.domains) != set(names):
        raise ValueError(
            f"the swarm's domains are {', '.join(runs.domains)}; the recommendation's are "
            f"{', '.join(names)}"
        )
    optima = rec.optima.transpose("draw", "domain").values
    low, high = np.quantile(optima, tails(prob), axis=0)
    middle = np.median(optima, axis=0)
    rows = np.arange(len(names))
    ax = one(ax, figsize or (6.5, 0.36 * len(names) + 1.9))

    if runs is not None:
        tried = runs.weights.sel(domain=names)
        least, most = tried.min("row").values, tried.max("row").values
        for row in rows:
            ax.add_patch(
                Rectangle(
                    (least[row], row - 0.42),
                    most[row] - least[row],
                    0.84,
                    facecolor="0.92",
                    label="weights that the swarm tried" if row == 0 else None,
                    zorder=0,
                )
            )
    shown = np.unique(np.linspace(0, len(optima) - 1, min(_MOST_POINTS, len(optima))).astype(int))
    # spread over the height of a row, the same at every call
    height = 0.3 * (2 * np.random.default_rng(0).random(len(shown)) - 1)
    for row in rows:
        ax.scatter(
            optima[shown, row],
            row + height,
            s=5,
            color=POSTERIOR,
            alpha=0.25,
            linewidths=0,
            label="optima of posterior draws" if row == 0 else None,
        )
    ax.errorbar(
        middle,
        rows,
        xerr=[middle - low, high - middle],
        fmt="|",
        markersize=9,
        color=POSTERIOR,
        linewidth=2,
        label=f"their median and {interval_label(prob)}",
    )
    ax.plot(rec.weights.values, rows, "D", color=ACCENT, label="recommended", zorder=4)
    ax.set_yticks(rows, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(left=-0.01)
    ax.set_xlabel("weight, fraction of the tokens")
    ax.grid(axis="x", alpha=0.3)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)
    return ax
