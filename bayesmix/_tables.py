"""Tables as read, cell by cell, with every problem collected and placed."""

import math
import os
import re
import warnings
from collections.abc import Callable, Sequence
from decimal import Decimal
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd

SUM_TOLERANCE = 0.005  # weights may miss 1 by this much (printed decimals)
SHOWN = 10  # problems of one kind that a message lists
_NOISE = 1e-9  # floating-point noise allowed around a limit
_BLANKS = {"", "nan", "na", "n/a", "null", "none", "<na>"}
_PARQUET = {".parquet", ".pq"}
_SHORT = {"float16", "float32"}

type PathLike = str | os.PathLike[str]


class RunsError(ValueError):
    """A table that breaks the data contract.

    Parameters
    ----------
    *problems : str
        One sentence each, with file, column, row (the first data row is row 1) and value.

    Examples
    --------
    >>> str(RunsError("a.csv: column 'loss_web', row 3: 0 is not positive"))
    "a.csv: column 'loss_web', row 3: 0 is not positive"
    """

    @property
    def problems(self) -> tuple[str, ...]:
        """Every problem found."""
        return self.args

    def __str__(self) -> str:
        return "\n".join(self.args)


class RunsWarning(UserWarning):
    """Something in a table that was mended or left out."""


def warn(message: str, category: type[Warning] = RunsWarning) -> None:
    """Warn at the caller's line outside the package."""
    folder = str(Path(__file__).parent) + os.sep
    warnings.warn(message, category, stacklevel=2, skip_file_prefixes=(folder,))


