"""How a whole fit grows: `python -m benchmarks.fit_growth [--grows runs domains chains]`.

Swarms drawn by `simulate` at two sizes: 50 to 10,000 runs of 5 domains, 3 to 200 domains in 100
runs (all pairs of tau, and with domains in ten groups), and 1 to 8 chains of 100 runs of 5 domains,
two at once. Each is fitted in a process of its own, by chains of 150 + 150 draws (one but where
chains grow): seconds to build and compile the model (caches as they are) and to sample, gradients a
draw, milliseconds a gradient, megabytes at the peak, and the least ESS (bulk) of E, b and tau a
second. The exponent is that of a power law through the larger half of the milliseconds; for chains,
of the seconds of sampling. Each line is written to `benchmarks/fit_growth.csv` when it is there.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import arviz as az
import pandas as pd

import bayesmix as bm
from bayesmix._files import atomic_path
from bayesmix.compiling import compiled
from bayesmix.model import build_model
from bayesmix.simulate import simulate
from benchmarks.growth import exponent
from benchmarks.profile import gradient_milliseconds
from benchmarks.speed import processor

OUT = Path(__file__).with_suffix(".csv")
DRAWS = 150
SIZES = (1.2e8, 3.1e8)
CASES = {
    "runs": [(n, 5, 0, 1) for n in (50, 200, 1000, 4000, 10_000)],
    "domains": [(100, n, 0, 1) for n in (3, 10, 30, 100, 200)],
    "domains in groups": [(100, n, 10, 1) for n in (30, 100, 200)],
    "chains": [(100, 5, 0, n) for n in (1, 2, 4, 8)],
}


def measured(n_runs: int, n_domains: int, n_groups: int, chains: int) -> dict[str, float | str]:
    """One line of the table."""
    runs = simulate(n_domains, SIZES, n_mixtures=n_runs // 2, seed=0).runs
    groups = {d: f"group{i % n_groups}" for i, d in enumerate(runs.domains)} if n_groups else None
    start = time.perf_counter()
    model = build_model(runs, groups=groups)
    compiled(model)
    compiling = time.perf_counter() - start
    start = time.perf_counter()
    made = bm.fit(
        runs, groups=groups, draws=DRAWS, tune=DRAWS, chains=chains, cores=2, progressbar=False
    )
    sampling = time.perf_counter() - start
    posterior = made.posterior["posterior"].to_dataset()
    least = min(float(x.min()) for x in az.ess(posterior[["E", "b", "tau"]]).data_vars.values())
    return {
        "runs": n_runs,
        "domains": n_domains,
        "groups": n_groups,
        "chains": chains,
        "compile_seconds": compiling,
        "sample_seconds": sampling,
        "steps_a_draw": float(made.posterior["sample_stats"]["n_steps"].mean()),
        "gradient_ms": gradient_milliseconds(model, 200),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "least_ess": least,
        "ess_per_second": least / sampling,
        "processor": processor(),
    }


def main() -> None:
    """Measure each case in a new process, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grows", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--case", nargs=4, type=int, help="one case, printed as JSON")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.case:
        print(pd.Series(measured(*arguments.case)).to_json())
        return
    table = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame()
    for grows in arguments.grows:
        for case in CASES[grows]:
            command = [sys.executable, "-m", "benchmarks.fit_growth", "--case", *map(str, case)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            line = {"grows": grows, **json.loads(done.stdout)}
            table = pd.concat([table, pd.DataFrame([line])], ignore_index=True)
            table = table.drop_duplicates(
                ["grows", "runs", "domains", "groups", "chains"], keep="last"
            )
            # lines that were measured again stand last, and the exponent is of the larger half
            table = table.sort_values(["grows", "runs", "domains", "groups", "chains"])
            some = table[table["grows"] == grows]
            what, of = grows.split()[0], "sample_seconds" if grows == "chains" else "gradient_ms"
            if len(some) > 2:
                slope = exponent(some[what].to_numpy(float), some[of].to_numpy(float))
                table.loc[some.index, "exponent"] = slope
            print(pd.DataFrame([line]).round(3).to_string(index=False), flush=True)
            with atomic_path(arguments.out) as path:
                table.round(4).to_csv(path, index=False)


if __name__ == "__main__":
    main()
