"""How far is the law's slope off where a swarm has but one N, or one D? For `slope_scale`'s prior.

`python -m benchmarks.slopes [--shared ../shared]` fits parts of one size (or of one token count) of
several labs' swarms, with two chains of 400 + 300 draws, and looks at the rest of the swarm: the
log loss less the law's, without discrepancy, mean over runs, per e-fold of N or D, of each domain.
*extra* is the root of its mean square less the posterior's variance: what `slope_scale` stands for.

A line for each two sizes goes to `benchmarks/slopes.csv`; those that are there are not run again.
"""

import argparse
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import bayesmix as bm
from bayesmix.model import MODEL_VERSION
from benchmarks.intervals import regmix

OUT = Path(__file__).with_suffix(".csv")
LEAST_ROWS = 20


def swarms(data: Path) -> dict[str, bm.Runs]:
    """Swarms of two sizes or more, by name."""
    return {
        "tinyswarm": bm.load_dataset("tinyswarm"),
        "slimpajama7": bm.read_runs(data / "slimpajama7.csv").where("n_params < 8e8"),
        "regmix": regmix(data),
    }


def parts(runs: bm.Runs) -> Iterator[tuple[str, float, bm.Runs, bm.Runs]]:
    """Axis, its value, the rows of that value, and the last checkpoints at its other values."""
    last = runs.checkpoints("last")
    for axis, swarm in (("n_params", runs), ("n_tokens", last)):
        values = swarm.frame[axis].round(-3)
        counts = values.value_counts()
        for value in sorted(counts.index[counts >= LEAST_ROWS]):
            fitted = swarm.select(np.flatnonzero(values == value))
            other = last.frame[axis].round(-3) != value
            if axis == "n_tokens":
                other &= last.frame["n_params"].isin(fitted.frame["n_params"])
            if other.any() and len(fitted.frame) < len(swarm.frame):
                yield axis, value, fitted, last.select(np.flatnonzero(other))


def errors(axis: str, value: float, fitted: bm.Runs, rest: bm.Runs) -> pd.DataFrame:
    """A line for every other value of the axis."""
    fit = bm.fit(fitted, draws=300, tune=400, chains=2, cores=1, progressbar=False)
    law = fit.predict(rest.frame, discrepancy=False).draws["expected"]
    domains = list(fit.observed_components)
    law = np.log(law.sel(domain=domains).transpose("draw", "row", "domain").values)
    observed = np.log(rest.losses.sel(domain=domains).values)
    lines = []
    at = rest.frame[axis].round(-3).to_numpy()
    for other in np.unique(at):
        rows, far = at == other, np.log(other / value)
        wrong = np.nanmean(observed[rows] - law[:, rows].mean(axis=0), axis=0) / far
        doubt = law[:, rows].mean(axis=1).std(axis=0) / abs(far)
        lines.append(
            {
                "axis": axis,
                "fitted": value,
                "scored": other,
                "runs": rows.sum(),
                "mean": wrong.mean(),
                "rms": np.sqrt(np.mean(wrong**2)),
                "posterior_sd": np.sqrt(np.mean(doubt**2)),
                "extra": np.sqrt(max(np.mean(wrong**2 - doubt**2), 0.0)),
            }
        )
    table = fit.diagnose().table
    return pd.DataFrame(lines).assign(r_hat=table["r_hat"].max(), model_version=MODEL_VERSION)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    warnings.simplefilter("ignore", bm.RunsWarning)
    keys = ["swarm", "axis", "fitted"]
    there = []
    if OUT.exists():
        there = pd.read_csv(OUT).query("model_version == @MODEL_VERSION")[keys].values.tolist()
    for name, runs in swarms(parser.parse_args().shared / "data").items():
        for axis, value, fitted, rest in parts(runs):
            if [name, axis, value] in there:
                continue
            lines = errors(axis, value, fitted, rest).round(4)
            lines.insert(0, "swarm", name)
            print(lines.to_string(index=False), flush=True)
            lines.to_csv(OUT, mode="a", header=not OUT.exists(), index=False)


if __name__ == "__main__":
    main()
