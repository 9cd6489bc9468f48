"""Held-out MRE of the point fits: `pile17_1b` at unseen mixtures, `slimpajama7` at unseen sizes.

`python -m benchmarks.pointfits [--shared ../shared] [--laws additive ...]` prints a line a law and
split; nothing is chosen on the rows scored.
"""

import argparse
import os
import warnings
from pathlib import Path

import numpy as np

import bayesmix as bm
from bayesmix.pointfit import POINT_LAWS, PointFit, point_fit
from benchmarks.heldout import Random70


def mre(fit: PointFit, held_out: bm.Runs) -> tuple[float, float]:
    """Mean relative error (%) over cells of positive weight, and over all that are predicted."""
    predicted = fit.predict(held_out.frame).sel(domain=list(held_out.domains)).values
    error = 100 * abs(predicted / held_out.losses.values - 1)
    known = np.isfinite(error)
    if not known.any():
        return np.nan, np.nan
    return float(error[known & (held_out.weights.values > 0)].mean()), float(error[known].mean())


def main() -> None:
    """Fit, score and print."""
    parser = argparse.ArgumentParser()
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    parser.add_argument("--laws", nargs="+", default=list(POINT_LAWS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", bm.RunsWarning)
    pile = bm.read_runs(arguments.shared / "data" / "pile17_1b.csv")
    slim = bm.read_runs(arguments.shared / "data" / "slimpajama7.csv")
    small, large = slim.where("n_params < 4e8"), slim.where("n_params > 4e8").checkpoints("last")
    folds = {seed: Random70(seed).folds(pile)[0] for seed in (20, 42)}
    splits = {f"pile17_1b S={seed}": (f.fitted, f.held_out) for seed, f in folds.items()}
    for which in ("last", "late"):
        splits[f"slimpajama7 {which}"] = small.checkpoints(which), large
    for law in arguments.laws:
        for name, (fitted, held_out) in splits.items():
            fit = point_fit(fitted, law)
            positive, every = mre(fit, held_out)
            print(f"{name}: MRE {positive:.2f} / {every:.2f} %; {fit!r}", flush=True)


if __name__ == "__main__":
    main()
