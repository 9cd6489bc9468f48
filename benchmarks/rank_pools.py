"""Which mixture of a pool? Real pools ranked by laws that were fitted to smaller runs.

`python -m benchmarks.rank_pools [--shared ../shared] [--laws regmix linear transfer ...]`

- `pile17_1b`: 64 mixtures at 1B, by the mean over the 13 domains that RegMix published, from 128
  runs of `regmix_1m` and 64 of `regmix_60m`, none of them a mixture of the pool;
- `slimpajama7_680m`: the 32 mixtures at 680M, by the mean over domains, from 122M and 310M.

Spearman of the ranking, and the regret of its first mixture: how much worse it is than the pool's
best, nats per token. For sampled laws the order is that of the posterior mean. Every line is
appended to `benchmarks/rank_pools.csv`.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats

import bayesmix as bm
from bayesmix.law import LAWS

OUT = Path(__file__).with_suffix(".csv")
N_SMALL, N_MEDIUM, SEED = 128, 64, 0
DEFAULT = ["regmix", "linear", "point:transfer", "point:regression", "additive", "transfer"]


def pile(data: Path) -> tuple[bm.Runs, bm.Runs, list[str]]:
    """Runs to fit, the pool, and the domains that are averaged."""
    small, medium = (bm.read_runs(data / f"regmix_{size}.csv") for size in ("1m", "60m"))
    pool = bm.read_runs(data / "pile17_1b.csv")
    published = np.isfinite(small.losses.values).any(axis=0)
    domains = [name for name, seen in zip(small.domains, published, strict=True) if seen]
    rng = np.random.default_rng(SEED)
    # the 256 test mixtures are those of regmix_60m: the small runs are of the others
    train = np.flatnonzero([str(run).startswith("train") for run in small.run_ids.values])
    small = small.select(rng.choice(train, N_SMALL, replace=False))
    medium = medium.select(rng.choice(len(medium), N_MEDIUM, replace=False))
    frames = [small.frame, medium.frame.assign(run_id="60m_" + medium.frame["run_id"])]
    fitted = bm.runs_from_frame(
        pd.concat(frames, ignore_index=True),
        source="regmix_1m and regmix_60m",
        weight_resolution=small.weight_resolution,
    )
    return fitted, pool, domains


def slimpajama(data: Path) -> tuple[bm.Runs, bm.Runs, list[str]]:
    """Likewise, from late checkpoints."""
    runs = bm.read_runs(data / "slimpajama7.csv")
    pool = runs.where("6.5e8 < n_params < 7e8").checkpoints("last")
    return runs.where("n_params < 4e8").checkpoints("late"), pool, list(runs.domains)


POOLS = {"pile17_1b": pile, "slimpajama7_680m": slimpajama}


def predicted(
    runs: bm.Runs, law: str, pool: bm.Runs, domains: list[str], **sampler: int
) -> tuple[np.ndarray, str]:
    """Mean loss of every mixture of the pool, and what is to be said of the fit."""
    if law not in LAWS:
        fit = bm.point_fit(runs, law)
        return fit.predict(pool.frame).sel(domain=domains).mean("domain").values, fit.message
    sampled = bm.fit(runs, law, checkpoints="all", progressbar=False, **sampler)
    expected = sampled.predict(pool.frame).draws["expected"]
    said = sampled.diagnose().text
    return expected.sel(domain=domains).mean(("domain", "draw")).values, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    parser.add_argument("--laws", nargs="+", default=DEFAULT)
    parser.add_argument("--pools", nargs="+", choices=list(POOLS), default=list(POOLS))
    parser.add_argument("--draws", type=int, default=1000, help="and as many of warm-up")
    parser.add_argument("--chains", type=int, default=4)
    options = parser.parse_args()
    sampler = {"draws": options.draws, "tune": options.draws, "chains": options.chains}
    warnings.simplefilter("ignore", bm.RunsWarning)
    for name in options.pools:
        runs, pool, domains = POOLS[name](options.shared / "data")
        truth = pool.losses.sel(domain=domains).mean("domain").values
        print(f"{name}: {len(truth)} mixtures, from {runs!r}; losses {truth.min():.4f} to "
              f"{truth.max():.4f}", flush=True)  # fmt: skip
        for law in options.laws:
            start = time.perf_counter()
            found, said = predicted(runs, law, pool, domains, **sampler)
            line = pd.DataFrame(
                {
                    "pool": [name],
                    "law": law,
                    "mixtures": len(truth),
                    "spearman": scipy.stats.spearmanr(found, truth).statistic,
                    "regret": truth[found.argmin()] - truth.min(),
                    "mre": 100 * np.mean(abs(found / truth - 1)),
                    "seconds": time.perf_counter() - start,
                }
            ).round(4)
            print(f"{line.to_string(index=False)}\n  {said}", flush=True)
            line.to_csv(OUT, mode="a", header=not OUT.exists(), index=False)


if __name__ == "__main__":
    main()
