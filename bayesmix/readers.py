"""The field's formats, imported into the data contract: joined by id, never by row order."""

import json
import math
import os.path
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bayesmix._mixinglaws import mixinglaws
from bayesmix._tables import (
    PathLike,
    RunsError,
    Table,
    natural,
    number,
    positive_constants,
    positive_loss,
    raise_problems,
    read_table,
    read_text,
    shorten,
    snake,
    warn,
)
from bayesmix.runs import Runs, runs_from_frame

__all__ = ["FORMATS", "Format", "import_runs", "mixinglaws", "olmix", "paper", "regmix"]

_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def regmix(
    mixtures: PathLike,
    losses: PathLike,
    extra_losses: PathLike | None = None,
    *,
    n_params: float,
    n_tokens: float,
    prefix: str = "",
) -> Runs:
    """Import RegMix's two tables (Liu et al., arXiv 2407.01492), joined on `index`.

    Parameters
    ----------
    mixtures : path-like
        CSV: `index`, `train_<data set>_<domain>`; the prefix common to all domains is dropped.
    losses : path-like
        CSV: `index`, `metric/<data set>_<domain>_val_loss`, nats per token.
    extra_losses : path-like, optional
        JSON lines `{"index": i + 1, "domain": "NIH ExPorter", "avg_loss": 2.7}` for domains that
        `losses` lacks, as published by Dai & Zheng, whose index counts from 1.
    n_params, n_tokens : float
        Size and tokens of every run.
    prefix : str
        Put before the index to make a run's name.

    Returns
    -------
    Runs
        Sorted by index.

    Raises
    ------
    RunsError
        Names every problem with file, column, row and value; losses without a mixture among them.

    Warns
    -----
    RunsWarning
        Runs without losses, left out; runs without extra losses; renormalised weights.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "mixtures.csv").write_text('''index,train_pile_web,train_pile_code
    ... 1,0.9,0.1
    ... 2,0.4,0.6
    ... ''')
    >>> _ = (folder / "losses.csv").write_text('''index,metric/pile_web_val_loss
    ... 2,3.3
    ... 1,3.1
    ... ''')
    >>> runs = regmix(folder / "mixtures.csv", folder / "losses.csv", n_params=1e6, n_tokens=1e9)
    >>> runs.losses.sel(domain="web").values
    array([3.1, 3.3])
    """
    constants = positive_constants(n_params=n_params, n_tokens=n_tokens)
    mix, observed = read_table(mixtures), read_table(losses)
    trained = [name for name in mix.columns if name.startswith("train_")]
    if not trained:
        mix.note("missing columns", "columns 'train_<domain>' are missing")
    stem = os.path.commonprefix(trained)  # noqa: RUF071 (by characters is meant)
    stem = stem[: stem.rfind("_") + 1]
    weights = pd.DataFrame(mix.mixtures(trained), _ids(mix, "index"), dtype=float)
    domains = [name.removeprefix(stem) for name in trained]

    data_set = stem.removeprefix("train_")
    metrics = {}
    for name in observed.columns:
        if match := re.fullmatch(rf"metric/{re.escape(data_set)}(.+)_val_loss", name):
            metrics[match[1]] = _losses(observed, name)
            if match[1] not in domains:
                observed.note("columns", f"column {name!r}: {mix.source} has no such domain")
    if not metrics:
        observed.note(
            "missing columns", f"columns 'metric/{data_set}<domain>_val_loss' are missing"
        )
    table = pd.DataFrame(metrics, _ids(observed, "index"))
    _check_pairs(mix, weights.index, observed, table.index, "index")
    _warn_ignored(mix, ["index", *trained])
    _warn_ignored(observed, ["index", *(f"metric/{data_set}{d}_val_loss" for d in metrics)])

    if extra_losses is not None:
        extra = _extra_losses(extra_losses, list(weights.index), domains, list(metrics))
        if absent := [name for name in table.index if name not in extra.index]:
            warn(f"{extra_losses}: no losses for {len(absent)} runs: {shorten(absent)}")
        table = table.join(extra)
    frame = pd.DataFrame(
        {f"weight_{d}": weights[i] for i, d in enumerate(domains)}
        | {f"loss_{d}": table[d] for d in table},
        index=sorted(table.index, key=natural),
    ).assign(**constants)
    frame["run_id"] = [f"{prefix}{name}" for name in frame.index]
    return runs_from_frame(frame, source=f"{mixtures} with {losses}")


