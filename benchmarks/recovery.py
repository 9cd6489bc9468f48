"""Are known parameters recovered? `python -m benchmarks.recovery [--n 40] [--out FILE]`.

Swarms whose truth is drawn from the model's own prior, so that 90% intervals should cover 90% of
it, are fitted; for each group of parameters, and for predictions, the share of intervals that
cover is reported. Intervals of one swarm are not independent: standard errors are over swarms.
"""

import argparse
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

import bayesmix as bm
from bayesmix.model import MODEL_VERSION
from bayesmix.runs import Runs
from bayesmix.simulate import Simulated, draw_design, observe, simulate_from_prior

DOMAINS = 4
SIZES = (5e7, 1.5e8, 4e8)
N_MIXTURES = (18, 14, 8)
CONCENTRATION = 1.5
PARAMETERS = ("b", "a", "E", "tau", "level", "g", "q", "fade", "log_H", "sigma", "rho")
PROB = 0.9


def design() -> Runs:
    """40 runs of 4 domains at 3 sizes, two checkpoints each."""
    return draw_design(
        DOMAINS, SIZES, n_mixtures=N_MIXTURES, concentration=CONCENTRATION, checkpoints=2, seed=1
    )


def unseen() -> dict[str, Runs]:
    """Mixtures that were not fitted: at the sizes and horizons of the swarm, and far beyond."""
    return {
        "unseen mixtures": draw_design(
            DOMAINS, SIZES, n_mixtures=10, concentration=CONCENTRATION, seed=2
        ),
        "10 x the largest N and D": draw_design(
            DOMAINS, [10 * SIZES[-1]], n_mixtures=10, concentration=CONCENTRATION, seed=3
        ),
    }


def recover(swarm: Simulated, seed: int) -> pd.DataFrame:
    """Fit one swarm; one row for each interval: quantity, covered, width, sd, truth, seconds."""
    fit = bm.fit(swarm.runs, draws=500, tune=500, chains=2, cores=1, seed=seed, progressbar=False)
    posterior = fit.posterior["posterior"].to_dataset().stack(sample=("chain", "draw"))
    tables = []
    for name in PARAMETERS:
        truth = swarm.parameters[name]
        draws = posterior[name].transpose("sample", *truth.dims).values
        tables.append(_intervals(name, draws, truth.values))
    for name, runs in unseen().items():
        # the truth is the law itself: no discrepancy from it
        prediction = fit.predict(runs.frame, discrepancy=False).draws.sel(
            domain=list(fit.components)
        )
        # offsets are of the fitted cells: here the law is the truth
        new = observe(runs, swarm.parameters.drop_vars("offset"), seed=seed)
        drawn = {
            "losses": (prediction["expected"], new.losses),
            "runs": (prediction["loss"], new.runs.losses),
        }
        for kind, (draws, truth) in drawn.items():
            tables.append(_intervals(f"{kind} at {name}", draws.values, truth.values))
    table = fit.diagnose().table
    return pd.concat(tables).assign(swarm=seed, r_hat=table["r_hat"].max())


def _intervals(quantity: str, draws: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    low, high = np.quantile(draws, [(1 - PROB) / 2, (1 + PROB) / 2], axis=0)
    table = pd.DataFrame(
        {
            "quantity": quantity,
            "cell": np.arange(truth.size),
            "covered": ((low <= truth) & (truth <= high)).ravel(),
            "sd": draws.std(axis=0).ravel(),
            "truth": truth.ravel(),
        }
    )
    # tau_ii = 1 is no parameter
    return table[table["sd"] > 0]


def summarise(intervals: pd.DataFrame) -> pd.DataFrame:
    """Coverage of each quantity, its standard error over swarms, and what the data taught.

    `sd_ratio` is the posterior's standard deviation over the prior's (that of the truth over
    swarms), the median over cells: 1 where a swarm says nothing.
    """
    rows = []
    for quantity, table in intervals.groupby("quantity", sort=False):
        by_swarm = table.groupby("swarm")["covered"].mean()
        by_cell = table.groupby("cell").agg({"sd": "median", "truth": "std"})
        rows.append(
            {
                "quantity": quantity,
                "swarms": len(by_swarm),
                "intervals": len(table),
                "coverage": by_swarm.mean(),
                "standard_error": by_swarm.std() / np.sqrt(len(by_swarm)),
                "sd_ratio": (by_cell["sd"] / by_cell["truth"]).median(),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/recovery.csv"))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    swarms = simulate_from_prior(design(), options.n, seed=0)
    fits = joblib.Parallel(n_jobs=options.jobs, verbose=10)(
        joblib.delayed(recover)(swarm, seed) for seed, swarm in enumerate(swarms)
    )
    intervals = pd.concat(fits)
    table = summarise(intervals).assign(model_version=MODEL_VERSION)
    table.round(4).to_csv(options.out, index=False)
    print(table.round(3).to_string(index=False))
    worst = intervals.groupby("swarm")["r_hat"].first()
    print(f"worst R-hat of each fit: median {worst.median():.3f}, maximum {worst.max():.3f}")


if __name__ == "__main__":
    main()