def shorten(items: Sequence[object]) -> str:
    """Join items with commas, the first `SHOWN` of them and a count of the others."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(str(item) for item in items[:SHOWN]) + more


def number(cell: object) -> float:
    """Read a cell as a float; NaN where blank, ValueError where it is no number."""
    if isinstance(cell, str):
        text = cell.strip()
        if text.lower() in _BLANKS:
            return math.nan
        if "_" in text:
            raise ValueError(text)
        return float(text)
    if _is_blank(cell):
        return math.nan
    if isinstance(cell, bool | np.bool) or not isinstance(cell, Real | Decimal):
        raise ValueError(str(cell))
    return float(cell)


def _is_blank(cell: object) -> bool:
    if isinstance(cell, float):
        return math.isnan(cell)
    return cell is None or cell is pd.NA or cell is pd.NaT


def _shown(cell: object) -> str:
    text = repr(cell) if isinstance(cell, str) else str(cell)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _fault(
    value: float, low: float, high: float, above: bool, whole: bool
) -> tuple[str, str] | None:
    """Say what is wrong with a number: the kind of problem and the words for it."""
    if math.isinf(value):
        return "infinite values", "is infinite"
    kind = "values out of range"
    if above and value <= low:
        return kind, "is not positive" if low == 0 else f"is not above {low:g}"
    if value < low - _NOISE:
        return kind, "is negative" if low == 0 else f"is below {low:g}"
    if value > high + _NOISE:
        return kind, f"is above {high:g}"
    if whole and not math.isnan(value) and not value.is_integer():
        return kind, "is not a whole number"
    return None


class Table:
    """A table as read, and the problems found in it so far.

    Parameters
    ----------
    source : str
        Name used in messages, usually the file's path.
    cells : DataFrame
        Cells of any type; text is read as numbers where numbers belong.

    Attributes
    ----------
    columns : list of str
        Names, stripped; of columns that share a name, the first.
    problems : list of str
    """

    def __init__(self, source: str, cells: pd.DataFrame) -> None:
        self.source = source
        self._problems: dict[str, list[str]] = {}
        names = pd.Index([str(name).strip() for name in cells.columns])
        for name in sorted({name for name in names[names.duplicated()] if name}):
            self.note("columns", f"column {name!r} appears {(names == name).sum()} times")
        self._cells = cells.set_axis(names, axis=1).loc[:, ~names.duplicated()]
        if not len(cells):
            self.note("rows", "no rows of data")

    @property
    def columns(self) -> list[str]:
        """Column names in the table's order."""
        return list(self._cells.columns)

    @property
    def problems(self) -> list[str]:
        """Every problem, long lists of one kind cut with a count."""
        listed = []
        for kind, items in self._problems.items():
            listed += items[:SHOWN]
            if len(items) > SHOWN:
                listed.append(f"{self.source}: {len(items) - SHOWN} more {kind}")
        return listed

    def __len__(self) -> int:
        return len(self._cells)

    def note(self, kind: str, message: str) -> None:
        """Record a problem of the whole table; `kind` is a plural noun."""
        self._problems.setdefault(kind, []).append(f"{self.source}: {message}")

    def note_cell(self, kind: str, column: str, row: int, message: str) -> None:
        """Record a problem of one cell; `row` is zero-based, messages count from 1."""
        self.note(kind, f"column {column!r}, row {row + 1}: {message}")

    def cells(self, column: str) -> list[object]:
        """Cells of a column; blank ones, and a problem, where it is missing."""
        if column not in self._cells:
            self.note("missing columns", f"column {column!r} is missing")
            return [None] * len(self)
        cells = self._cells[column]
        kind = str(cells.dtype).lower()  # NumPy's own, or pandas' with missing values
        if kind in _SHORT:  # its shortest decimal: the number that was written
            return [float(str(cell)) for cell in cells.to_numpy(kind, na_value=np.nan)]
        return cells.tolist()

    def text(self, column: str, *, blank_allowed: bool = False) -> list[str]:
        """Cells of a column as stripped text, empty where blank."""
        values = ["" if _is_blank(cell) else str(cell).strip() for cell in self.cells(column)]
        if not blank_allowed and column in self._cells:
            for row, value in enumerate(values):
                if not value:
                    self.note_cell("blank cells", column, row, "blank")
        return values

    def numbers(
        self,
        column: str,
        *,
        low: float = -math.inf,
        high: float = math.inf,
        above: bool = False,
        whole: bool = False,
        blank_allowed: bool = False,
        parse: Callable[[object], float] = number,
    ) -> np.ndarray:
        """Read a column as finite floats, a problem noted for every cell that is not.

        Parameters
        ----------
        column : str
        low, high : float
            Limits, floating-point noise allowed.
        above : bool
            Values must exceed `low`, not only reach it.
        whole : bool
            Values must be whole numbers.
        blank_allowed : bool
            Blank cells are no problem.
        parse : callable
            Gives a float, NaN for a blank cell, or raises ValueError.

        Returns
        -------
        array, shape (rows,)
            NaN where blank or broken.
        """
        values = np.full(len(self), math.nan)
        if column not in self._cells:
            self.cells(column)
            return values
        for row, cell in enumerate(self.cells(column)):
            try:
                value = parse(cell)
            except ValueError:
                fault: tuple[str, str] | None = ("cells that are not numbers", "is not a number")
            else:
                if math.isnan(value) and not blank_allowed:
                    self.note_cell("blank cells", column, row, "blank")
                fault = _fault(value, low, high, above, whole)
                if not fault:
                    values[row] = min(max(value, low), high)
            if fault:
                kind, message = fault
                self.note_cell(kind, column, row, f"{_shown(cell)} {message}")
        return values

    def mixtures(self, columns: Sequence[str]) -> np.ndarray:
        """Read columns of fractions whose rows sum to 1 within `SUM_TOLERANCE`.

        Returns
        -------
        array, shape (rows, len(columns))
            As read, not renormalised; NaN where blank or broken.
        """
        weights = np.column_stack(
            [np.empty((len(self), 0)), *(self.numbers(name, low=0, high=1) for name in columns)]
        )
        if len(columns) > 1:
            sums = weights.sum(axis=1)
            for row in np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE + _NOISE):
                self.note(
                    "sums of weights",
                    f"columns {columns[0]!r} to {columns[-1]!r}, row {row + 1}: "
                    f"weights sum to {sums[row]:.6g}, not 1",
                )
        return weights


