"""Held-out error and coverage on `pile17_1b`, split by run.

`python -m benchmarks.heldout [--shared ../shared] [--seeds 20 42 ...] [--laws transfer ...]` fits
the first 70% of `default_rng(seed).permutation(62)` of the runs with all losses and scores the
rest; nothing is chosen on the rows scored. Every line is appended to `benchmarks/heldout.csv`.
"""

import argparse
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bayesmix as bm
from bayesmix.model import MODEL_VERSION
from bayesmix.splits import Fold

OUT = Path(__file__).with_suffix(".csv")
SCORES = ["mre_pos", "coverage_pos", "width_pos", "mre", "coverage", "width"]
FACTS = ["converged", "r_hat", "ess", "seconds"]


@dataclass(frozen=True)
class Random70:
    """The design's split: 70% of the runs with all losses to fit, the rest held out."""

    seed: int
    name = "random-70"

    def folds(self, runs: bm.Runs) -> tuple[Fold, ...]:
        """One fold, named by the seed."""
        complete = np.flatnonzero(np.isfinite(runs.losses.values).all(axis=1))
        order = complete[np.random.default_rng(self.seed).permutation(complete.size)]
        n_fit = int(0.7 * complete.size)
        return (Fold(str(self.seed), runs.select(order[:n_fit]), runs.select(order[n_fit:])),)


def main() -> None:
    """Fit, score, and append a line for every law and seed."""
    parser = argparse.ArgumentParser()
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 42])
    parser.add_argument("--draws", type=int, default=1000, help="as many warm-up draws")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--laws", nargs="+", default=["transfer", "regression", "quantization"])
    parser.add_argument("--cache", type=Path, help="folder of refits, such as that of `compare`")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", bm.RunsWarning)
    runs = bm.read_runs(arguments.shared / "data" / "pile17_1b.csv")
    for law in arguments.laws:
        for seed in arguments.seeds:
            sampler = {"draws": arguments.draws, "chains": arguments.chains}
            made = bm.evaluate(
                runs, [law], Random70(seed), **sampler, tune=arguments.draws,
                cache=arguments.cache, progressbar=False,
            )  # fmt: skip
            line = made.scores[["law", "fold", *SCORES, *FACTS]].assign(**sampler)
            line = line.rename(columns={"fold": "seed", "converged": "passed"})
            line = line.assign(model_version=MODEL_VERSION).round(4)
            print(line.to_string(index=False), flush=True)
            line.to_csv(OUT, mode="a", header=not OUT.exists(), index=False)


if __name__ == "__main__":
    main()
