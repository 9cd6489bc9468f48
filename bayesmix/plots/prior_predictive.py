"""Prior predictive check: do losses under the priors look like losses."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayesmix.model import components, observed_log_loss
from bayesmix.plots._axes import ACCENT, LOSS_LABEL, PRIOR, FigSize, panels
from bayesmix.posterior import Fit
from bayesmix.prior_predictive import predict_prior, prior_fit
from bayesmix.priors import Prior
from bayesmix.reference import reference
from bayesmix.runs import Runs

_GRID = 25
_BEYOND = 10  # curves end at so many times the largest N and D, and start as far below the least D
_MOST_CURVES = 60


def plot_prior_predictive(
    runs: Runs,
    *,
    law: str = "transfer",
    priors: Mapping[str, Prior] | None = None,
    component: str | None = None,
    vocabulary: int = 50_000,
    draws: int = 200,
    seed: int = 0,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    figsize: FigSize = None,
) -> np.ndarray:
    """Losses under the prior against a weight, N and D, with the observed losses.

    Each grey line is one draw from the priors, at the reference point but for what is on the
    horizontal axis (the other domains share the rest of the mixture as they do there). The titles
    count, over all domains and draws: losses that are positive and below those of guessing, and
    losses that fall as each of the three grows.

    Parameters
    ----------
    runs : Runs
        The swarm, for its sizes, mixtures and median losses.
    law : str
        A name in `bayesmix.law.LAWS`.
    priors : mapping, optional
        Replacements for the default priors, by name.
    component : str, optional
        Domain whose losses are shown; by default the first with observed losses.
    vocabulary : int
        Size of the tokenizer's vocabulary: guessing costs its logarithm, in nats per token.
    draws, seed : int
        Draws from the prior, and their seed.
    ax : array of three Axes, optional
    figsize : tuple, optional
        Inches.

    Returns
    -------
    array of three Axes

    Raises
    ------
    ValueError
        If the law, a prior's name or the domain is unknown, or there are not three Axes.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> axes = plot_prior_predictive(load_dataset("simulated"), draws=20)
    >>> axes[1].get_xlabel()
    'N, parameters'
    """
    names = components(runs)
    observed = np.exp(observed_log_loss(runs))
    if component is None:
        seen = np.isfinite(observed[:, : len(runs.domains)]).any(axis=0)
        component = names[int(seen.argmax())]
    if component not in runs.domains:
        raise ValueError(f"unknown domain {component!r}; valid names: {', '.join(runs.domains)}")
    at = names.index(component)
    drawn = prior_fit(runs, law, priors, draws, seed)
    axes, _ = panels(3, ax, figsize, n_columns=3, panel=(3.6, 3.4), sharey=True)

    least = 1e-3  # a log axis has no place for 0: such runs are drawn at its left end
    own = np.maximum(runs.weights.values[:, at], least)
    sizes, horizons = runs.n_params.values, runs.n_tokens.values
    shown = (
        (f"weight_{component}", f"weight of {component}", np.geomspace(least, 0.95, _GRID), own),
        # the floor H is below the smallest N, and may be above any other below it
        ("n_params", "N, parameters", _beyond(sizes, sizes.min()), sizes),
        ("n_tokens", "D, tokens", _beyond(horizons, horizons.min() / _BEYOND), horizons),
    )
    inside = predict_prior(drawn, runs.frame)["expected"].values
    # a law without transfer has no loss at weight 0
    inside = inside[np.isfinite(inside)]
    share = 100 * ((inside > 0) & (inside < np.log(vocabulary))).mean()
    for panel, (column, label, grid, x) in zip(axes, shown, strict=True):
        curves = _sweep(drawn, column, grid)
        panel.plot(grid, curves[:_MOST_CURVES, :, at].T, color=PRIOR, linewidth=0.6, alpha=0.6)
        panel.plot([], [], color=PRIOR, label="draws from the prior")
        panel.plot(x, observed[:, at], "k.", markersize=4, label="observed", zorder=3)
        guess = f"guessing among {vocabulary:,} tokens"
        panel.axhline(np.log(vocabulary), color=ACCENT, linestyle="--", label=guess)
        if column.startswith("weight_"):
            falls = [
                _falls(_sweep(drawn, f"weight_{d}", grid)[:, :, i])
                for i, d in enumerate(runs.domains)
            ]
        else:
            falls = [_falls(curves)]
        panel.set(xscale="log", xlabel=label, ylim=(0, 1.1 * np.log(vocabulary)))
        panel.set_title(f"falls in {100 * np.mean(falls):.4g}% of curves", size=10)
    axes[0].set_ylabel(f"{component} {LOSS_LABEL}")
    axes[0].legend(fontsize=7, title=f"{share:.4g}% of losses above 0, below guessing")
    axes[0].get_legend().get_title().set_fontsize(7)
    return axes


def _beyond(values: np.ndarray, start: float) -> np.ndarray:
    return np.geomspace(start, values.max() * _BEYOND, _GRID)


def _sweep(drawn: Fit, column: str, grid: np.ndarray) -> np.ndarray:
    """Losses (draw, grid, component) at the reference point, one column of it moved."""
    ref, domains = reference(drawn.runs), [f"weight_{d}" for d in drawn.runs.domains]
    point = dict(zip(domains, ref.weights, strict=True))
    point |= {"n_params": ref.n_params, "n_tokens": ref.n_tokens}
    table = pd.DataFrame([point] * len(grid))
    if column in domains:
        others = [name for name in domains if name != column]
        table[others] = table[others].mul((1 - grid) / (1 - point[column]), axis=0)
    table[column] = grid
    return predict_prior(drawn, table)["expected"].values


def _falls(losses: np.ndarray) -> np.ndarray:
    """Whether losses never rise along axis 1, but for rounding."""
    return (np.diff(losses, axis=1) <= 1e-12 * losses[:, 1:]).all(axis=1)