def raise_problems(*tables: Table) -> None:
    """Raise one `RunsError` with the problems of all tables, if there are any."""
    problems = [problem for table in tables for problem in table.problems]
    if problems:
        raise RunsError(*problems)


def renormalise(weights: np.ndarray, source: str) -> np.ndarray:
    """Divide rows by their sums, with a warning that counts them beyond rounding noise."""
    sums = weights.sum(axis=1, keepdims=True)
    off = np.abs(sums - 1)
    if (count := int((off > 1e-6).sum())) > 0:
        warn(
            f"{source}: weights of {count} of {len(weights)} rows did not sum to 1 "
            f"(off by up to {off.max():.2g}); renormalised"
        )
    # rows already exact stay as they are, bit by bit, so that a written table reads back equal
    return np.where(off > 1e-12, weights / sums, weights)


def read_text(path: PathLike) -> str:
    """Read a text file (UTF-8), or raise a `RunsError` that says what the file is instead."""
    data = _read_bytes(path)
    if b"\0" in data[:65536] or data.startswith(b"PAR1"):
        raise RunsError(f"{path}: a binary file, not text in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RunsError(
            f"{path}: not text in UTF-8: line {line} has byte 0x{data[error.start]:02x}"
        ) from None


def _read_bytes(path: PathLike) -> bytes:
    file = Path(path)
    try:
        if file.is_dir():
            raise RunsError(f"{path}: a directory, not a file")
        data = file.read_bytes()
    except FileNotFoundError:
        raise RunsError(f"{path}: no such file") from None
    except OSError as error:
        raise RunsError(f"{path}: cannot be read: {error.strerror}") from None
    if not data.strip():
        raise RunsError(f"{path}: the file is empty")
    return data


def is_parquet(path: PathLike) -> bool:
    """Whether a file's suffix says Parquet."""
    return Path(path).suffix.lower() in _PARQUET


def read_table(path: PathLike) -> Table:
    """Read a CSV (text, so that cells can be named as they stand) or Parquet file.

    Raises
    ------
    RunsError
        Absent, a directory, empty, binary or torn file.
    """
    if is_parquet(path):
        _read_bytes(path)
        try:
            frame = pd.read_parquet(path)
        except Exception as error:  # pyarrow raises many kinds
            raise RunsError(
                f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}"
            ) from None
        if frame.index.names != [None]:  # pandas keeps a named index apart from the columns
            known = [name for name in frame.index.names if name in frame.columns]
            frame = frame.reset_index(known, drop=True).reset_index(
                drop=len(known) == frame.index.nlevels
            )
        return Table(str(path), frame)
    read_text(path)
    try:
        # header=None: pandas would rename a repeated column without saying so
        lines = pd.read_csv(
            path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except pd.errors.EmptyDataError:
        raise RunsError(f"{path}: the file is empty") from None
    except pd.errors.ParserError as error:
        message = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise RunsError(f"{path}: cannot be read as CSV: {message}") from None
    header = ["" if pd.isna(name) else str(name) for name in lines.iloc[0]]
    return Table(str(path), lines.iloc[1:].set_axis(header, axis=1).reset_index(drop=True))


def positive_constants(**stated: float) -> dict[str, float]:
    """Give back stated constants, or raise a `RunsError` where one is not positive."""
    problems = [
        f"{name} must be a positive number, not {value}"
        for name, value in stated.items()
        if not (math.isfinite(value) and value > 0)
    ]
    if problems:
        raise RunsError(*problems)
    return stated


def positive_loss(cell: object) -> float:
    """Read a finite positive number, or raise a ValueError that shows the cell."""
    try:
        loss = number(cell)
    except ValueError:
        loss = math.nan
    if not (math.isfinite(loss) and loss > 0):
        raise ValueError(f"loss {cell!r} is not a positive number")
    return loss


def snake(name: str) -> str:
    """Lower case with underscores: `Pile-CC` is `pile_cc`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which run 9 comes before run 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]
