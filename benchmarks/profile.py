"""Where the time of a fit goes: `python -m benchmarks.profile [--shared ../shared] [--swarms ...]`.

For each swarm, two chains of 500 + 500 draws on one core, by default settings otherwise: seconds to
build and compile the model (caches as they are), to sample, to diagnose and to save; gradients a
draw; milliseconds a gradient, called from Python (4 us of it), and those of the law's kernel; the
least ESS (bulk and tail) of what `diagnose` looks at, per second and per 1,000 gradients of the
draws that are kept; and what another fit in the same process would need to compile. Written to
`benchmarks/profile.csv`.
"""

import argparse
import os
import tempfile
import time
import timeit
import warnings
from pathlib import Path

import pandas as pd
import pymc as pm

import bayesmix as bm
from bayesmix.compiling import compiled, log_density
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


def gradient_milliseconds(model: pm.Model, repeats: int = 2000) -> float:
    """Of the log density with its gradient, near the start of a chain."""
    made = compiled(model)
    density, point = log_density(made), made.initial_point_func(0)
    seconds = timeit.repeat(lambda: density(point), number=repeats // 5, repeat=5)
    return 1e3 * min(seconds) / (repeats // 5)


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
    steps = made.posterior["sample_stats"]["n_steps"]
    return {
        "swarm": name,
        "rows": len(runs),
        "domains": len(runs.domains),
        **{f"{what}_seconds": value for what, value in seconds.items()},
        "steps_a_draw": float(steps.mean()),
        "gradient_ms": gradient_milliseconds(model),
        "kernel_ms": kernel_milliseconds(runs, repeats=500),
        "least_ess": least,
        "ess_per_second": least / seconds["sample"],
        "ess_per_1000_gradients": 1e3 * least / float(steps.sum()),
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
