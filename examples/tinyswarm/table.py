"""The log of the trainer as a swarm in bayesmix's format.

python -m examples.tinyswarm.table tinyswarm.jsonl data/tinyswarm.csv
"""

import argparse
from pathlib import Path

import pandas as pd

from bayesmix.runs import Runs, runs_from_frame, write_runs
from examples.tinyswarm.design import SIZES, design
from examples.tinyswarm.train import read_log


def table(lines: list[dict]) -> Runs:
    """Logged runs as `Runs`, by size, horizon and name; losses to five decimals, nats a byte."""
    ranks = {size.name: rank for rank, size in enumerate(SIZES)}
    ordered = sorted(lines, key=lambda x: (ranks[x["size"]], x["n_tokens"], x["run_id"]))
    rows = [
        {key: line[key] for key in ("run_id", "n_params", "n_tokens", "seed")}
        | {f"weight_{domain}": weight for domain, weight in line["weights"].items()}
        | {f"loss_{domain}": round(loss, 5) for domain, loss in line["losses"].items()}
        for line in ordered
    ]
    # shares of windows are exact: a zero is a zero
    return runs_from_frame(pd.DataFrame(rows), source="tinyswarm", weight_resolution=0.0)


def main() -> None:
    """Write the table from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    runs = table(read_log(options.log))
    write_runs(runs, options.out)
    print(f"{runs!r}\nwrote {options.out}: {len(runs)} of the {len(design())} planned runs")


if __name__ == "__main__":
    main()
