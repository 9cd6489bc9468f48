"""Whether the sampler converged: R-hat and effective draws of every quantity, and bounds."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from bayesmix.plots._axes import ACCENT, FigSize, panels
from bayesmix.posterior import Fit

_BOUNDS_R_HAT, _BOUND_ESS = (1.01, 1.02), 400  # strict and other quantities; strict ones


def plot_diagnostics(
    fit: Fit,
    *,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    figsize: FigSize = None,
) -> np.ndarray:
    """R-hat and effective sample sizes of every quantity, the worst entry of each.

    Filled: quantities held to R-hat <= 1.01 and bulk and tail ESS >= 400; open: those held to
    R-hat <= 1.02 only; red: a bound is missed. No traces: these numbers say what traces show.

    Parameters
    ----------
    fit : Fit
    ax : array of two Axes, optional
    figsize : tuple, optional
        Inches.

    Returns
    -------
    array of two Axes
        R-hat, and effective draws (bulk and tail).

    Raises
    ------
    ValueError
        If there are not two Axes.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> drawn = prior_fit(load_dataset("simulated"), draws=20)  # any fit; here the prior
    >>> plot_diagnostics(drawn)[1].get_title()
    '0 divergences in 20 draws'
    """
    diagnosis = fit.diagnose()
    table = diagnosis.table.iloc[::-1]
    stats = fit.posterior["sample_stats"]["diverging"]
    divergences, n_draws = int(stats.sum()), int(stats.size)

    height = 0.2 * len(table) + 1.8
    axes, _ = panels(2, ax, figsize, n_columns=2, panel=(4.2, height), sharey=True)
    rows = np.arange(len(table))
    edges = np.where(table["ok"], "C0", ACCENT)
    faces = np.where(table["strict"], edges, "white")
    r_hat, ess = axes
    r_hat.scatter(table["r_hat"], rows, c=faces, edgecolors=edges, s=26, zorder=3)
    for what, marker in (("ess_bulk", "o"), ("ess_tail", "^")):
        label = what.removeprefix("ess_")
        ess.scatter(
            table[what], rows, c=faces, edgecolors=edges, s=26, marker=marker, label=label, zorder=3
        )
    for style, bound in zip(("-", "--"), _BOUNDS_R_HAT, strict=True):
        r_hat.axvline(bound, color="0.4", linestyle=style, label=f"bound {bound}")
    ess.axvline(_BOUND_ESS, color="0.4", label=f"bound {_BOUND_ESS} (filled only)")
    ess.set_xscale("log")
    ess.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ess.xaxis.set_major_formatter("{x:.0f}")
    ess.xaxis.set_minor_formatter("")
    r_hat.set_yticks(rows, table.index)
    r_hat.set_xlabel("R-hat, worst entry")
    ess.set_xlabel("effective draws (ESS), worst entry")
    for panel in axes:
        panel.grid(axis="y", alpha=0.2)
        panel.set_ylim(-0.7, len(table) - 0.3)
        panel.legend(fontsize=7)
    verdict = "diagnostics pass" if diagnosis.passed else "diagnostics fail"
    r_hat.set_title(verdict, size=10)
    ess.set_title(f"{divergences} divergences in {n_draws} draws", size=10)
    return axes
