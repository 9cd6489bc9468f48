"""Coverage where the law is not the truth: `python -m benchmarks.misspecified [--n 20] [--jobs 2]`.

Swarms are drawn from the additive law of Shukor et al. (arXiv 2507.09404) and from the model of
skills, fitted at three sizes, and scored at 4 times the largest, with and without the discrepancy.
Every line is appended to `benchmarks/misspecified.csv`.
"""

import argparse
from pathlib import Path

import joblib
import pandas as pd

import bayesmix as bm
from bayesmix.scores import headline, score_runs
from bayesmix.simulate import draw_design, simulate_additive
from bayesmix.skills import simulate_skills
from bayesmix.splits import LargestScale

OUT = Path(__file__).with_suffix(".csv")
SIZES = (5e7, 2e8, 8e8)
TRUTHS = {"additive": simulate_additive, "skills": simulate_skills}
SCORES = ["mre", "coverage", "width", "coverage_mean", "width_mean", "coverage_difference"]


def scored(truth: str, seed: int) -> pd.DataFrame:
    """Fit one swarm up to 800M; a line with and one without the discrepancy, at 3.2B."""
    sizes = (*SIZES, 4 * SIZES[-1])
    design = draw_design(3, sizes, n_mixtures=[16, 12, 8, 12], checkpoints=2, seed=seed)
    (fold,) = LargestScale().folds(TRUTHS[truth](design, seed=seed).runs)
    fit = bm.fit(fold.fitted, draws=500, tune=500, chains=2, cores=1, seed=seed, progressbar=False)
    held_out = fold.held_out.checkpoints("last")
    lines = []
    for discrepancy in (True, False):
        drawn = fit.predict(held_out.frame, discrepancy=discrepancy, seed=seed).draws
        mean = drawn["expected"].mean("draw")
        made = headline(*score_runs(held_out, fit.observed_components, mean, drawn["loss"]))
        facts = {"truth": truth, "swarm": seed, "discrepancy": discrepancy}
        lines.append({**facts, **{name: made[name] for name in SCORES}})
    return pd.DataFrame(lines).assign(r_hat=fit.diagnose().table["r_hat"].max())


def main() -> None:
    """Run what is missing, and print means and their standard errors over swarms."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    there = pd.read_csv(OUT)[["truth", "swarm"]].values.tolist() if OUT.exists() else []
    todo = [
        joblib.delayed(scored)(truth, seed)
        for seed in range(arguments.n)
        for truth in TRUTHS
        if [truth, seed] not in there
    ]
    for lines in joblib.Parallel(arguments.jobs, return_as="generator_unordered")(todo):
        print(lines.round(4).to_string(index=False), flush=True)
        lines.round(5).to_csv(OUT, mode="a", header=not OUT.exists(), index=False)
    groups = pd.read_csv(OUT).groupby(["truth", "discrepancy"])[SCORES]
    print(groups.mean().round(3).to_string())
    print("standard errors\n" + groups.sem().round(3).to_string())


if __name__ == "__main__":
    main()
