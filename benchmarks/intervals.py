"""Held-out intervals on published swarms, with and without the law's discrepancy.

`python -m benchmarks.intervals [--shared ../shared] [--studies NAME ...] [--jobs 2]` refits every
fold of each study once, with two chains of 500 + 500 draws, and scores its predictions twice. Every
line is appended to `benchmarks/intervals.csv`; folds that are there already are not run again.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

import bayesmix as bm
from bayesmix.model import MODEL_VERSION
from bayesmix.scores import headline, score_runs
from bayesmix.splits import ByMixture, ByScale, Fold, LargestScale

OUT = Path(__file__).with_suffix(".csv")
SCORES = [
    "mre", "mre_pos", "crps", "coverage", "width", "coverage_mean", "width_mean",
    "coverage_difference", "spearman", "regret",
]  # fmt: skip


def _slimpajama(data: Path, most: float) -> bm.Runs:
    return bm.read_runs(data / "slimpajama7.csv").where(f"n_params < {most}")


def regmix(data: Path) -> bm.Runs:
    """The first 128 runs of 1M and 64 of 60M parameters."""
    frames = []
    for size, n in (("1m", 128), ("60m", 64)):
        frame = bm.read_runs(data / f"regmix_{size}.csv").select(np.arange(n)).frame
        frames.append(frame.assign(run_id=f"{size}_" + frame["run_id"]))
    return bm.runs_from_frame(pd.concat(frames), source="regmix", weight_resolution=0.0005)


def slim_mixture(data: Path) -> Iterator[Fold]:
    """slimpajama7, 122M and 310M: unseen mixtures at the fitted sizes."""
    yield from ByMixture(5).folds(_slimpajama(data, 4e8))


def slim_each_scale(data: Path) -> Iterator[Fold]:
    """slimpajama7, 122M to 680M: each size left out."""
    yield from ByScale().folds(_slimpajama(data, 8e8))


def slim_one_size(data: Path) -> Iterator[Fold]:
    """slimpajama7: fitted at 122M alone, scored at 310M and at 680M."""
    runs = bm.read_runs(data / "slimpajama7.csv")
    for size in (310e6, 680e6):
        held_out = runs.where(f"{0.9 * size} < n_params < {1.1 * size}")
        yield Fold(f"{size / 1e6:.0f}M", runs.where("n_params < 2e8"), held_out)


def mixinglaws_mixture(data: Path) -> Iterator[Fold]:
    """mixinglaws_pile3: unseen mixtures at 160M and at what it has nearby."""
    runs = bm.read_runs(data / "mixinglaws_pile3.csv")
    yield from ByMixture(5).folds(runs.where("5e7 < n_params < 1.2e8"))


def regmix_mixture(data: Path) -> Iterator[Fold]:
    """RegMix, 128 runs of 1M and 64 of 60M: unseen mixtures."""
    yield from ByMixture(3).folds(regmix(data))


def regmix_scale(data: Path) -> Iterator[Fold]:
    """RegMix: 1M to 60M."""
    yield from LargestScale().folds(regmix(data))


def tiny_each_scale(data: Path) -> Iterator[Fold]:
    """tinyswarm: each of its sizes left out."""
    yield from ByScale().folds(bm.load_dataset("tinyswarm"))


def tiny_third(data: Path) -> Iterator[Fold]:
    """tinyswarm without its largest size: the third from the two smaller ones."""
    yield from LargestScale().folds(bm.load_dataset("tinyswarm").where("n_params < 2e5"))


def pile4_mixture(data: Path) -> Iterator[Fold]:
    """pile4, 90M to 440M: unseen mixtures."""
    yield from ByMixture(5).folds(bm.read_runs(data / "pile4.csv"))


def pile4_scale(data: Path) -> Iterator[Fold]:
    """pile4: 90M and 200M to 440M."""
    yield from LargestScale().folds(bm.read_runs(data / "pile4.csv"))


STUDIES: dict[str, Callable[[Path], Iterator[Fold]]] = {
    study.__name__: study
    for study in (
        slim_mixture, slim_one_size, mixinglaws_mixture, regmix_scale, slim_each_scale,
        regmix_mixture, pile4_mixture, pile4_scale, tiny_each_scale, tiny_third,
    )
}  # fmt: skip


def scored(study: str, fold: Fold, checkpoints: str) -> pd.DataFrame:
    """Two lines: with and without the discrepancy."""
    warnings.simplefilter("ignore", bm.RunsWarning)
    fit = bm.fit(
        fold.fitted, checkpoints=checkpoints, draws=500, tune=500, chains=2, cores=1,
        progressbar=False,
    )  # fmt: skip
    held_out = fold.held_out.checkpoints("last")
    table = fit.diagnose().table
    lines = []
    for discrepancy in (True, False):
        drawn = fit.predict(held_out.frame, discrepancy=discrepancy).draws
        mean = drawn["expected"].mean("draw", skipna=False)
        made = headline(*score_runs(held_out, fit.observed_components, mean, drawn["loss"]))
        lines.append(
            {
                "study": study,
                "checkpoints": checkpoints,
                "fold": fold.name,
                "runs": held_out.n_runs,
                "model_version": MODEL_VERSION,
                "discrepancy": discrepancy,
                **{name: made[name] for name in SCORES},
                "r_hat": table["r_hat"].max(),
            }
        )
    return pd.DataFrame(lines)


def main() -> None:
    """Run what is missing, and print the mean over folds."""
    parser = argparse.ArgumentParser()
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    parser.add_argument("--studies", nargs="+", default=list(STUDIES))
    parser.add_argument("--checkpoints", default="late")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", bm.RunsWarning)
    keys = ["study", "checkpoints", "fold"]
    there = []
    if OUT.exists():
        there = pd.read_csv(OUT).query("model_version == @MODEL_VERSION")[keys].values.tolist()
    todo = [
        joblib.delayed(scored)(name, fold, arguments.checkpoints)
        for name in arguments.studies
        for fold in STUDIES[name](arguments.shared / "data")
        if [name, arguments.checkpoints, fold.name] not in there
    ]
    for lines in joblib.Parallel(arguments.jobs, return_as="generator_unordered")(todo):
        print(lines.round(4).to_string(index=False), flush=True)
        if OUT.exists():
            lines = pd.concat([pd.read_csv(OUT), lines])
        lines.round(5).to_csv(OUT, index=False)
    table = pd.read_csv(OUT)
    by = ["study", "checkpoints", "discrepancy"]
    print(table.groupby(by, sort=False)[SCORES].mean().round(3).to_string())


if __name__ == "__main__":
    main()
