"""Bundled swarms: in `data/` of a checkout, in `bayesmix/_data` of an installed wheel."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bayesmix.runs import Runs, read_runs

DATASETS: Mapping[str, str] = {
    "simulated": "drawn from the transfer law with stated truth (data/simulated_truth.json)",
}

_PACKAGE = Path(__file__).parent


def load_dataset(name: str = "simulated") -> Runs:
    """Read a bundled swarm.

    Parameters
    ----------
    name : str
        One of those that `list_datasets` lists.

    Returns
    -------
    Runs

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the valid ones.

    Examples
    --------
    >>> load_dataset("simulated").domains
    ('code', 'prose', 'qa', 'wiki', 'papers')
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}; valid names: {', '.join(DATASETS)}")
    return read_runs(_folder() / f"{name}.csv")


def list_datasets() -> pd.DataFrame:
    """The bundled swarms, one row each.

    Returns
    -------
    DataFrame
        ``name, rows, runs, domains, targets, description``; rows, runs, domains and targets
        are counts.

    Examples
    --------
    >>> list_datasets()["name"].tolist()
    ['simulated']
    """
    return pd.DataFrame([_entry(name, description) for name, description in DATASETS.items()])


def _entry(name: str, description: str) -> dict[str, str | int]:
    runs = load_dataset(name)
    return {
        "name": name,
        "rows": len(runs),
        "runs": runs.n_runs,
        "domains": len(runs.domains),
        "targets": len(runs.targets),
        "description": description,
    }


def _folder() -> Path:
    installed = _PACKAGE / "_data"
    return installed if installed.is_dir() else _PACKAGE.parent / "data"