def paper(path: PathLike) -> Runs:
    """Import one CSV: `weight_*`, `model_size`, `n_tokens`, `*_loss` (Shukor et al.; Dai & Zheng).

    Parameters
    ----------
    path : path-like
        Sizes and token counts are numbers, or have a suffix K, M, B or T: `122M`, `20B`. A loss
        that is not of a training domain becomes a target. Columns `seed` and `group` are kept.
        Without a column `run_id`, each mixture and size is a run, and each seed of it if there is
        a column: `m<number of the mixture, by first appearance>_<size>[_s<seed>]`.

    Returns
    -------
    Runs
        In the order of the file.

    Raises
    ------
    RunsError
        Names every problem with file, column, row and value.
    """
    table = read_table(path)
    trained = [name for name in table.columns if name.startswith("weight_")]
    metrics = [name for name in table.columns if name.endswith("_loss") and name not in trained]
    if not trained:
        table.note("missing columns", "columns 'weight_<domain>' are missing")
    if not metrics:
        table.note("missing columns", "columns '<domain>_loss' are missing")
    mixtures = table.mixtures(trained)
    sizes = table.numbers("model_size", low=0, above=True, parse=_with_suffix)
    tokens = table.numbers("n_tokens", low=0, above=True, parse=_with_suffix)
    columns: dict[str, Any] = {"n_params": sizes, "n_tokens": tokens}
    columns |= dict(zip(trained, mixtures.T, strict=True))
    for name in metrics:
        label = name.removesuffix("_loss")
        kind = "loss" if f"weight_{label}" in trained else "target"
        columns[f"{kind}_{label}"] = _losses(table, name)
    kept = [name for name in ("seed", "group") if name in table.columns]
    columns |= {name: table.cells(name) for name in kept}
    named = "run_id" in table.columns
    if named:
        columns["run_id"] = table.text("run_id")
    raise_problems(table)
    _warn_ignored(table, ["run_id", "model_size", "n_tokens", *kept, *trained, *metrics])
    if not named:
        codes = pd.factorize(pd.Series(map(tuple, mixtures.round(9))))[0]
        columns["run_id"] = [
            f"m{code:02d}_{size / 1e6:.12g}M" for code, size in zip(codes, sizes, strict=True)
        ]
        if "seed" in kept:
            seeds = (str(cell).strip() for cell in columns["seed"])
            columns["run_id"] = [f"{n}_s{s}" for n, s in zip(columns["run_id"], seeds, strict=True)]
    return runs_from_frame(pd.DataFrame(columns), source=str(path))


def olmix(ratios: PathLike, metrics: PathLike, *, n_params: float, n_tokens: float) -> Runs:
    """Import Olmix's two tables, joined on `run_id` in any row order.

    Parameters
    ----------
    ratios : path-like
        CSV: `run_id` and one column a domain.
    metrics : path-like
        CSV: `run_id` and one column a loss: a domain's if it has the domain's name, otherwise a
        target's. Columns `run`, `name` and `index` are labels in both.
    n_params, n_tokens : float
        Size and tokens of every run.

    Returns
    -------
    Runs
        Sorted by `run_id`.

    Raises
    ------
    RunsError
        Names every problem with file, column, row and value; metrics without ratios among them.

    Warns
    -----
    RunsWarning
        Runs without metrics, left out; renormalised weights.
    """
    constants = positive_constants(n_params=n_params, n_tokens=n_tokens)
    mix, observed = read_table(ratios), read_table(metrics)
    labels = {"run_id", "run", "name", "index", ""}
    domains = [name for name in mix.columns if name not in labels]
    names = [name for name in observed.columns if name not in labels]
    weights = pd.DataFrame(mix.mixtures(domains), _ids(mix, "run_id"), dtype=float)
    columns = {
        f"{'loss' if name in domains else 'target'}_{name}": _losses(observed, name)
        for name in names
    }
    table = pd.DataFrame(columns, _ids(observed, "run_id"))
    _check_pairs(mix, weights.index, observed, table.index, "run_id")
    frame = pd.DataFrame(
        {f"weight_{d}": weights[i] for i, d in enumerate(domains)}
        | {name: table[name] for name in table},
        index=sorted(table.index, key=natural),
    ).assign(**constants)
    frame["run_id"] = frame.index
    return runs_from_frame(frame, source=f"{ratios} with {metrics}")


class Format(NamedTuple):
    """A format that `import_runs` knows.

    Attributes
    ----------
    read : callable
        The reader: paths, then constants by name.
    files : str
        The files it takes, in order.
    n_files : tuple of int
        The fewest and the most files.
    required, optional : tuple of str
        Constants that must, and may, be stated.
    """

    read: Callable[..., Runs]
    files: str
    n_files: tuple[int, float]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {
    "regmix": Format(
        regmix,
        "MIXTURES.csv LOSSES.csv [EXTRA_LOSSES.jsonl]",
        (2, 3),
        ("n_params", "n_tokens"),
        ("prefix",),
    ),
    "paper": Format(paper, "RUNS.csv", (1, 1)),
    "olmix": Format(olmix, "RATIOS.csv METRICS.csv", (2, 2), ("n_params", "n_tokens")),
    "mixinglaws": Format(mixinglaws, "LOG.txt [LOG.txt ...]", (1, math.inf), ("domains",)),
}


