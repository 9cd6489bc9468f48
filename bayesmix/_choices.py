"""Files that state a choice for `bayesmix recommend`: objectives and bounds."""

import json
import math
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bayesmix._tables import PathLike, RunsError, raise_problems, read_table, read_text, shorten

_CONSTRAINTS = ("bounds",)  # tables that a constraints file may have


def read_objective(path: PathLike, components: Sequence[str]) -> dict[str, float]:
    """Read what to minimise: a weight for each of some losses.

    Parameters
    ----------
    path : path-like
        `.json` or `.toml`: a mapping of names to weights; `.csv`: columns `name`, `weight`.
    components : sequence of str
        Names that have a loss: domains, and `target:<name>`.

    Returns
    -------
    dict
        Weights by name, non-negative, at least one positive.

    Raises
    ------
    RunsError
        Names every problem with the file and the name or row.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "objective.json"
    >>> _ = path.write_text('{"code": 0.7, "target:chat": 0.3}')
    >>> read_objective(path, ["code", "web", "target:chat"])
    {'code': 0.7, 'target:chat': 0.3}
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        weights = _objective_table(path)
    elif suffix in (".json", ".toml"):
        weights = _mapping(path, _json if suffix == ".json" else tomllib.loads)
    else:
        raise RunsError(f"{path}: an objective is a .json, .toml or .csv file")
    problems = _unknown(path, weights, components)
    for name, weight in weights.items():
        if not _is_number(weight) or weight < 0:
            problems.append(f"{path}: {name!r}: {weight!r} is not a weight of 0 or more")
    if not problems and not any(weights.values()):
        problems.append(f"{path}: no weight is above 0")
    if problems:
        raise RunsError(*problems)
    return {name: float(weight) for name, weight in weights.items()}


def read_bounds(
    path: PathLike, domains: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Read lower and upper bounds on domains' weights from a TOML file.

    Parameters
    ----------
    path : path-like
        One table: `[bounds]`, with `<domain> = [lower, upper]`.
    domains : sequence of str
        The valid names.

    Returns
    -------
    lower, upper : dict
        By domain, those that the file names.

    Raises
    ------
    RunsError
        Names every problem with the file and the name; other tables among them.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "constraints.toml"
    >>> _ = path.write_text("[bounds]" + chr(10) + "wiki = [0.02, 0.1]")
    >>> read_bounds(path, ["wiki", "web"])
    ({'wiki': 0.02}, {'wiki': 0.1})
    """
    tables = _mapping(path, tomllib.loads)
    problems = [
        f"{path}: {name!r} is not supported yet; supported: [{'], ['.join(_CONSTRAINTS)}]"
        for name in tables
        if name not in _CONSTRAINTS
    ]
    bounds = tables.get("bounds", {})
    if not isinstance(bounds, dict):
        raise RunsError(f"{path}: bounds is a table, [bounds] with <domain> = [lower, upper]")
    problems += _unknown(path, bounds, domains)
    for name, pair in bounds.items():
        two = isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))
        if not two or not 0 <= pair[0] <= pair[1] <= 1:
            problems.append(
                f"{path}: {name!r}: {pair!r} is not [lower, upper] with 0 <= lower <= upper <= 1"
            )
    if problems:
        raise RunsError(*problems)
    lower, upper = ({name: float(pair[i]) for name, pair in bounds.items()} for i in (0, 1))
    return lower, upper


def _objective_table(path: PathLike) -> dict[str, Any]:
    table = read_table(path)
    names, weights = table.text("name"), table.numbers("weight", low=0)
    for row, name in enumerate(names):
        if name and name in names[:row]:
            table.note_cell("repeated names", "name", row, f"{name!r} appears before")
    raise_problems(table)
    return dict(zip(names, weights.tolist(), strict=True))


def _mapping(path: PathLike, parse: Callable[[str], Any]) -> dict[str, Any]:
    text = read_text(path)
    try:
        found = parse(text)
    except ValueError as error:  # what both parsers raise, with line and column
        raise RunsError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise RunsError(f"{path}: a mapping of names is needed")
    return found


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As a dict, which json would make of the last of two entries without saying so."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} appears twice")
    return dict(pairs)


def _unknown(path: PathLike, names: Sequence[str] | dict, valid: Sequence[str]) -> list[str]:
    return [
        f"{path}: unknown name {name!r}; valid names: {shorten(valid)}"
        for name in names
        if name not in valid
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
