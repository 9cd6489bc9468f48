"""What each loss is made of at the reference point, prior beside posterior."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesmix.plots._axes import POSTERIOR, PRIOR, FigSize, interval_label, panels, tails
from bayesmix.posterior import Fit
from bayesmix.prior_predictive import prior_fit
from bayesmix.reference import reference
from bayesmix.runs import _count

MECHANISMS = {
    "share_irreducible": "irreducible",
    "share_capacity": "capacity competition",
    "share_noise": "data noise",
    "share_head_n": "shared head: N",
    "share_head_d": "shared head: D",
}


def plot_mechanisms(
    fit: Fit,
    *,
    prob: float = 0.9,
    draws: int = 1000,
    seed: int = 0,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    figsize: FigSize = None,
) -> np.ndarray:
    """How much of each loss every mechanism accounts for, prior beside posterior.

    Shares are of the loss at the reference point (mean mixture, geometric mean N and D of the
    fitted runs). Where a posterior is as wide as its prior, the data did not speak.

    Parameters
    ----------
    fit : Fit
    prob : float
        Probability of the equal-tailed intervals; points are medians.
    draws, seed : int
        Draws of the prior, and their seed.
    ax : array of Axes, optional
        One for each mechanism of the law.
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
    >>> drawn = prior_fit(load_dataset("simulated"), draws=20)  # any fit; here the prior
    >>> [ax.get_title() for ax in plot_mechanisms(drawn, draws=20)][:2]
    ['irreducible', 'capacity competition']
    """
    posterior = fit.posterior["posterior"].to_dataset()
    drawn = prior_fit(fit.runs, fit.law, fit.priors, draws, seed)
    prior = drawn.posterior["posterior"].to_dataset()
    shown = {name: title for name, title in MECHANISMS.items() if name in posterior}
    names = list(fit.components)
    height = 0.34 * len(names) + 1.6
    axes, figure = panels(
        len(shown), ax, figsize, n_columns=len(shown), panel=(2.3, height), sharey=True
    )
    for panel, (name, title) in zip(axes, shown.items(), strict=True):
        for values, offset, colour, label in (
            (prior[name], 0.17, PRIOR, "prior"),
            (posterior[name], -0.17, POSTERIOR, "posterior"),
        ):
            _intervals(panel, values, names, offset, prob, colour, label)
        panel.set_title(title, size=10)
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.set_xlim(left=0)
        panel.grid(axis="x", alpha=0.3)
        panel.set_xlabel("share of loss, %")
    ref = reference(fit.runs)
    where = (
        f"N = {_count(ref.n_params)} parameters, D = {_count(ref.n_tokens)} tokens, mean mixture"
    )
    handles, labels = axes[0].get_legend_handles_labels()
    labels = [f"{label}, median and {interval_label(prob)}" for label in labels]
    if figure is not None:
        figure.suptitle(f"What the loss is made of at {where}", size=11)
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    else:
        axes[-1].legend(handles, labels, title=where, fontsize=7)
    return axes


def _intervals(
    ax: Axes,
    values: xr.DataArray,
    names: list[str],
    offset: float,
    prob: float,
    colour: str,
    label: str,
) -> None:
    """A bar from tail to tail and a point at the median, a row a component, in percent."""
    dim = values.dims[-1]  # component, or domain where targets have no such term
    low, high = tails(prob)
    low, middle, high = 100 * values.quantile([low, 0.5, high], ("chain", "draw")).values
    rows = np.array([names.index(name) for name in values[dim].values]) + offset
    ax.errorbar(
        middle,
        rows,
        xerr=[middle - low, high - middle],
        fmt="o",
        color=colour,
        markersize=3.5,
        linewidth=2,
        label=label,
    )
