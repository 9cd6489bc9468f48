"""Do the chains of default fits agree? `python -m benchmarks.agreement [--swarms NAME ...]`.

Default fits, four chains of 1000 + 1000 draws, of published swarms whole and in parts, some by
every law, and of simulated ones of other shapes: few runs, many domains, true zeros, two sizes,
targets, and truths that are not the law. What `diagnose` says, with the quantity that is worst,
goes to `benchmarks/agreement.csv`, a line as soon as a fit is done; what is there by this version
of the model is not run again, so take out lines of which the coordinates have changed. `--jobs`
fits run at once, each on one core.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

import bayesmix as bm
from bayesmix.model import MODEL_VERSION
from bayesmix.simulate import draw_design, simulate, simulate_additive
from bayesmix.skills import simulate_skills
from benchmarks.fits import diagnosed
from benchmarks.intervals import regmix

OUT = Path(__file__).with_suffix(".csv")
TWO = (1.5e8, 5e8)
GROUPED = 100, 10  # domains and groups


def _read(name: str, where: str = "n_params > 0") -> Callable[[Path], bm.Runs]:
    return lambda data: bm.read_runs(data / f"{name}.csv").where(where)


def _first(name: str, n: int) -> Callable[[Path], bm.Runs]:
    return lambda data: bm.read_runs(data / f"{name}.csv").select(np.arange(n))


def _simulated(n_domains: int, sizes: tuple[float, ...], **options) -> Callable[[Path], bm.Runs]:
    return lambda data: simulate(n_domains, sizes, **options).runs


def _false(truth: Callable, n_mixtures: int) -> Callable[[Path], bm.Runs]:
    """Five domains at two sizes by a truth that is not the law."""
    return lambda data: truth(draw_design(5, TWO, n_mixtures=n_mixtures, zeros=0.2, seed=0)).runs


SWARMS: dict[str, Callable[[Path], bm.Runs]] = {
    "pile17_1b": _read("pile17_1b"),
    "pile17_1b, 24 runs": _first("pile17_1b", 24),
    "slimpajama7, 122M": _read("slimpajama7", "n_params < 2e8"),
    "slimpajama7, to 310M": _read("slimpajama7", "n_params < 4e8"),
    "slimpajama7": _read("slimpajama7"),
    "pile4": _read("pile4"),
    "mixinglaws_pile2": _read("mixinglaws_pile2"),
    "mixinglaws_pile3": _read("mixinglaws_pile3"),
    "regmix_60m": _read("regmix_60m"),
    "regmix_1m, 64 runs": _first("regmix_1m", 64),
    "regmix, 1M and 60M": regmix,
    "tinyswarm": lambda data: bm.load_dataset("tinyswarm"),
    "tinyswarm, one size": lambda data: bm.load_dataset("tinyswarm").where("n_params < 2e4"),
    "2 domains, 8 runs": _simulated(2, TWO, n_mixtures=4),
    "3 domains, one size": _simulated(3, (1e8,), n_mixtures=30),
    "5 domains, zeros": _simulated(5, TWO, n_mixtures=(30, 15), zeros=0.3),
    "5 domains, zeros, seed 1": _simulated(5, TWO, n_mixtures=(30, 15), zeros=0.3, seed=1),
    "5 domains, zeros, 12 runs": _simulated(5, TWO, n_mixtures=(8, 4), zeros=0.3),
    "5 domains, zeros, 200 runs": _simulated(5, TWO, n_mixtures=100, zeros=0.3),
    "5 domains, checkpoints": _simulated(5, TWO, n_mixtures=(30, 15), zeros=0.2, checkpoints=8),
    "5 domains, little noise": _simulated(5, TWO, n_mixtures=20, noise=0.001),
    "5 domains, much noise": _simulated(5, TWO, n_mixtures=20, noise=0.02),
    "5 domains, additive": _false(simulate_additive, 25),
    "5 domains, skills": _false(simulate_skills, 25),
    "8 domains, 2 targets": _simulated(8, TWO, n_mixtures=20, targets=("code", "maths")),
    "12 domains, four sizes": _simulated(12, (5e7, 1e8, 2e8, 4e8), n_mixtures=(30, 16, 8, 4)),
    "30 domains": _simulated(30, TWO, n_mixtures=40),
    "100 domains in ten groups": _simulated(GROUPED[0], TWO, n_mixtures=50),
}
OTHER_LAWS = ("pile17_1b", "slimpajama7, to 310M", "tinyswarm", "5 domains, zeros")


def measured(name: str, law: str, shared: Path, seed: int) -> pd.DataFrame:
    """One line of the table."""
    warnings.simplefilter("ignore", bm.RunsWarning)
    runs = SWARMS[name](shared / "data")
    groups = None
    if "groups" in name:
        groups = {domain: f"group{i % GROUPED[1]}" for i, domain in enumerate(runs.domains)}
    start = time.perf_counter()
    made = bm.fit(runs, law, groups=groups, seed=seed, cores=1, progressbar=False)
    seconds = time.perf_counter() - start
    found = made.diagnose().table
    return pd.DataFrame(
        {
            "swarm": name,
            "law": law,
            "rows": len(made.runs),
            "domains": len(runs.domains),
            "quantities": len(found),
            "seed": seed,
            "model_version": MODEL_VERSION,
            "seconds": seconds,
            "worst": found["r_hat"].idxmax(),
            "least": found[["ess_bulk", "ess_tail"]].min(axis=1).idxmin(),
            "divergences": int(made.posterior["sample_stats"]["diverging"].sum()),
            **diagnosed(made),
        },
        index=[0],
    )


def main() -> None:
    """Run what is missing, and print how many pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    parser.add_argument("--swarms", nargs="+", choices=list(SWARMS), default=list(SWARMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    keys = ["swarm", "law", "seed"]
    there = []
    if arguments.out.exists():
        done = pd.read_csv(arguments.out).query("model_version == @MODEL_VERSION")
        there = done[keys].values.tolist()
    todo = [
        joblib.delayed(measured)(name, law, arguments.shared, arguments.seed)
        for name in arguments.swarms
        for law in ("transfer", *(("regression", "quantization") if name in OTHER_LAWS else ()))
        if [name, law, arguments.seed] not in there
    ]
    for line in joblib.Parallel(arguments.jobs, return_as="generator_unordered")(todo):
        print(line.round(4).T.to_string(header=False), flush=True)
        first = not arguments.out.exists()
        line.round(4).to_csv(arguments.out, mode="a", header=first, index=False)
    table = pd.read_csv(arguments.out)
    print(f"{table['passed'].sum()} of {len(table)} pass")


if __name__ == "__main__":
    main()
