"""How the cost of a fit grows: `python -m benchmarks.growth_fits [--what runs domains chains]`.

Default fits but for 200 + 200 draws, of swarms drawn from the model, each in a process of its own
on one core: with 50 to 10,000 runs of 7 domains (one chain), with 3 to 50 domains in 100 runs, with
100 domains in ten groups, and with 1 to 8 chains. Seconds until the first draw (caches as they
are) and of sampling, gradients a draw and milliseconds a gradient, the least ESS of levels per
second of sampling, and the greatest memory of the process, GB. `exponent` is that of a power law of
milliseconds a gradient (of chains: of the sampling's seconds) through all sizes without groups. To
`benchmarks/growth_fits.csv`.
"""

import argparse
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import arviz as az
import numpy as np
import pandas as pd

import bayesmix as bm
from bayesmix._files import atomic_path
from bayesmix.simulate import draw_design, draw_parameters, observe
from benchmarks.speed import processor

OUT = Path(__file__).with_suffix(".csv")
SIZES = {
    "runs": (50, 200, 1000, 4000, 10_000),
    "domains": (3, 7, 17, 50),
    "grouped domains": (100,),
    "chains": (1, 2, 4, 8),
}
DRAWS, GROUPS = 200, 10


def measured(what: str, size: int) -> dict[str, float | str]:
    """One line of the table."""
    n_runs = size if what == "runs" else 100
    n_domains = size if "domains" in what else 7
    design = draw_design(n_domains, [1.2e8, 3.1e8], n_mixtures=n_runs // 2, seed=1)
    runs = observe(design, draw_parameters(design.domains, seed=2), seed=3).runs
    groups = {d: str(i % GROUPS) for i, d in enumerate(runs.domains)} if "grouped" in what else None
    options = {"chains": size if what == "chains" else 1, "cores": 1, "progressbar": False}
    seconds = []
    for draws in (1, DRAWS):  # the first compiles: the second finds it done
        start = time.perf_counter()
        made = bm.fit(runs, groups=groups, draws=draws, tune=draws, seed=0, **options)
        seconds.append(time.perf_counter() - start)
    steps = float(made.posterior["sample_stats"]["n_steps"].mean())
    level = made.posterior["posterior"].to_dataset()[["level"]]
    return {
        "grows": what,
        "size": size,
        "runs": n_runs,
        "domains": n_domains,
        "chains": options["chains"],
        "first_draw_seconds": seconds[0],
        "sampling_seconds": seconds[1],
        "steps_a_draw": steps,
        # warm-up's steps are not kept: taken as many as the draws'
        "gradient_ms": 1e3 * seconds[1] / (2 * steps * DRAWS * options["chains"]),
        "ess_per_second": float(az.ess(level)["level"].min()) / seconds[1],
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "processor": processor(),
    }


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the exponent of each kind of growth."""
    table = table.drop(columns="exponent", errors="ignore")
    for what, some in table.groupby("grows"):
        if len(some) > 1:
            cost = some["sampling_seconds" if what == "chains" else "gradient_ms"]
            slope = np.polyfit(np.log(some["size"].astype(float)), np.log(cost), 1)[0]
            table.loc[some.index, "exponent"] = float(slope)
    return table


def main() -> None:
    """Measure, print, write after each line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--size", type=int, help="one size of one kind, in this process")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", bm.RunsWarning)
    if arguments.size is None:
        for what in arguments.what:
            for size in SIZES[what]:
                one = ["--what", what, "--size", str(size), "--out", str(arguments.out)]
                subprocess.run([sys.executable, "-m", "benchmarks.growth_fits", *one], check=True)
        return
    table = pd.DataFrame([measured(arguments.what[0], arguments.size)])
    if arguments.out.exists():
        old = pd.read_csv(arguments.out)
        table = pd.concat([old, table], ignore_index=True)
        table = table.drop_duplicates(["grows", "size"], keep="last", ignore_index=True)
    table = exponents(table)
    print(table.tail(1).round(3).to_string(index=False), flush=True)
    with atomic_path(arguments.out) as path:
        table.round(4).to_csv(path, index=False)


if __name__ == "__main__":
    main()
