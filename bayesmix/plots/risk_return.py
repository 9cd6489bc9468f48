"""What caution costs: the mean loss of choices beside their tails."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from bayesmix.plots._axes import ACCENT, PRIOR, FigSize, one
from bayesmix.risk import CVaR, value

if TYPE_CHECKING:
    from bayesmix.recommend import Recommendation


def plot_risk_return(
    recs: Mapping[str, "Recommendation"],
    *,
    level: float = 0.9,
    ax: Axes | None = None,
    figsize: FigSize = None,
) -> Axes:
    """Mean and tail of the expected loss of some recommendations and of their baselines.

    Lower left is better: what lies to the right pays for a lower tail with a higher mean.

    Parameters
    ----------
    recs : mapping
        {name: recommendation} of one objective at one N and D, by different measures of risk.
    level : float
        The tail is the mean over the worst 1 - `level` of the draws.
    ax : Axes, optional
    figsize : tuple, optional
        Inches.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no recommendation, or `level` is not between 0 and 1.

    Examples
    --------
    >>> from bayesmix import CVaR, load_dataset, recommend
    >>> from bayesmix.prior_predictive import prior_fit
    >>> drawn = prior_fit(load_dataset("simulated"), draws=20)  # any fit; here the prior
    >>> usual = recommend(drawn, 4e9, 8e10)
    >>> cautious = recommend(drawn, 4e9, 8e10, risk=CVaR(0.9))
    >>> ax = plot_risk_return({"usual": usual, "cautious": cautious})
    >>> ax.get_ylabel()
    'mean of its worst 10%, nats per token'
    """
    if not recs:
        raise ValueError("there is no recommendation to show")
    risk = CVaR(level)
    ax = one(ax, figsize or (6, 4.2))
    draws = {name: rec.loss.values for name, rec in recs.items()}
    first = next(iter(recs.values()))
    theirs = first.loss.values - first.baselines["difference"].transpose("baseline", "draw").values
    others = dict(zip(first.baselines["baseline"].values.tolist(), theirs, strict=True))
    for shown, colour, marker in ((others, PRIOR, "o"), (draws, ACCENT, "D")):
        for name, loss in shown.items():
            at = float(loss.mean()), value(risk, loss)
            if not np.isfinite(at).all():
                continue
            ax.plot(*at, marker, color=colour, zorder=3)
            ax.annotate(
                name.replace("_", " "), at, xytext=(5, 5), textcoords="offset points", fontsize=8
            )
    ax.set_xlabel("mean of the expected loss, nats per token")
    ax.set_ylabel(f"mean of its worst {100 * (1 - level):.3g}%, nats per token")
    ax.margins(0.15)
    ax.grid(alpha=0.3)
    return ax
