"""Where the time of a fit goes: `python -m benchmarks.profile [--shared ../shared] [--swarms ...]`.

For each swarm, two chains of 500 + 500 draws on one core, by default settings otherwise: seconds to
build and compile the model (caches as they are), to sample, to diagnose and to save; gradients a
draw and milliseconds a gradient, of which the law's kernel takes a share; the least ESS (bulk and
tail) of what `diagnose` looks at, per second and per 1,000 gradients; and what another fit in the
same process would need to compile. Written to `benchmarks/profile.csv`.
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd

import bayesmix as bm
from bayesmix.compiling import compiled
from bayesmix.model import build_model
from benchmarks.heldout import Random70
from benchmarks.speed import kernel_milliseconds, processor

OUT = Path(__file__).with_suffix(".csv")
DRAWS, CHAINS = 500, 2


def swarm(name: str, shared: Path, split: int = 20) -> bm.Runs:
    """A swarm as it is fitted elsewhere; of `pile17_1b` the fitted part of a split."""
    if name == "tinyswarm":
        return bm.load_dataset(name)
    runs = bm.read_runs(shared / "data" / f"{name}.csv")
    if name == "pile17_1b":
        return Random70(split).folds(runs)[0].fitted
    return runs.where("n_params < 8e8").checkpoints("last")


def measured(name: str, shared: Path) -> dict[str, float | str]:
    """One line of the table."""
    seconds = {}
    start = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal start
        seconds[what], start = time.perf_counter() - start, time.perf_counter()

    runs = swarm(name, shared)
    start = time.perf_counter()
    model = build_model(runs)
    lap("build")
    for what in ("compile", "compile_again"):
        compiled(model)
        lap(what)
    made = bm.fit(
        runs, checkpoints="all", draws=DRAWS, tune=DRAWS, chains=CHAINS, cores=1, progressbar=False
    )
    lap("sample")
    least = made.diagnose().table[["ess_bulk", "ess_tail"]].min(axis=None)
    lap("diagnose")
    with tempfile.TemporaryDirectory() as folder:
        made.save(f"{folder}/fit.nc")
    lap("save")
    steps = float(made.posterior["sample_stats"]["n_steps"].mean())
    # warm-up's steps are not kept: taken as many as the draws'
    gradients = 2 * steps * DRAWS * CHAINS
    return {
        "swarm": name,
        "rows": len(runs),
        "domains": len(runs.domains),
        **{f"{what}_seconds": value for what, value in seconds.items()},
        "steps_a_draw": steps,
        "gradient_ms": 1e3 * seconds["sample"] / gradients,
        "kernel_ms": kernel_milliseconds(runs, repeats=500),
        "least_ess": least,
        "ess_per_second": least / seconds["sample"],
        "ess_per_1000_gradients": 1e3 * least / gradients,
        "processor": processor(),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    names = ["tinyswarm", "slimpajama7", "pile17_1b"]
    parser.add_argument("--swarms", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", bm.RunsWarning)
    table = pd.DataFrame([measured(name, arguments.shared) for name in arguments.swarms])
    table.round(4).to_csv(OUT, index=False)
    print(table.round(3).T.to_string(header=False))


if __name__ == "__main__":
    main()
