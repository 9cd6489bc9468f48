"""What makes a table a swarm: the checks, and the canonical form."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bayesmix._tables import Table, raise_problems, renormalise, shorten, warn

_DOUBLE_LOGGED = 0.002  # token counts this close with equal losses are one checkpoint
_LARGEST_SEED = 2**53  # beyond it floats skip whole numbers


def validate(
    table: Table, weight_resolution: float | None
) -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...], float]:
    """Check a table against the data contract and make it canonical.

    Parameters
    ----------
    table : Table
    weight_resolution : float or None
        None: inferred from how the weights are rounded.

    Returns
    -------
    frame : DataFrame
        Columns in the contract's order, weights renormalised, duplicates dropped.
    domains, targets : tuple of str
    weight_resolution : float

    Raises
    ------
    RunsError
        Names every problem with file, column, row and value.

    Warns
    -----
    RunsWarning
        Weights renormalised, runs parted by seed, duplicate checkpoints dropped, unknown columns
        ignored.
    """
    weights, losses, targets = (
        [name for name in table.columns if name.startswith(prefix)]
        for prefix in ("weight_", "loss_", "target_")
    )
    _check_columns(table, weights, losses, targets)
    domains = [name.removeprefix("weight_") for name in weights]
    observed = [f"loss_{domain}" for domain in domains if f"loss_{domain}" in losses] + targets
    frame, mixtures = _parse(table, weights, observed)
    _check_runs(table, frame, mixtures, weights)
    if not table.problems and observed and frame[observed].isna().all(axis=None):
        table.note("columns", "every loss is blank")
    if weight_resolution is not None and not 0 <= weight_resolution <= 0.05:
        table.note("options", f"weight_resolution {weight_resolution} is not between 0 and 0.05")
    raise_problems(table)

    if parted := _part_by_seed(table, frame):
        warn(
            f"{table.source}: rows of one run_id with several seeds are taken for runs of their "
            f"own, named <run_id>_s<seed>: {shorten([*map(repr, parted)])}"
        )
    if unknown := [name for name in table.columns if name not in frame]:
        warn(f"{table.source}: ignored unknown columns: {shorten([*map(repr, unknown)])}")
    mixtures = renormalise(mixtures, table.source)
    frame[weights] = mixtures
    # within what is taken for equal: neither a split by size nor rounding shall part a run
    same = ["n_params", *weights]
    frame[same] = frame.groupby("run_id", sort=False)[same].transform("first")
    doubled = _doubled(frame, observed)
    if doubled.any():
        warn(f"{table.source}: dropped {doubled.sum()} duplicate rows (checkpoints logged twice)")
    frame = frame[~doubled].reset_index(drop=True)
    key = [name for name in ("run_id", "n_tokens", "seed") if name in frame]
    if again := frame.loc[frame.duplicated(key), "run_id"].unique().tolist():
        warn(
            f"{table.source}: several rows of one run, n_tokens and seed, with other losses; each "
            f"counts as an evaluation of its own: {shorten([*map(repr, again)])}"
        )
    return (
        frame,
        tuple(domains),
        tuple(name.removeprefix("target_") for name in targets),
        infer_resolution(mixtures) if weight_resolution is None else float(weight_resolution),
    )


def _parse(
    table: Table, weights: list[str], observed: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Give the table as numbers and labels, and its mixtures as read."""
    columns: dict[str, object] = {
        "run_id": table.text("run_id"),
        "n_params": table.numbers("n_params", low=0, above=True),
        "n_tokens": table.numbers("n_tokens", low=0, above=True),
    }
    mixtures = table.mixtures(weights)
    columns |= dict(zip(weights, mixtures.T, strict=True))
    for name in observed:
        columns[name] = table.numbers(name, low=0, above=True, blank_allowed=True)
    if "seed" in table.columns:
        seeds = table.numbers(
            "seed", low=-_LARGEST_SEED, high=_LARGEST_SEED, whole=True, blank_allowed=True
        )
        columns["seed"] = pd.array(seeds, dtype="Int64")
    if "group" in table.columns:
        columns["group"] = table.text("group", blank_allowed=True)
    return pd.DataFrame(columns), mixtures


def _check_columns(table: Table, weights: list[str], losses: list[str], targets: list[str]) -> None:
    """Note what is wrong with the names of the columns."""
    if not weights:
        table.note("missing columns", "columns 'weight_<domain>' are missing")
    elif len(weights) == 1:
        table.note("columns", f"column {weights[0]!r} is the only weight: a mixture needs two")
    for name in losses:
        if (weight := f"weight_{name.removeprefix('loss_')}") not in weights:
            table.note("columns", f"column {name!r} has no column {weight!r}")
    if not losses + targets:
        table.note("missing columns", "columns 'loss_<domain>' or 'target_<name>' are missing")
    for name in weights + targets:
        label = name.partition("_")[2]
        # outputs use these names beside those of domains
        reserved = name in weights and (label == "mean" or label.startswith("target:"))
        if reserved or not label:
            table.note("columns", f"column {name!r}: {label!r} cannot be a name")


