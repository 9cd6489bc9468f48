"""The data contract: a swarm of proxy runs, validated and immutable.

One row per evaluated checkpoint; columns `run_id`, `n_params`, `n_tokens`, `weight_<domain>`,
`loss_<domain>`, and where there are any `target_<name>`, `seed`, `group`.
"""

import hashlib
import html
import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix._contract import floor_weights, validate
from bayesmix._files import atomic_path
from bayesmix._tables import (
    PathLike,
    RunsError,
    RunsWarning,
    Table,
    is_parquet,
    raise_problems,
    read_table,
    renormalise,
    shorten,
)

__all__ = [
    "Runs",
    "RunsError",
    "RunsWarning",
    "floor_weights",
    "read_mixtures",
    "read_runs",
    "runs_from_frame",
    "write_runs",
]

_LATE_FROM, _LATE_COUNT = 0.25, 4  # late checkpoints: the last 75% of a run, at most four


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Runs:
    """A validated, immutable swarm: made by `read_runs` or `runs_from_frame`.

    Attributes
    ----------
    domains : tuple of str
        Training domains, in the order of the `weight_` columns.
    targets : tuple of str
        Evaluation losses that are not training domains (`target_` columns).
    weight_resolution : float
        0 where weights are exact; else a printed zero is an unknown weight below it.
    source : str
        Where the table came from, for messages.

    Notes
    -----
    Arrays have dims `row`, `domain`, `target`; `row` counts from 0 and carries `run_id`. They
    are read-only. Two `Runs` are equal when their `hash` is.

    Examples
    --------
    >>> runs = runs_from_frame(pd.DataFrame({
    ...     "run_id": ["a", "b"], "n_params": 1e8, "n_tokens": 2e9,
    ...     "weight_web": [0.5, 0.9], "weight_code": [0.5, 0.1], "loss_web": [3.1, 3.0]}))
    >>> runs
    Runs: 2 runs, 2 rows, 2 domains; 100M parameters; 2B tokens
    >>> runs.weights.sel(domain="web").values
    array([0.5, 0.9])
    >>> runs.losses.sizes
    Frozen({'row': 2, 'domain': 2})
    """

    _frame: pd.DataFrame
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    weight_resolution: float
    source: str

    @property
    def frame(self) -> pd.DataFrame:
        """The tidy table, a copy, columns in the contract's order."""
        return self._frame.copy()

    @property
    def run_ids(self) -> xr.DataArray:
        """Run of each row; dim row."""
        return self._array(self._ids(), "run_id")

    @property
    def n_params(self) -> xr.DataArray:
        """Model size in parameters; dim row."""
        return self._array(self._matrix(["n_params"])[:, 0], "n_params", units="parameters")

    @property
    def n_tokens(self) -> xr.DataArray:
        """Tokens trained on; dim row."""
        return self._array(self._matrix(["n_tokens"])[:, 0], "n_tokens", units="tokens")

    @property
    def weights(self) -> xr.DataArray:
        """Mixtures, fractions that sum to 1; dims row, domain."""
        return self._array(self._matrix([f"weight_{d}" for d in self.domains]), "weights", "domain")

    @property
    def losses(self) -> xr.DataArray:
        """Domain losses in nats per token, NaN where not evaluated; dims row, domain."""
        values = self._matrix([f"loss_{d}" for d in self.domains])
        return self._array(values, "losses", "domain", units="nats per token")

    @property
    def target_losses(self) -> xr.DataArray:
        """Target losses in nats per token, NaN where not evaluated; dims row, target."""
        values = self._matrix([f"target_{t}" for t in self.targets])
        return self._array(values, "target_losses", "target", units="nats per token")

    @property
    def n_runs(self) -> int:
        """Number of distinct runs."""
        return int(self._frame["run_id"].nunique())

    @property
    def hash(self) -> str:
        """SHA-256 of the content: values by column name, and the weights' resolution."""
        digest = hashlib.sha256(json.dumps(self.weight_resolution).encode())
        for name in sorted(self._frame.columns):
            column = self._frame[name]
            digest.update(json.dumps([name, len(column)]).encode())
            if name in ("run_id", "group"):
                digest.update(json.dumps(column.tolist()).encode())
            else:
                values = column.to_numpy(dtype="<f8", na_value=math.nan)
                # one bit pattern for every NaN, and for both zeros
                digest.update(np.where(np.isnan(values), math.nan, values + 0.0).tobytes())
        return digest.hexdigest()

    def effective_weights(self) -> xr.DataArray:
        """Mixtures with printed zeros replaced by `floor_weights`; dims row, domain.

        Examples
        --------
        A weight printed as 0 to two decimals may be up to 0.005, and is taken for half of that:

        >>> runs = runs_from_frame(
        ...     pd.DataFrame({
        ...         "run_id": ["a"], "n_params": 1e8, "n_tokens": 2e9,
        ...         "weight_web": 1.0, "weight_code": 0.0, "loss_web": 3.1}),
        ...     weight_resolution=0.005)
        >>> runs.effective_weights().values.round(4).tolist()
        [[0.9975, 0.0025]]
        """
        weights = self.weights
        floored = floor_weights(weights.values, self.weight_resolution)
        return self._array(floored, "effective_weights", "domain")

    def where(self, expr: str) -> "Runs":
        """Keep the rows for which a condition on the columns holds.

        Parameters
        ----------
        expr : str
            As in `pandas.DataFrame.query`, without references to Python variables (`@`).

        Raises
        ------
        RunsError
            An expression that is no condition on the rows, or one that leaves none.

        Examples
        --------
        >>> runs = runs_from_frame(pd.DataFrame({
        ...     "run_id": ["a", "b"], "n_params": [1e8, 4e8], "n_tokens": 2e9,
        ...     "weight_web": 0.5, "weight_code": 0.5, "loss_web": [3.1, 3.0]}))
        >>> len(runs.where("n_params < 4e8"))
        1
        """
        if "@" in re.sub(r"\"[^\"]*\"|'[^']*'|`[^`]*`", "", expr):
            raise RunsError(f"{self.source}: condition {expr!r}: @ references are not allowed")
        try:
            kept = self._frame.eval(expr, engine="python")
        except Exception as error:  # pandas raises many kinds, SyntaxError and KeyError among them
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunsError(f"{self.source}: condition {expr!r} is invalid: {reason}") from None
        if not isinstance(kept, pd.Series) or not pd.api.types.is_bool_dtype(kept):
            raise RunsError(f"{self.source}: condition {expr!r} is not true or false for each row")
        if not kept.any():
            raise RunsError(f"{self.source}: condition {expr!r} leaves no rows")
        return self.select(kept.to_numpy(dtype=bool, na_value=False))

    def checkpoints(self, which: Literal["late", "last", "all"]) -> "Runs":
        """Keep some checkpoints of each run.

        Parameters
        ----------
        which : {"late", "last", "all"}
            `late`: at most four, evenly spaced in log tokens over the last 75% of the run
            (from a quarter of its tokens), the last always among them. Chosen are checkpoints
            with a loss; `all` keeps the others too.

        Raises
        ------
        RunsError
            If no loss is left.

        Examples
        --------
        >>> from bayesmix import load_dataset
        >>> runs = load_dataset("simulated")
        >>> [len(runs.checkpoints(which)) for which in ("all", "last")]
        [120, 60]
        """
        if which == "all":
            return self
        if which not in ("late", "last"):
            raise ValueError(f"checkpoints are late, last or all, not {which!r}")
        tokens, ids = self.n_tokens.values, self._ids()
        kept = np.zeros(len(self), dtype=bool)
        evaluated = self._evaluated()
        for run in np.unique(ids[evaluated]):
            rows = evaluated & (ids == run)
            kept |= rows & np.isin(tokens, _chosen(np.unique(tokens[rows]), which))
        return self.select(kept)

    def select(self, rows: Sequence[int] | Sequence[bool] | np.ndarray | xr.DataArray) -> "Runs":
        """Keep rows by a boolean mask or by zero-based positions, in the order given.

        Raises
        ------
        RunsError
            If no row, or no loss, is left.
        IndexError
            If a mask has another length, or a position is out of range.

        Examples
        --------
        >>> from bayesmix import load_dataset
        >>> runs = load_dataset("simulated")
        >>> runs.select([2, 0]).run_ids.values.tolist()
        ['m01_50M', 'm00_50M']
        >>> runs.select(runs.weights.sel(domain="code") > 0.5).n_runs
        2
        """
        positions = np.arange(len(self))[np.asarray(rows)] if len(rows) else np.arange(0)
        if not len(positions):
            raise RunsError(f"{self.source}: no rows left")
        # weight_resolution stays the parent's: fewer rows show less of how weights were printed
        kept = replace(self, _frame=self._frame.iloc[positions].reset_index(drop=True))
        if not kept._evaluated().any():
            raise RunsError(f"{self.source}: no losses left: they are blank in all rows kept")
        return kept

    def __len__(self) -> int:
        return len(self._frame)

    def __eq__(self, other: object) -> bool:
        return self.hash == other.hash if isinstance(other, Runs) else NotImplemented

    def __hash__(self) -> int:
        return int(self.hash[:15], 16)

    def __repr__(self) -> str:
        targets = f" and {_counted(len(self.targets), 'target')}" if self.targets else ""
        resolution = f"; weights below {self.weight_resolution:g} printed as 0"
        return (
            f"Runs: {_counted(self.n_runs, 'run')}, {_counted(len(self), 'row')}, "
            f"{len(self.domains)} domains{targets}; "
            f"{_span(self.n_params.values)} parameters; {_span(self.n_tokens.values)} tokens"
            + (resolution if self.weight_resolution else "")
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{self._frame.to_html(max_rows=8, border=0)}"

    def _evaluated(self) -> np.ndarray:
        """Which rows have a loss."""
        losses = np.concatenate([self.losses.values, self.target_losses.values], axis=1)
        return np.isfinite(losses).any(axis=1)

    def _ids(self) -> np.ndarray:
        return np.array(self._frame["run_id"].tolist(), dtype=str)

    def _matrix(self, columns: list[str]) -> np.ndarray:
        return self._frame.reindex(columns=columns).to_numpy(dtype=float, copy=True)

    def _array(self, values: np.ndarray, name: str, dim: str = "", **attrs: str) -> xr.DataArray:
        values.setflags(write=False)
        coords: dict = {"row": np.arange(len(self)), "run_id": ("row", self._ids())}
        if dim:
            coords[dim] = np.array(getattr(self, f"{dim}s"), dtype=str)
        return xr.DataArray(values, coords, ("row", dim) if dim else ("row",), name, attrs)


def read_runs(path: PathLike, *, weight_resolution: float | None = None) -> Runs:
    r"""Read a swarm from a CSV or Parquet file.

    Parameters
    ----------
    path : path-like
        Parquet by its suffix (`.parquet`, `.pq`), otherwise CSV in UTF-8.
    weight_resolution : float, optional
        Weights below it were printed as 0 (half a unit of the last decimal printed); 0 says that
        zeros are exact. By default inferred: printed weights that do not add up to 1 were rounded.

    Returns
    -------
    Runs

    Raises
    ------
    RunsError
        Names every problem with file, column, row and value.

    Warns
    -----
    RunsWarning
        Weights renormalised, rows of one `run_id` with several seeds taken for runs of their own,
        duplicate checkpoints dropped, unknown columns ignored.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "swarm.csv"
    >>> _ = path.write_text("run_id,n_params,n_tokens,weight_web,weight_code,loss_web\n"
    ...                     "a,1e8,2e9,0.5,0.5,3.1\n")
    >>> read_runs(path).n_runs
    1
    """
    return _validated(read_table(path), weight_resolution)


def runs_from_frame(
    frame: pd.DataFrame, *, source: str = "table", weight_resolution: float | None = None
) -> Runs:
    """Validate a data frame in the contract's format; see `read_runs`.

    Parameters
    ----------
    frame : DataFrame
        Not changed.
    source : str
        Name used in messages.
    weight_resolution : float, optional
        As in `read_runs`.

    Raises
    ------
    RunsError
        Names every problem with column, row and value.

    Examples
    --------
    >>> runs_from_frame(pd.DataFrame({
    ...     "run_id": ["a", "a", "b"], "n_params": 1e8, "n_tokens": [1e9, 2e9, 2e9],
    ...     "weight_web": [0.5, 0.5, 0.9], "weight_code": [0.5, 0.5, 0.1],
    ...     "loss_web": [3.3, 3.1, 3.0]}))
    Runs: 2 runs, 3 rows, 2 domains; 100M parameters; 1B to 2B tokens
    """
    return _validated(Table(source, frame), weight_resolution)


def write_runs(runs: Runs, path: PathLike) -> None:
    """Write a swarm to a `.csv`, `.parquet` or `.pq` file that `read_runs` reads back.

    The resolution of weights is no column: reading infers or is told it again.

    Raises
    ------
    RunsError
        If the suffix is another one.

    Examples
    --------
    >>> import tempfile
    >>> from bayesmix import load_dataset
    >>> runs = load_dataset("simulated")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_runs(runs, f"{folder}/swarm.parquet")
    ...     read_runs(f"{folder}/swarm.parquet") == runs
    True
    """
    if not is_parquet(path) and not str(path).lower().endswith(".csv"):
        raise RunsError(f"{path}: runs are written to .csv or .parquet files")
    with atomic_path(path) as temporary:
        if is_parquet(path):
            runs._frame.to_parquet(temporary, index=False)
        else:
            runs._frame.to_csv(temporary, index=False)


def equal_points(weights: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """Code of each row: equal where mixture and scale are, to six decimals.

    Parameters
    ----------
    weights : array, shape (R, K)
    log_scale : array, shape (R,) or (R, 2)
        Log of N, or of N and D.

    Examples
    --------
    >>> equal_points(np.array([[1 / 3, 2 / 3], [0.3333333, 0.6666667], [0.5, 0.5]]), np.zeros(3))
    array([0, 0, 1])
    """
    points = np.column_stack([weights, log_scale]).round(6)
    return np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)


def read_mixtures(
    path: PathLike, domains: Sequence[str], *, unused: Collection[str] = ()
) -> pd.DataFrame:
    """Read mixtures at which to predict, from a CSV or Parquet file.

    Parameters
    ----------
    path : path-like
    domains : sequence of str
        Each needs a column `weight_<domain>`.
    unused : collection of str
        Of `n_params` and `n_tokens` what is known from elsewhere: not checked then.

    Returns
    -------
    DataFrame
        `weight_<domain>` in the order of `domains`, renormalised; then the other columns, of which
        `n_params`, `n_tokens` and `flops`, which may be blank, are checked.

    Raises
    ------
    RunsError
        Names every problem with file, column, row and value.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pd.DataFrame({
    ...         "label": ["even", "more code"], "weight_code": [0.5, 0.8], "weight_web": [0.5, 0.2],
    ...         "n_params": 4e9, "n_tokens": 8e10,
    ...     }).to_csv(f"{folder}/mixtures.csv", index=False)
    ...     mixtures = read_mixtures(f"{folder}/mixtures.csv", ["web", "code"])
    >>> mixtures.columns.tolist()
    ['weight_web', 'weight_code', 'label', 'n_params', 'n_tokens']
    """
    table = read_table(path)
    names = [f"weight_{domain}" for domain in domains]
    for name in table.columns:
        if name.startswith("weight_") and name not in names:
            table.note("columns", f"column {name!r}: not a domain here ({shorten(domains)})")
    weights = table.mixtures(names)
    counts = {"n_params", "n_tokens", "flops"}.difference(unused)
    others: dict[str, Any] = {
        name: table.numbers(name, low=0, above=True, blank_allowed=name == "flops")
        if name in counts
        else table.cells(name)
        for name in table.columns
        if name and not name.startswith("weight_")
    }
    raise_problems(table)
    mixtures = pd.DataFrame(renormalise(weights, table.source), columns=names)
    return pd.concat([mixtures, pd.DataFrame(others, mixtures.index)], axis=1)


def _validated(table: Table, weight_resolution: float | None) -> Runs:
    return Runs(*validate(table, weight_resolution), table.source)


def _chosen(tokens: np.ndarray, which: str) -> np.ndarray:
    """Token counts (sorted) of one run to keep."""
    if which == "last":
        return tokens[-1:]
    late = tokens[tokens >= _LATE_FROM * tokens[-1]]
    wanted = np.linspace(np.log(late[0]), np.log(late[-1]), _LATE_COUNT)
    return late[np.abs(np.log(late) - wanted[:, None]).argmin(axis=1)]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _span(values: np.ndarray) -> str:
    """Render the range of counts, as in 122M to 2.72B."""
    low, high = _count(values.min()), _count(values.max())
    return low if low == high else f"{low} to {high}"


def _count(value: float) -> str:
    for unit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.3g}"
