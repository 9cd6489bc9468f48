"""Logs of Data Mixing Laws: one line a checkpoint and domain."""

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bayesmix._tables import (
    SUM_TOLERANCE,
    PathLike,
    RunsError,
    natural,
    positive_constants,
    positive_loss,
    read_text,
    shorten,
    snake,
    warn,
)
from bayesmix.runs import Runs, runs_from_frame

# non-embedding parameters behind the names of the Pythia sizes (Ye et al., pipeline/utils.py)
PYTHIA_SIZES = {
    "70M": 18_915_328,
    "160M": 85_056_000,
    "305M": 201_541_632,
    "410M": 302_311_424,
    "1B": 805_736_448,
}


def mixinglaws(*logs: PathLike, domains: Sequence[str], tokens_per_step: float = 1_048_576) -> Runs:
    """Import logs of Data Mixing Laws (Ye et al., arXiv 2403.16952).

    Parameters
    ----------
    *logs : path-like
        Lines of checkpoint, validation file and loss, separated by tabs. The checkpoint ends in
        `<run>-<proportion>-<proportion>.../<step>`, and the run begins with its size (`70M`),
        read as in `PYTHIA_SIZES`. The domain is the last word of the validation file's name
        (`Pile-CC` in `valid.Pile-CC.bin`), in lower case with underscores.
    domains : sequence of str
        Domains in the order of the proportions, which the logs do not name.
    tokens_per_step : float
        Tokens of one step.

    Returns
    -------
    Runs
        Sorted by size, run and step; repeated lines merged.

    Raises
    ------
    RunsError
        Names every problem with file, line and value.

    Warns
    -----
    RunsWarning
        Checkpoints named `last` are dropped: their step is unknown.
    """
    positive_constants(tokens_per_step=tokens_per_step)
    names = [snake(domain) for domain in domains]
    if len(set(names)) != len(names) or len(names) < 2:
        raise RunsError(f"domains {shorten(domains)}: two or more different names are needed")
    cells: dict[tuple[str, int], dict[str, float]] = {}
    mixtures: dict[str, tuple[float, ...]] = {}
    problems: list[str] = []
    last = 0
    for log in logs:
        for position, line in enumerate(read_text(log).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                run, weights, step, domain, loss = _log_line(line, names)
                if mixtures.setdefault(run, weights) != weights:
                    raise ValueError(f"run {run!r} has other proportions in an earlier line")
                if step is None:
                    last += 1
                elif cells.setdefault((run, step), {}).setdefault(domain, loss) != loss:
                    raise ValueError(f"another loss of {run!r}, step {step}, {domain!r} before")
            except ValueError as error:
                problems.append(f"{log}: line {position}: {error}")
    source = " with ".join(map(str, logs))
    if not cells and not problems:
        problems.append(f"{source}: no checkpoints with a step")
    if problems:
        more = [f"{source}: {len(problems) - 20} more lines"] if len(problems) > 20 else []
        raise RunsError(*problems[:20], *more)
    if last:
        warn(f"{source}: dropped {last} lines of checkpoints named 'last', whose step is unknown")
    rows: list[dict[str, Any]] = [
        {"run_id": run, "n_params": PYTHIA_SIZES[_size(run)], "n_tokens": step * tokens_per_step}
        | {f"weight_{d}": w for d, w in zip(names, mixtures[run], strict=True)}
        | {f"loss_{d}": losses.get(d, math.nan) for d in names}
        for (run, step), losses in cells.items()
    ]
    rows.sort(key=lambda row: (row["n_params"], natural(row["run_id"]), row["n_tokens"]))
    return runs_from_frame(pd.DataFrame(rows), source=source)


def _log_line(
    line: str, domains: list[str]
) -> tuple[str, tuple[float, ...], int | None, str, float]:
    """Split a line into run, proportions, step (None for `last`), domain and loss."""
    parts = line.split("\t")
    if len(parts) != 3:
        raise ValueError(f"{len(parts)} fields, not checkpoint, validation file and loss")
    match = re.search(r"([^/]+?)((?:-\d*\.?\d+)+)/(\d+|last)/?$", parts[0].strip())
    if not match:
        raise ValueError(f"checkpoint {parts[0]!r} does not end in <run>-<proportions>/<step>")
    run, step = match[1], match[3]
    weights = tuple(float(text) for text in match[2].split("-")[1:])
    if len(weights) != len(domains):
        raise ValueError(f"{len(weights)} proportions for {len(domains)} domains")
    if abs(sum(weights) - 1) > SUM_TOLERANCE:
        raise ValueError(f"proportions sum to {sum(weights):.6g}, not 1")
    if _size(run) not in PYTHIA_SIZES:
        raise ValueError(f"run {run!r} begins with none of the sizes {', '.join(PYTHIA_SIZES)}")
    if step != "last" and int(step) == 0:
        raise ValueError("step 0 has no tokens")
    domain = snake(parts[1].strip().split("/")[-1].removesuffix(".bin").split(".")[-1])
    if domain not in domains:
        raise ValueError(f"domain {domain!r} is not one of {shorten(domains)}")
    return run, weights, None if step == "last" else int(step), domain, positive_loss(parts[2])


def _size(run: str) -> str:
    return run.partition("_")[0]