def _part_by_seed(table: Table, frame: pd.DataFrame) -> list[str]:
    """Make each seed of a run a run, in place; give the names of the runs that had several.

    Raises a `RunsError` where a run is called so already: it may be of another mixture.
    """
    if "seed" not in frame:
        return []
    several = frame.groupby("run_id")["seed"].transform("nunique") > 1
    parted = frame.loc[several, "run_id"]
    seeds = frame.loc[several, "seed"].astype("string").fillna("")
    named = parted + "_s" + seeds
    for name in sorted(set(named) & set(frame["run_id"])):
        table.note("names", f"run {name!r} is there beside a run of that name less its seed")
    raise_problems(table)
    frame.loc[several, "run_id"] = named
    return list(parted.unique())


def _check_runs(
    table: Table, frame: pd.DataFrame, mixtures: np.ndarray, weights: list[str]
) -> None:
    """Note rows whose size or mixture is not that of the run's first row."""
    position = pd.Series(np.arange(len(frame)))
    origin = position.groupby(frame["run_id"]).transform("min").to_numpy(dtype=int)
    with np.errstate(invalid="ignore"):  # rows of zeros are a problem noted elsewhere
        shares = mixtures / mixtures.sum(axis=1, keepdims=True)
    # of weights what is shown is what is compared, each over the sum of its row
    compared = {"n_params": frame["n_params"], **dict(zip(weights, shares.T, strict=True))}
    values = np.column_stack([np.log(frame["n_params"]), shares])
    differs = (np.abs(values - values[origin]) > 1e-6) & (frame[["run_id"]] != "").to_numpy()
    for name, rows in zip(["n_params", *weights], differs.T, strict=True):
        column = compared[name]
        for row in np.flatnonzero(rows):
            first = origin[row]
            table.note(
                "rows that contradict their run",
                f"column {name!r}, row {row + 1}: {column[row]:.10g}, but {column[first]:.10g} in "
                f"row {first + 1} of the same run {frame['run_id'][row]!r}",
            )


def _doubled(frame: pd.DataFrame, observed: list[str]) -> np.ndarray:
    """Mask of exact duplicates, and of checkpoints logged again under 0.2% more tokens."""
    exact = frame.duplicated().to_numpy()
    key = [name for name in ("run_id", *observed, "seed", "group") if name in frame]
    ordered = frame[~exact].sort_values("n_tokens", kind="stable")
    following = ordered.groupby(key, dropna=False, sort=False)["n_tokens"].shift(-1)
    again = following - ordered["n_tokens"] <= _DOUBLE_LOGGED * following
    return exact | again.reindex(frame.index, fill_value=False).to_numpy()


def floor_weights(weights: np.ndarray, resolution: float) -> np.ndarray:
    """Replace zeros by half the resolution and renormalise; nothing to do at resolution 0.

    Parameters
    ----------
    weights : array, shape (..., K)
        Fractions that sum to 1.
    resolution : float
        Zeros are unknown weights below it.

    Returns
    -------
    array, shape (..., K)

    Examples
    --------
    >>> floor_weights(np.array([0.5, 0.5, 0.0]), 0.002).round(6)
    array([0.4995  , 0.4995  , 0.000999])
    """
    weights = np.array(weights, dtype=float)
    if resolution == 0:
        return weights
    floored = np.where(weights == 0, resolution / 2, weights)
    return floored / floored.sum(axis=-1, keepdims=True)


def infer_resolution(weights: np.ndarray) -> float:
    """Half a unit of the last decimal to which weights with zeros were rounded, 0 if they were not.

    They were if every mixture lies on the grid of 2, 3 or 4 decimals divided by its printed sum,
    and a tenth of the mixtures have a printed sum other than 1 that is not the work of simple
    fractions (thirds).

    Parameters
    ----------
    weights : array, shape (rows, K)
        Fractions that sum to 1.

    Returns
    -------
    float

    Examples
    --------
    >>> printed = np.array([[0.333, 0.668, 0.0], [0.25, 0.35, 0.4]])
    >>> infer_resolution(printed / printed.sum(axis=1, keepdims=True))
    0.0005
    >>> infer_resolution(np.array([[0.5, 0.5, 0.0], [0.25, 0.35, 0.4]]))
    0.0
    """
    if (weights > 0).all():
        return 0.0
    mixtures = np.unique(weights, axis=0)
    simple = np.isfinite(_denominators(mixtures, range(1, 33)))
    for decimals in (2, 3, 4):
        unit = 10**decimals
        near = range(unit - unit // 100, unit + unit // 100 + 1)
        sums = _denominators(mixtures, sorted(near, key=lambda m: abs(m - unit)))
        if np.isfinite(sums).all():
            return 0.5 / unit if ((sums != unit) & ~simple).mean() >= 0.1 else 0.0
    return 0.0


def _denominators(mixtures: np.ndarray, candidates: Sequence[int]) -> np.ndarray:
    """First candidate that makes all weights of a mixture whole numbers, else NaN."""
    found = np.full(len(mixtures), math.nan)
    for candidate in candidates:
        left = np.flatnonzero(np.isnan(found))
        scaled = mixtures[left] * candidate
        found[left[(np.abs(scaled - scaled.round()) < 1e-6).all(axis=1)]] = candidate
    return found
