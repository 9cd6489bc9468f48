"""Are held-out losses where their intervals say? Coverage, and PIT values."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from bayesmix.evaluate import Evaluation
from bayesmix.plots._axes import ACCENT, FigSize, panels
from bayesmix.scores import single

_KINDS = {
    "domains": ("o", "-", "losses of domains"),
    "mean": ("s", "--", "mean loss"),
    "difference": ("^", ":", "differences of mean losses"),
}


def plot_calibration(
    evaluation: Evaluation,
    *,
    law: str | None = None,
    bins: int = 10,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    figsize: FigSize = None,
) -> np.ndarray:
    """Nominal against observed coverage, and the histogram of PIT values of held-out losses.

    Calibrated intervals lie on the diagonal, and their PIT values are uniform: a hump says that
    intervals are too wide, a valley that they are too narrow, a slope that losses are predicted
    too high or too low. Cells of one run are not independent, so there is no band.

    Parameters
    ----------
    evaluation : Evaluation
        Of a law with draws.
    law : str, optional
        Its label in the evaluation; by default the first that has intervals.
    bins : int
        Of the histogram.
    ax : array of two Axes, optional
    figsize : tuple, optional
        Inches.

    Returns
    -------
    array of two Axes
        Coverage, and PIT.

    Raises
    ------
    ValueError
        If the law is not in the evaluation or has no intervals, or there are not two Axes.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> from bayesmix.evaluate import evaluate
    >>> from bayesmix.splits import LargestScale
    >>> made = evaluate(load_dataset("simulated"), ["mean"], LargestScale(), progressbar=False)
    >>> plot_calibration(made)
    Traceback (most recent call last):
    ValueError: no law in the evaluation has intervals
    """
    cells = single(evaluation.cells).dropna(subset="pit")
    with_intervals = list(cells["law"].unique())
    if law is None and not with_intervals:
        raise ValueError("no law in the evaluation has intervals")
    law = law or with_intervals[0]
    if law not in with_intervals:
        raise ValueError(f"{law!r} has no intervals; laws that have: {', '.join(with_intervals)}")
    pit = cells.loc[cells["law"] == law, "pit"]

    axes, _ = panels(2, ax, figsize, n_columns=2, panel=(4.2, 3.6))
    covered, histogram = axes
    covered.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, zorder=0)
    table = evaluation.coverage()
    for of, (marker, style, label) in _KINDS.items():
        rows = table[(table["law"] == law) & (table["of"] == of)].dropna()
        covered.plot(rows["nominal"], rows["observed"], marker=marker, linestyle=style, label=label)
    covered.set(xlim=(0.4, 1), ylim=(0, 1.02), xlabel="nominal coverage, equal-tailed intervals")
    covered.set_ylabel("observed coverage")
    covered.set_title(law, size=10)
    covered.legend(fontsize=7)

    histogram.hist(pit, bins=bins, range=(0, 1), density=True, color="C0", alpha=0.6)
    histogram.axhline(1, color=ACCENT, linewidth=1, label="calibrated")
    histogram.set(xlim=(0, 1), xlabel="PIT: share of draws at or below the loss", ylabel="density")
    histogram.set_title(f"{len(pit)} held-out losses of domains", size=10)
    histogram.legend(fontsize=7)
    return axes
