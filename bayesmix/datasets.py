"""Bundled swarms: in `data/` of a checkout, in `bayesmix/_data` of an installed wheel.

Beside them, `list_datasets` lists the published ones, which `fetch_dataset` downloads.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bayesmix.published import PUBLISHED, fetch_dataset
from bayesmix.runs import Runs, read_runs

__all__ = ["DATASETS", "fetch_dataset", "list_datasets", "load_dataset"]

DATASETS: Mapping[str, str] = {
    "tinyswarm": "measured: byte-level transformers trained by this project (data/README.md)",
    "simulated": "drawn from the transfer law with stated truth (data/simulated_truth.json)",
}

_PACKAGE = Path(__file__).parent


def load_dataset(name: str = "tinyswarm") -> Runs:
    """Read a bundled swarm.

    Parameters
    ----------
    name : str
        A bundled one of those that `list_datasets` lists.

    Returns
    -------
    Runs

    Raises
    ------
    ValueError
        If the name is unknown or a published swarm's; the message lists the valid ones, or says
        how to fetch it.

    Examples
    --------
    >>> load_dataset("tinyswarm").domains
    ('python', 'c', 'prose', 'german', 'french', 'tables')
    """
    if name in PUBLISHED:
        raise ValueError(f"{name!r} is not bundled: fetch_dataset({name!r}) downloads it")
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}; valid names: {', '.join(DATASETS)}")
    return read_runs(_folder() / f"{name}.csv")


def list_datasets() -> pd.DataFrame:
    """The bundled and the published swarms, one row each.

    Returns
    -------
    DataFrame
        ``name, source, rows, runs, domains, targets, licence, description``; source is `bundled`
        or `published`; rows, runs, domains and targets are counts.

    Examples
    --------
    >>> list_datasets().query("source == 'bundled'")["name"].tolist()
    ['tinyswarm', 'simulated']
    """
    entries = [_entry(name, description) for name, description in DATASETS.items()]
    entries += [
        {
            "name": name,
            "source": "published",
            "rows": swarm.rows,
            "runs": swarm.runs,
            "domains": swarm.domains,
            "targets": 0,
            "licence": swarm.licence,
            "description": swarm.description,
        }
        for name, swarm in PUBLISHED.items()
    ]
    return pd.DataFrame(entries)


def _entry(name: str, description: str) -> dict[str, str | int]:
    runs = load_dataset(name)
    return {
        "name": name,
        "source": "bundled",
        "rows": len(runs),
        "runs": runs.n_runs,
        "domains": len(runs.domains),
        "targets": len(runs.targets),
        "licence": "MIT",
        "description": description,
    }


def _folder() -> Path:
    installed = _PACKAGE / "_data"
    return installed if installed.is_dir() else _PACKAGE.parent / "data"
