"""How long default fits take: `python -m benchmarks.fits [--shared ../shared] [--swarms ...]`.

The whole of `bm.fit` with default settings, four chains of 1000 + 1000 draws, compilation included
(caches as they are), of the two splits of `pile17_1b`, of `slimpajama7` with its last checkpoints
of three sizes and of tinyswarm; each in a process of its own, on a machine that does nothing else.
Seconds and their ratio to the target, which is the authors' point fit for `pile17_1b`, 143 s; what
`diagnose` says; the load before the fit. Written to `benchmarks/fits.csv`.
"""

import argparse
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pandas as pd

import bayesmix as bm
from bayesmix._files import atomic_path
from benchmarks.profile import swarm
from benchmarks.speed import processor

OUT = Path(__file__).with_suffix(".csv")
# swarm, split and target in seconds
FITS = {
    "pile17_1b_20": ("pile17_1b", 20, 143.0),
    "pile17_1b_42": ("pile17_1b", 42, 143.0),
    "slimpajama7": ("slimpajama7", 0, 180.0),
    "tinyswarm": ("tinyswarm", 0, 60.0),
}


def diagnosed(made: bm.Fit) -> dict[str, float | bool]:
    """What there is to say of the chains of a fit."""
    found = made.diagnose()
    return {
        "steps_a_draw": float(made.posterior["sample_stats"]["n_steps"].mean()),
        "worst_r_hat": found.table["r_hat"].max(),
        "least_ess": found.table[["ess_bulk", "ess_tail"]].min(axis=None),
        "passed": found.passed,
    }


def measured(name: str, shared: Path, seed: int) -> pd.DataFrame:
    """One line of the table."""
    published, split, target = FITS[name]
    runs = swarm(published, shared, split)
    load = os.getloadavg()[0]
    start = time.perf_counter()
    made = bm.fit(runs, checkpoints="all", seed=seed, progressbar=False)
    seconds = time.perf_counter() - start
    return pd.DataFrame(
        {
            "swarm": name,
            "rows": len(runs),
            "domains": len(runs.domains),
            "seed": seed,
            "seconds": seconds,
            "target_seconds": target,
            "ratio": seconds / target,
            **diagnosed(made),
            "load_before": load,
            "processor": processor(),
        },
        index=[0],
    )


def main() -> None:
    """Measure each swarm in a new process, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    parser.add_argument("--swarms", nargs="+", choices=list(FITS), default=list(FITS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", bm.RunsWarning)
    if len(arguments.swarms) > 1:  # a process each: what one compiled or cached helps no other
        for name in arguments.swarms:
            one = ["--swarms", name, "--seed", str(arguments.seed), "--out", str(arguments.out)]
            command = [sys.executable, "-m", "benchmarks.fits", "--shared", str(arguments.shared)]
            subprocess.run([*command, *one], check=True)
        return
    table = measured(arguments.swarms[0], arguments.shared, arguments.seed)
    print(table.round(3).T.to_string(header=False), flush=True)
    if arguments.out.exists():
        table = pd.concat([pd.read_csv(arguments.out), table], ignore_index=True)
        table = table.drop_duplicates(["swarm", "seed"], keep="last")
    with atomic_path(arguments.out) as path:
        table.round(4).to_csv(path, index=False)


if __name__ == "__main__":
    main()
