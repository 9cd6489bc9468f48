"""What many fits cost: `python -m benchmarks.many_fits [--n 4]`.

Simulated swarms (4 domains, 40 runs at two sizes), each fitted by one chain of
200 + 200 draws, in four ways: in this process with one compiled model, as `evaluate`, `compare`
and the studies of calibration do; reading the compiled model from disk for each, as new processes
do; compiling for each (caches of its parts as the first fit left them); and by joblib on a Dask
cluster of two local processes. Seconds altogether, by the number of fits, and of the median fit;
and how many times faster than to compile for each. Written to `benchmarks/many_fits.csv`.
"""

import argparse
import importlib
import tempfile
import time
import warnings
from pathlib import Path

import joblib
import pandas as pd
from dask.distributed import Client, LocalCluster

import bayesmix as bm
from bayesmix._files import atomic_path
from bayesmix.compiling import _last, code_key
from bayesmix.machine_code import path_of
from bayesmix.model import build_model
from bayesmix.simulate import simulate
from benchmarks.speed import processor

OUT = Path(__file__).with_suffix(".csv")
WORKERS = 2


def seconds(seed: int, *, forget: str = "nothing") -> float:
    """One fit of one swarm, drawn with the seed, after the process or the disk forgot the model."""
    warnings.simplefilter("ignore")
    runs = simulate(4, (1e8, 4e8), n_mixtures=20, seed=seed).runs
    if forget != "nothing":
        _last.clear()
    if forget == "disk":
        path_of(code_key(build_model(runs))).unlink(missing_ok=True)
    start = time.perf_counter()
    bm.fit(runs, draws=200, tune=200, chains=1, cores=1, seed=seed, progressbar=False)
    return time.perf_counter() - start


def on_dask(n: int) -> list[float]:
    """The fits on a cluster of local processes."""
    # of this script as a module: one of `__main__` would be sent with all its globals
    one = importlib.import_module("benchmarks.many_fits").seconds
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, local_directory=folder
        ) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        return joblib.Parallel()(joblib.delayed(one)(seed) for seed in range(n))


def main() -> None:
    """Fit in each way, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4, help="swarms")
    n = parser.parse_args().n
    seconds(0)  # fills the caches of compiled code
    ways = {
        "compiling each": lambda: [seconds(seed, forget="disk") for seed in range(n)],
        "reading each": lambda: [seconds(seed, forget="process") for seed in range(n)],
        "one compiled model": lambda: [seconds(seed) for seed in range(n)],
        f"Dask, {WORKERS} processes": lambda: on_dask(n),
    }
    lines = []
    for way, run in ways.items():
        start = time.perf_counter()
        each = pd.Series(run())
        whole = time.perf_counter() - start
        lines.append(
            {
                "way": way,
                "fits": n,
                "seconds": whole,
                "seconds_a_fit": whole / n,
                "median_fit": each.median(),
            }
        )
    table = pd.DataFrame(lines)
    table["times_faster"] = table["seconds"].iloc[0] / table["seconds"]
    table["processor"] = processor()
    print(table.round(2).to_string(index=False))
    with atomic_path(OUT) as path:
        table.round(3).to_csv(path, index=False)


if __name__ == "__main__":
    main()
