"""Held-out error and coverage on `pile17_1b`, split by run.

`python -m benchmarks.heldout [--shared ../shared] [--seeds 20 42 ...] [--laws transfer ...]` fits
the first 70% of `default_rng(seed).permutation(62)` of the runs with all losses and scores the
rest; nothing is chosen on the rows scored. Every line is appended to `benchmarks/heldout.csv`.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import bayesmix as bm

OUT = Path(__file__).with_suffix(".csv")
PROB = 0.9


def split(runs: bm.Runs, seed: int) -> tuple[bm.Runs, bm.Runs]:
    """The design's split: 43 runs to fit, 19 held out."""
    complete = np.flatnonzero(np.isfinite(runs.losses.values).all(axis=1))
    order = complete[np.random.default_rng(seed).permutation(complete.size)]
    n_fit = int(0.7 * complete.size)
    return runs.select(order[:n_fit]), runs.select(order[n_fit:])


def score(fit: bm.Fit, held_out: bm.Runs) -> dict[str, float]:
    """MRE (%), coverage and mean width (% of loss) of 90% equal-tailed intervals of a new run.

    Over cells with weight > 0 (``_pos``) and over all cells that the law predicts.
    """
    table = fit.predict(held_out.frame).summary(PROB)
    table = table[table["domain"].isin(held_out.domains)]
    shape = held_out.losses.shape
    mean, lower, upper = (table[c].to_numpy().reshape(shape) for c in ("mean", "lower", "upper"))
    loss = held_out.losses.values
    error = 100 * abs(mean / loss - 1)
    covered, width = (lower <= loss) & (loss <= upper), 100 * (upper - lower) / loss
    known = np.isfinite(loss) & np.isfinite(mean)
    cells = {"_pos": known & (held_out.weights.values > 0), "": known}
    return {
        f"{name}{suffix}": float(values[chosen].mean())
        for suffix, chosen in cells.items()
        for name, values in {"mre": error, "coverage": covered, "width": width}.items()
    }


def main() -> None:
    """Fit, score, and append a line for every law and seed."""
    parser = argparse.ArgumentParser()
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 42])
    parser.add_argument("--laws", nargs="+", default=["transfer", "regression", "quantization"])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", bm.RunsWarning)
    runs = bm.read_runs(arguments.shared / "data" / "pile17_1b.csv")
    for law in arguments.laws:
        for seed in arguments.seeds:
            fitted, held_out = split(runs, seed)
            start = time.perf_counter()
            fit = bm.fit(fitted, law)
            seconds = time.perf_counter() - start
            diagnosis = fit.diagnose()
            line = {
                "law": law,
                "seed": seed,
                **score(fit, held_out),
                "passed": diagnosis.passed,
                "r_hat": diagnosis.table["r_hat"].max(),
                "ess": diagnosis.table[["ess_bulk", "ess_tail"]].min().min(),
                "seconds": seconds,
            }
            print(line, flush=True)
            table = pd.DataFrame([line]).round(4)
            table.to_csv(OUT, mode="a", header=not OUT.exists(), index=False)


if __name__ == "__main__":
    main()
