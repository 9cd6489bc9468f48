"""How wrong is the law over scales? What its priors are checked against.

`python -m benchmarks.misfit [--shared ../shared]` takes swarms of several labs and looks at the
residuals of the law's point fit, in log loss, component by component:
medians over the runs of each (N, D), less what noise makes of a median, less their regression on
(1, log N, log D). What `bayesmix/discrepancy.py` says of their covariance gives *bend_scale*,
*offset_scale* and *transient_scale*, variances by non-negative least squares.

Checkpoints of a run count as if they were independent, and cells of few runs (`mixinglaws_pile3`
has 3 to 6) keep some noise: these are upper bounds.

A line a swarm goes to `benchmarks/misfit.csv`; blank where a swarm has too few scales to say.
"""

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import nnls

import bayesmix as bm
from bayesmix.discrepancy import SCALES, Scales, scales
from bayesmix.model import components, observed_log_loss
from benchmarks.intervals import regmix

OUT = Path(__file__).with_suffix(".csv")


def swarms(data: Path) -> dict[str, bm.Runs]:
    """Swarms of more than one size, by name."""
    return {
        "tinyswarm": bm.load_dataset("tinyswarm"),
        "slimpajama7": bm.read_runs(data / "slimpajama7.csv").where("n_params < 8e8"),
        "mixinglaws_pile3": bm.read_runs(data / "mixinglaws_pile3.csv"),
        "pile4": bm.read_runs(data / "pile4.csv"),
        "regmix": regmix(data),
    }


def residuals(fitted: bm.PointFit, runs: bm.Runs) -> np.ndarray:
    """Log loss less the law's, shape (R, C), where the domain has weight."""
    named = [*components(runs)]
    error = observed_log_loss(runs) - np.log(fitted.predict(runs.frame).sel(domain=named).values)
    n_domains = len(runs.domains)
    error[:, :n_domains][runs.weights.values == 0] = np.nan
    return error


def medians(error: np.ndarray, cells: Scales) -> tuple[np.ndarray, np.ndarray]:
    """Median over the rows of each cell, and its sampling variance, both of shape (M, C)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a cell without a component
        in_cell = [error[cells.row_cell == m] for m in range(len(cells.log_scale))]
        centre = np.array([np.nanmedian(x, axis=0) for x in in_cell])
        spread = [np.nanmedian(abs(x - np.nanmedian(x, axis=0)), axis=0) for x in in_cell]
    count = np.array([np.isfinite(x).sum(axis=0) for x in in_cell])
    # of normal noise: the sd is 1.48 median deviations, a median varies pi / 2 times as a mean
    return centre, np.pi / 2 * (1.4826 * np.array(spread)) ** 2 / np.maximum(count, 1)


def offsets(runs: bm.Runs) -> dict[str, float]:
    """Each of `SCALES`, blank where there is nothing to tell it by."""
    cells = scales(runs)
    basis, parts = cells.basis(), cells.covariances()
    found = dict.fromkeys(SCALES, np.nan)
    shown = np.flatnonzero(parts.trace(axis1=1, axis2=2) > 1e-6)
    if not shown.size:
        return found
    centre, variance = medians(residuals(bm.point_fit(runs, "point:transfer"), runs), cells)
    known = np.isfinite(centre).all(axis=0)
    misfit = basis.T @ cells.left @ centre[:, known]
    noise = basis.T @ cells.left * variance[:, known].mean(axis=1) @ cells.left.T @ basis
    seen = misfit @ misfit.T / known.sum() - noise
    columns = parts[shown].reshape(shown.size, -1).T
    variances = nnls(columns, seen.ravel())[0]
    return {**found, **{SCALES[i]: float(v) for i, v in zip(shown, variances**0.5, strict=True)}}


def main() -> None:
    """Estimate every swarm's, and write and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    warnings.simplefilter("ignore", bm.RunsWarning)
    lines = []
    for name, runs in swarms(parser.parse_args().shared / "data").items():
        late = runs.checkpoints("late")
        lines.append({"swarm": name, "scales": len(scales(late).log_scale), **offsets(late)})
        print(lines[-1], flush=True)
    pd.DataFrame(lines).round(5).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
