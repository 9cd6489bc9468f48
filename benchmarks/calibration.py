"""Simulation-based calibration: `python -m benchmarks.calibration [--n 200] [--jobs 2]`.

Swarms are drawn from the model's own prior (Talts et al., arXiv 1804.06788), bends of the misfit
included, and fitted. Where the sampler and the model agree, the rank of each truth among thinned
posterior draws is uniform. Ranks of all global parameters, of the misfit's scales as predictions
take them, and of predictions by the law and with its misfit, go to
`benchmarks/calibration_ranks.csv`, a line a swarm; `benchmarks/calibration.csv` has a line a
quantity: how far the ECDF of its ranks is from uniform, and the simultaneous band of ArviZ that
holds 95% of uniform samples.
"""

import argparse
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from arviz_stats.ecdf_utils import ecdf_pit

import bayesmix as bm
from bayesmix.discrepancy import SCALES, discrepancy_draws
from bayesmix.draws import law_draws
from bayesmix.model import MODEL_VERSION
from bayesmix.runs import Runs
from bayesmix.simulate import Simulated, draw_design, observe, simulate_from_prior

RANKS = Path(__file__).with_name("calibration_ranks.csv")
OUT = Path(__file__).with_name("calibration.csv")
PROB = 0.95
N_RANKS = 50
SIZES = (5e7, 2e8, 8e8)


def design() -> Runs:
    """26 runs of 3 domains at 3 sizes, two checkpoints each; some weights are 0."""
    return draw_design(3, SIZES, n_mixtures=[12, 8, 6], checkpoints=2, zeros=0.15, seed=1)


def unseen() -> Runs:
    """Two unseen mixtures at the middle size, and two at 4 times the largest."""
    return draw_design(3, [SIZES[1], 4 * SIZES[-1]], n_mixtures=2, seed=2)


def ranks(swarm: Simulated, seed: int) -> dict[str, float]:
    """Rank in [0, 1] of each truth among the draws, and what the sampler says."""
    fit = bm.fit(swarm.runs, draws=500, tune=500, chains=1, cores=1, seed=seed, progressbar=False)
    posterior = fit.posterior["posterior"].to_dataset().isel(chain=0)
    rng = np.random.default_rng(seed)

    def rank(draws: np.ndarray, truth: float) -> float:
        kept = draws[np.linspace(0, len(draws) - 1, N_RANKS - 1).astype(int)]
        # uniform within the gap, so that ranks are continuous
        return (np.sum(kept < truth) + rng.uniform()) / N_RANKS

    # what is sampled knows no bends: predictions take the scales that are learned after it
    learned = posterior["misfit_scale"]
    posterior = posterior.assign({name: learned.sel(scale=name, drop=True) for name in SCALES})
    found = {
        name: rank(posterior[name].values, float(swarm.parameters[name]))
        for name, values in posterior.items()
        if values.dims == ("draw",) and name in swarm.parameters
    }
    new = unseen()
    law = observe(new, swarm.parameters.drop_vars("offset"), seed=seed).losses.values
    at = new.n_params.values, new.n_tokens.values
    one = law_draws(swarm.parameters.expand_dims(chain=1, draw=1))
    stream = np.random.default_rng([seed, *b"misfit"])  # not that of the predictions
    misfit = discrepancy_draws(swarm.runs, one, *at, stream)[0]
    for kind, truth in {"law": law, "loss": law * np.exp(misfit)}.items():
        predicted = fit.predict(new.frame, discrepancy=kind == "loss", seed=seed)
        expected = predicted.draws["expected"].sel(domain="domain0").values
        for row, n_params in enumerate(at[0]):
            name = f"{kind} at {n_params:.2g}, mixture {row % 2}"
            found[name] = rank(expected[:, row], float(truth[row, 0]))
    ess = float(fit.diagnose().table["ess_bulk"].min())
    return {"model_version": MODEL_VERSION, "swarm": seed, "ess": ess, **found}


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Per quantity: mean rank, coverage of 90% intervals, and whether the ECDF is in the band."""
    rows = []
    for name in table.columns.drop(["model_version", "swarm", "ess"]):
        values = table[name].dropna().to_numpy()
        _, ecdf, low, high = ecdf_pit(values, PROB, 1000, rng=np.random.default_rng(0))
        rows.append(
            {
                "quantity": name,
                "swarms": values.size,
                "mean_rank": values.mean(),
                "coverage_90": np.mean(abs(values - 0.5) <= 0.45),
                "inside_band": bool(np.all((ecdf >= low) & (ecdf <= high))),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Fit the swarms not in the file of ranks yet, and summarise."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    found = pd.read_csv(RANKS) if RANKS.exists() else pd.DataFrame()
    if len(found) and (found["model_version"] != MODEL_VERSION).any():
        raise SystemExit(f"{RANKS} is of another model version: delete it to start anew")
    done = set(found["swarm"]) if len(found) else set()
    swarms = simulate_from_prior(design(), options.n, seed=0)
    todo = [joblib.delayed(ranks)(s, i) for i, s in enumerate(swarms) if i not in done]
    parallel = joblib.Parallel(n_jobs=options.jobs, return_as="generator_unordered")
    for line in parallel(todo):
        pd.DataFrame([line]).round(4).to_csv(
            RANKS, mode="a", header=not RANKS.exists(), index=False
        )
        print(f"swarm {line['swarm']}: least ESS {line['ess']:.0f}", flush=True)
    table = summarise(pd.read_csv(RANKS))
    table.round(3).to_csv(OUT, index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
