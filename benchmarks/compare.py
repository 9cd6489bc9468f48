"""All laws on the same held-out runs: `python -m benchmarks.compare [--laws NAME ...]`.

Refits laws on the splits of some published swarms and of the bundled one; nothing is chosen on
the rows that are scored. Scores of every law, swarm and split go to `compare.csv`, the errors of
every run, from which paired differences come, to `compare_runs.csv`: lines of the laws that are
run replace their old ones. Refits are kept in the folder `--cache`, so that an interrupted run
goes on where it stopped. `python -m benchmarks.tables` puts the tables into the README.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import bayesmix as bm
from bayesmix._files import atomic_path
from bayesmix.splits import Fold, Split
from benchmarks.heldout import Random70

FOLDER = Path(__file__).parent
SCORES, RUNS = FOLDER / "compare.csv", FOLDER / "compare_runs.csv"
# where neither N nor D varies the joint law is the additive one; Chinchilla's says nothing about
# mixtures that it has not seen at three sizes
LAWS = [
    "point:transfer", "point:regression", "point:quantization", "laplace:transfer",
    "additive", "joint", "exponential", "log-linear", "bimix", "regmix", "linear", "mean",
]  # fmt: skip
COLUMNS = [
    "folds", "mre_pos", "mre", "mae", "crps", "coverage_pos", "width_pos", "coverage", "width",
    "coverage_mean", "width_mean", "spearman", "regret", "parameters", "converged", "seconds",
]  # fmt: skip
SEEDS = range(1, 11)  # not those that the literature's comparison has


@dataclass(frozen=True)
class TenSplits:
    """`Random70` with ten seeds."""

    name = "random-70"

    def folds(self, runs: bm.Runs) -> tuple[Fold, ...]:
        """One a seed, named by it."""
        return tuple(fold for seed in SEEDS for fold in Random70(seed).folds(runs))


@dataclass(frozen=True)
class TestRuns:
    """RegMix's own split: its test mixtures held out, a random 128 of the others to fit."""

    name = "test runs"

    def folds(self, runs: bm.Runs) -> tuple[Fold, ...]:
        """The one fold."""
        test = np.char.startswith(runs.run_ids.values.astype(str), "test_")
        drawn = np.random.default_rng(0).permutation(np.flatnonzero(~test))[:128]
        return (Fold("1", runs.select(np.sort(drawn)), runs.select(test)),)


class Comparison(NamedTuple):
    """A swarm, what is taken of it, and a split."""

    swarm: str
    split: Split
    take: Callable[[bm.Runs], bm.Runs] = lambda runs: runs


COMPARISONS = (
    Comparison("tinyswarm", bm.ByMixture(5)),
    Comparison("tinyswarm", bm.LargestScale()),
    Comparison("mixinglaws_pile3", bm.ByMixture(3)),
    Comparison("slimpajama7", bm.LargestScale(), lambda runs: runs.where("n_params < 8e8")),
    Comparison("slimpajama7", bm.ByMixture(5), lambda runs: runs.where("n_params < 8e8")),
    Comparison("pile17_1b", TenSplits()),
    Comparison("regmix_1m", TestRuns()),
)


def read(swarm: str, shared: Path) -> bm.Runs:
    """A swarm: the bundled one, or one of the shared folder."""
    if swarm == "tinyswarm":
        return bm.load_dataset(swarm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.RunsWarning)
        return bm.read_runs(shared / "data" / f"{swarm}.csv")


def compare(
    of: Comparison, law: str, shared: Path, cache: Path, **options: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One law on one split: its line of scores, and the errors of every run."""
    runs = of.take(read(of.swarm, shared))
    made = bm.evaluate(runs, [law], of.split, cache=cache, progressbar=False, **options)
    n_refits = options["bootstrap"] if made.refits["r_hat"].isna().all() else 0
    key = {"swarm": of.swarm, "split": of.split.name, "law": law, "bootstrap": n_refits}
    scores = made.summary().assign(folds=len(made.refits))[COLUMNS]
    # of one fit
    scores["seconds"] /= len(made.refits) * (1 + n_refits)
    errors = made.by_run().drop(columns="law")
    return scores.assign(**key)[[*key, *COLUMNS]], errors.assign(**key)[[*key, *errors]]


def update(path: Path, new: pd.DataFrame) -> None:
    """Put lines into a CSV file, in place of those with the same swarm, split, law, bootstrap."""
    keys = ["swarm", "split", "law"]
    if path.is_file():
        old = pd.read_csv(path, dtype={"run_id": str})
        replaced = pd.MultiIndex.from_frame(old[keys]).isin(pd.MultiIndex.from_frame(new[keys]))
        new = pd.concat([old[~replaced], new])
    with atomic_path(path) as temporary:
        new.to_csv(temporary, index=False, float_format="%.5g")


def main() -> None:
    """Fit, score, and write what every law did."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    parser.add_argument("--laws", nargs="+", default=LAWS)
    parser.add_argument("--swarms", nargs="+", default=[c.swarm for c in COMPARISONS])
    parser.add_argument("--splits", nargs="+", default=[c.split.name for c in COMPARISONS])
    parser.add_argument("--bootstrap", type=int, default=0)
    parser.add_argument("--draws", type=int, default=1000, help="and as many of warm-up")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--cache", type=Path, default=FOLDER / ".compare-cache")
    arguments = parser.parse_args()
    options = {"bootstrap": arguments.bootstrap, "draws": arguments.draws}
    options |= {"tune": arguments.draws, "chains": arguments.chains}
    for of in COMPARISONS:
        if of.swarm not in arguments.swarms or of.split.name not in arguments.splits:
            continue
        for law in arguments.laws:
            start = time.perf_counter()
            scores, errors = compare(of, law, arguments.shared, arguments.cache, **options)
            update(SCORES, scores)
            update(RUNS, errors)
            line = scores[["swarm", "split", "law", "mre_pos", "mre", "coverage", "seconds"]]
            print(
                line.to_string(index=False, header=False, float_format="{:.3g}".format),
                f"[{time.perf_counter() - start:.0f} s]",
                flush=True,
            )


if __name__ == "__main__":
    main()
