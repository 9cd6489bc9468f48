"""What the plots share: grids of panels, colours, and how an interval is called."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FigSize = tuple[float, float] | None

PRIOR, POSTERIOR, ACCENT = "0.6", "C0", "C3"
LOSS_LABEL = "loss, nats per token"


def interval_label(prob: float) -> str:
    """Probability and kind of an interval.

    Examples
    --------
    >>> interval_label(0.9)
    '90% equal-tailed interval'
    """
    return f"{100 * prob:.3g}% equal-tailed interval"


def tails(prob: float) -> tuple[float, float]:
    """The two quantiles of an equal-tailed interval.

    Raises
    ------
    ValueError
        If `prob` is not between 0 and 1.

    Examples
    --------
    >>> tails(0.5)
    (0.25, 0.75)
    """
    if not 0 < prob < 1:
        raise ValueError(f"prob must lie between 0 and 1, got {prob}")
    return (1 - prob) / 2, (1 + prob) / 2


def one(ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    """The given Axes, or those of a new figure."""
    if ax is None:
        return plt.subplots(figsize=figsize, layout="constrained")[1]
    return ax


def panels(
    count: int,
    ax: Axes | Sequence[Axes] | np.ndarray | None,
    figsize: FigSize,
    *,
    n_columns: int,
    panel: tuple[float, float],
    **options: Any,
) -> tuple[np.ndarray, Figure | None]:
    """`count` panels: those given, or a new grid without the cells that are left over.

    Parameters
    ----------
    count : int
        Number of panels.
    ax : Axes or array of Axes, optional
        Panels to draw into.
    figsize : tuple, optional
        Inches; by default `panel` times the grid.
    n_columns : int
        Columns of a new grid.
    panel : tuple
        Width and height of one panel, inches.
    **options
        Of `matplotlib.pyplot.subplots`.

    Returns
    -------
    axes : array of Axes, shape (count,)
    figure : Figure or None
        The new one, if there is one.

    Raises
    ------
    ValueError
        If another number of Axes is given.
    """
    if ax is not None:
        axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
        if len(axes) != count:
            raise ValueError(f"this plot has {count} panels, got {len(axes)} Axes")
        return axes, None
    n_rows = math.ceil(count / n_columns)
    size = figsize or (panel[0] * n_columns, panel[1] * n_rows)
    figure, grid = plt.subplots(
        n_rows, n_columns, figsize=size, layout="constrained", squeeze=False, **options
    )
    axes = grid.ravel()
    for spare in axes[count:]:
        spare.remove()
    return axes[:count], figure


def label_outer(axes: np.ndarray, n_columns: int | None, xlabel: str, ylabel: str) -> None:
    """Label the panels at the left and the lowest of each column; without a grid, all."""
    for i, ax in enumerate(axes):
        if n_columns is None or i % n_columns == 0:
            ax.set_ylabel(ylabel)
        if n_columns is None or i + n_columns >= len(axes):
            ax.set_xlabel(xlabel)
