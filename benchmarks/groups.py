"""Fits of many domains with tau by groups: `python -m benchmarks.groups [--cases 30 30g 100g]`.

Swarms of 100 mixtures at two sizes are drawn from the law with as many domains as the case says;
with a ``g``, tau is fitted by ten groups of neighbours (`bayesmix.fit(groups=...)`), else by pairs.
Two chains of 300 + 300 draws on one core; scored on ten unseen mixtures at both sizes. Of the
truth, no two pairs have the same tau: what groups cost in error is seen too. The lines of one call
go to `benchmarks/groups.csv`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

import bayesmix as bm
from bayesmix.simulate import draw_design, draw_parameters, observe
from benchmarks.speed import processor

OUT = Path(__file__).with_suffix(".csv")
N_GROUPS, DRAWS = 10, 300


def measured(n_domains: int, *, grouped: bool) -> dict[str, object]:
    """One line of the table."""
    sizes = [1e8, 3e8]
    design = draw_design(n_domains, sizes, n_mixtures=110, concentration=0.3, seed=1)
    truth = draw_parameters(design.domains, seed=2)
    runs = observe(design, truth, seed=3).runs
    # both sizes have the same mixtures in the same order
    new = np.arange(len(runs)) % 110 >= 100
    fitted, held_out = runs.select(np.flatnonzero(~new)), runs.select(np.flatnonzero(new))
    group = {d: f"g{i * N_GROUPS // n_domains}" for i, d in enumerate(design.domains)}
    start = time.perf_counter()
    fit = bm.fit(
        fitted, groups=group if grouped else None, draws=DRAWS, tune=DRAWS, chains=2, cores=1,
        progressbar=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    draws = fit.predict(held_out.frame).draws
    expected = draws["expected"].mean("draw").sel(domain=list(design.domains)).values
    low, high = np.quantile(draws["loss"].sel(domain=list(design.domains)), [0.05, 0.95], axis=0)
    losses, table = held_out.losses.values, fit.diagnose().table
    return {
        "domains": n_domains,
        "groups": N_GROUPS if grouped else 0,
        "runs": len(fitted),
        "seconds": seconds,
        "steps_a_draw": float(fit.posterior["sample_stats"]["n_steps"].mean()),
        "r_hat": table["r_hat"].max(),
        "ess": table["ess_bulk"].min(),
        "mre": 100 * np.mean(abs(expected / losses - 1)),
        "coverage": np.mean((low <= losses) & (losses <= high)),
        "width": 100 * np.mean((high - low) / losses),
        "processor": processor(),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["30", "30g", "100g"])
    lines = []
    for case in parser.parse_args().cases:
        lines.append(measured(int(case.rstrip("g")), grouped=case.endswith("g")))
        print(pd.DataFrame(lines[-1:]).round(3).to_string(index=False), flush=True)
        pd.DataFrame(lines).round(4).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