def import_runs(name: str, files: Sequence[PathLike], **constants: object) -> Runs:
    """Import files in one of the `FORMATS`.

    Parameters
    ----------
    name : str
        Key of `FORMATS`.
    files : sequence of path-like
    **constants
        What the files do not say: `n_params`, `n_tokens`, `domains`, `prefix`; None is not stated.

    Raises
    ------
    RunsError
        Unknown format; too few or too many files; a constant missing or of no use; and whatever
        is wrong with the files.

    Examples
    --------
    >>> import_runs("olmix", ["ratios.csv"], n_params=1e9)
    Traceback (most recent call last):
    bayesmix._tables.RunsError: olmix takes RATIOS.csv METRICS.csv, not 1 files
    olmix needs n_tokens
    """
    if name not in FORMATS:
        raise RunsError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    kind = FORMATS[name]
    stated = {key: value for key, value in constants.items() if value is not None}
    problems = []
    if not kind.n_files[0] <= len(files) <= kind.n_files[1]:
        problems.append(f"{name} takes {kind.files}, not {len(files)} files")
    problems += [f"{name} needs {key}" for key in kind.required if key not in stated]
    known = (*kind.required, *kind.optional)
    problems += [f"{name} has no use for {key}" for key in stated if key not in known]
    if problems:
        raise RunsError(*problems)
    return kind.read(*files, **stated)


def _losses(table: Table, column: str) -> np.ndarray:
    return table.numbers(column, low=0, above=True, blank_allowed=True)


def _ids(table: Table, column: str) -> list[str]:
    """Ids of the rows, whole numbers in one spelling; repeated ones are a problem."""
    ids = [_id(cell) for cell in table.text(column)]
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name and first.setdefault(name, row) != row:
            message = f"{name!r} is in row {first[name] + 1} already"
            table.note_cell("repeated ids", column, row, message)
    return ids


def _id(text: str) -> str:
    # a whole number that another tool wrote as a float
    return text.partition(".")[0] if re.fullmatch(r"\d+\.0*", text) else text


def _check_pairs(
    mix: Table, mixtures: pd.Index, observed: Table, losses: pd.Index, column: str
) -> None:
    """Raise the problems of two tables, losses without a mixture among them.

    Warns of mixtures without losses.
    """
    known = set(mixtures)
    for row, name in enumerate(losses):
        if name and name not in known:
            message = f"{name!r} is not in {mix.source}"
            observed.note_cell("losses without a mixture", column, row, message)
    raise_problems(mix, observed)
    if absent := [name for name in mixtures if name and name not in set(losses)]:
        warn(f"{observed.source}: no losses for {len(absent)} runs, left out: {shorten(absent)}")


def _extra_losses(
    path: PathLike, ids: list[str], domains: list[str], observed: list[str]
) -> pd.DataFrame:
    """Read JSON lines of index (from 1), domain and avg_loss: rows by id, columns by domain."""
    values: dict[str, dict[str, float]] = {}
    problems = []
    for position, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            name, domain = str(int(record["index"]) - 1), snake(str(record["domain"]))
            loss = positive_loss(record["avg_loss"])
            if name not in ids:
                raise ValueError(f"index {record['index']}: no mixture has index {name}")
            if domain not in domains:
                raise ValueError(f"domain {record['domain']!r} is not in the mixtures")
            if domain in observed:
                raise ValueError(f"domain {record['domain']!r} has losses already")
            if name in values.setdefault(domain, {}):
                raise ValueError(f"index {record['index']}, {record['domain']!r} appears twice")
            values[domain][name] = loss
        except (KeyError, TypeError, OverflowError):
            problems.append(f"{path}: line {position}: needs index, domain and avg_loss")
        except ValueError as error:
            problems.append(f"{path}: line {position}: {error}")
    if problems:
        raise RunsError(*problems[:10], *([f"{path}: more such lines"] * (len(problems) > 10)))
    return pd.DataFrame(values)


def _with_suffix(cell: object) -> float:
    """Read a count such as 122M."""
    text = cell.strip() if isinstance(cell, str) else ""
    if len(text) > 1 and (unit := _UNITS.get(text[-1].upper())):
        return number(text[:-1]) * unit
    return number(cell)


def _warn_ignored(table: Table, used: Sequence[str]) -> None:
    if unused := [repr(name) for name in table.columns if name and name not in used]:
        warn(f"{table.source}: ignored unknown columns: {shorten(unused)}")
