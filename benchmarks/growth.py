"""How the kernel's cost grows: `python -m benchmarks.growth [--out benchmarks/growth.csv]`.

Milliseconds of the law's value and gradient at every row, on one core, of designs with 50 to 10,000
runs of 7 domains, and with 3 to 200 domains in 100 runs; and the exponent of a power law through
the larger half of each, which is 1 where cost is linear. Domains enter squared through tau.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from bayesmix._files import atomic_path
from bayesmix.simulate import draw_design
from benchmarks.speed import kernel_milliseconds, processor

RUNS, DOMAINS = (50, 200, 1000, 4000, 10_000), (3, 7, 17, 50, 100, 200)


def exponent(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of log y over log x, over the larger half."""
    half = len(x) // 2
    return float(np.polyfit(np.log(x[half:]), np.log(y[half:]), 1)[0])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    out = parser.parse_args().out
    lines = []
    for what, sizes in (("runs", RUNS), ("domains", DOMAINS)):
        for n in sizes:
            n_runs, n_domains = (n, 7) if what == "runs" else (100, n)
            design = draw_design(n_domains, [1.2e8, 3.1e8], n_mixtures=n_runs // 2)
            ms = kernel_milliseconds(design, repeats=max(20, 20_000 // (n_runs * n_domains)))
            lines.append({"grows": what, "runs": n_runs, "domains": n_domains, "ms": ms})
    table = pd.DataFrame(lines)
    for what, some in table.groupby("grows"):
        slope = exponent(some[what].to_numpy(), some["ms"].to_numpy())
        table.loc[table["grows"] == what, "exponent"] = slope
    table["processor"] = processor()
    print(table.round(3).to_string(index=False))
    with atomic_path(out) as path:
        table.round(4).to_csv(path, index=False)


if __name__ == "__main__":
    main()
