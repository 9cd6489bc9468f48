"""Observed losses against fitted ones, a panel a domain."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bayesmix.model import observed_log_loss
from bayesmix.plots._axes import ACCENT, LOSS_LABEL, FigSize, interval_label, label_outer, panels
from bayesmix.posterior import Fit
from bayesmix.predict import MEAN
from bayesmix.runs import _count

_MOST_SIZES = 8  # in the legend


def plot_fit(
    fit: Fit,
    *,
    prob: float = 0.9,
    relative: bool = False,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    figsize: FigSize = None,
) -> np.ndarray:
    """Observed losses against fitted ones, with the interval of a new run.

    Each point is a fitted row; a red ring says that its observed loss is outside its interval,
    and the title how many are inside. Domains without observed losses have no panel,
    and rows for which the law predicts nothing have no point.

    Parameters
    ----------
    fit : Fit
    prob : float
        Probability of the equal-tailed intervals.
    relative : bool
        Show observed less fitted, in percent of the fitted loss: it makes intervals of a percent
        visible.
    ax : array of Axes, optional
        One for each domain or target with observed losses.
    figsize : tuple, optional
        Inches.

    Returns
    -------
    array of Axes

    Raises
    ------
    ValueError
        If `prob` is not between 0 and 1, or there are too few or too many Axes.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> axes = plot_fit(prior_fit(load_dataset("simulated"), draws=20))  # any fit; here the prior
    >>> axes[-1].get_xlabel()
    'observed loss, nats per token'
    """
    runs = fit.runs
    observed = np.exp(observed_log_loss(runs))
    table = fit.predict(runs.frame).summary(prob)
    table = table[table["domain"] != MEAN]
    fitted, lower, upper = (
        table[name].to_numpy().reshape(observed.shape) for name in ("mean", "lower", "upper")
    )
    # a law without transfer predicts nothing for a domain at weight 0
    shown = np.isfinite(observed) & np.isfinite(fitted)
    seen = np.flatnonzero(shown.any(axis=0))

    side = math.ceil(math.sqrt(len(seen)))
    axes, figure = panels(len(seen), ax, figsize, n_columns=side, panel=(2.5, 2.2), sharey=relative)
    grid = side if figure is not None else None
    sizes = runs.n_params.values
    colours = _colours(sizes)
    for panel_ax, i in zip(axes, seen, strict=True):
        rows = shown[:, i]
        truth, at = observed[rows, i], fitted[rows, i]
        low, high = lower[rows, i], upper[rows, i]
        outside = (truth < low) | (truth > high)
        if relative:
            x, y = at, 100 * (truth / at - 1)
            low, high = 100 * (low / at - 1), 100 * (high / at - 1)
            panel_ax.axhline(0, color="0.5", linewidth=0.8, zorder=0)
        else:
            x, y = truth, at
            panel_ax.axline((truth[0], truth[0]), slope=1, color="0.5", linewidth=0.8, zorder=0)
        panel_ax.vlines(x, low, high, colors=colours[rows], linewidth=0.8, alpha=0.5)
        panel_ax.scatter(
            x,
            y,
            s=14,
            c=colours[rows],
            edgecolors=np.where(outside, ACCENT, "none").tolist(),
            linewidths=1.2,
            zorder=3,
        )
        panel_ax.set_title(f"{fit.components[i]}: {100 * (1 - outside.mean()):.0f}% inside", size=9)
        panel_ax.locator_params(nbins=5)
    if relative:
        label_outer(axes, grid, f"fitted {LOSS_LABEL}", "relative error, %")
    else:
        # in two lines: a panel is less high than the label is long
        y_label = f"fitted {LOSS_LABEL}".replace(", ", ",\n")
        label_outer(axes, grid, f"observed {LOSS_LABEL}", y_label)
    _legend(axes, figure, sizes, colours, prob)
    return axes


def _colours(sizes: np.ndarray) -> np.ndarray:
    """A colour for each row, by N; one colour where there are too many sizes to tell apart."""
    if not 1 < len(np.unique(sizes)) <= _MOST_SIZES:
        return np.tile(matplotlib.colors.to_rgba("C0"), (len(sizes), 1))
    norm = LogNorm(sizes.min(), sizes.max())
    return matplotlib.colormaps["viridis"](0.9 * norm(sizes))


def _legend(
    axes: np.ndarray, figure: Figure | None, sizes: np.ndarray, colours: np.ndarray, prob: float
) -> None:
    ring: dict[str, Any] = {
        "color": ACCENT,
        "marker": "o",
        "linestyle": "",
        "markerfacecolor": "none",
    }
    what = f"{interval_label(prob)} of a new run"
    handles = [
        Line2D([], [], color="0.4", marker="|", linestyle="", markersize=11, label=what),
        Line2D([], [], **ring, label="observed outside it"),
    ]
    distinct, first = np.unique(sizes, return_index=True)
    if len(distinct) <= _MOST_SIZES:
        handles += [
            Line2D(
                [], [], color=colours[row], marker="o", linestyle="", label=f"N = {_count(size)}"
            )
            for size, row in zip(distinct, first, strict=True)
        ]
    if figure is not None:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    else:
        axes[-1].legend(handles=handles, fontsize=7)
