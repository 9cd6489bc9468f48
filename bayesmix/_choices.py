"""Files that state a choice for `bayesmix recommend`: objectives and constraints."""

import json
import math
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bayesmix._tables import PathLike, RunsError, raise_problems, read_table, read_text, shorten
from bayesmix.constraints import (
    KL,
    L1,
    Bounds,
    Constraint,
    Fixed,
    GroupSum,
    TokenBudget,
    check,
)
from bayesmix.runs import read_mixtures


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
    problems = _unknown_names(str(path), weights, components)
    for name, weight in weights.items():
        if not _is_number(weight) or weight < 0:
            problems.append(f"{path}: {name!r}: {weight!r} is not a weight of 0 or more")
    if not problems and not any(weights.values()):
        problems.append(f"{path}: no weight is above 0")
    if problems:
        raise RunsError(*problems)
    return {name: float(weight) for name, weight in weights.items()}


def read_baseline(path: PathLike, domains: Sequence[str]) -> dict[str, float]:
    """Read the one mixture of a table with ``weight_<domain>`` columns.

    Raises
    ------
    RunsError
        If the table is no table of mixtures, or has not exactly one row.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "present.csv"
    >>> _ = path.write_text("weight_web,weight_code" + chr(10) + "0.75,0.25")
    >>> read_baseline(path, ["web", "code"])
    {'web': 0.75, 'code': 0.25}
    """
    table = read_mixtures(path, domains)
    if len(table) != 1:
        raise RunsError(f"{path}: one row is needed, the mixture to beat; there are {len(table)}")
    return {domain: float(table[f"weight_{domain}"].iloc[0]) for domain in domains}


def read_constraints(path: PathLike, domains: Sequence[str]) -> list[Constraint]:
    """Read constraints on a mixture from a TOML file.

    Parameters
    ----------
    path : path-like
        Tables ``[bounds]`` with ``<domain> = [lower, upper]``; ``[fixed]`` with
        ``<domain> = weight``; ``[groups.NAME]`` with ``domains``, ``min``, ``max``;
        ``[token_budget]`` with ``max_epochs`` and ``[token_budget.available]`` with
        ``<domain> = tokens``; ``[kl]`` and ``[l1]`` with ``max`` and ``[kl.reference]``,
        ``[l1.reference]`` with ``<domain> = weight``.
    domains : sequence of str
        The valid names.

    Returns
    -------
    list of Constraint

    Raises
    ------
    RunsError
        Names every problem with the file and the key.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "constraints.toml"
    >>> _ = path.write_text("[bounds]" + chr(10) + "wiki = [0.02, 0.1]")
    >>> read_constraints(path, ["wiki", "web"])
    [Bounds(limits={'wiki': (0.02, 0.1)})]
    """
    tables = _mapping(path, tomllib.loads)
    problems = [
        f"{path}: unknown table {name!r}; valid tables: [{'], ['.join(_TABLES)}]"
        for name in tables
        if name not in _TABLES
    ]
    given = [(name, table) for name, table in tables.items() if name in _TABLES]
    groups = dict(given).pop("groups", {})
    if isinstance(groups, dict):
        given = [pair for pair in given if pair[0] != "groups"]
        given += [(f"groups.{name}", table) for name, table in groups.items()]
    found = []
    for name, table in given:
        wrong = _ill_formed(name, table, domains)
        problems += [f"{path}: {one}" for one in wrong]
        if wrong:
            continue
        constraint = _constraint(name, table)
        try:
            check(constraint, tuple(domains))
        except ValueError as error:
            problems.append(f"{path}: {error}")
        found.append(constraint)
    if problems:
        raise RunsError(*problems)
    return found


# keys that each table may have, and those it must: None where they are domains
_TABLES: dict[str, tuple[set[str], set[str]] | None] = {
    "bounds": None,
    "fixed": None,
    "groups": ({"domains", "min", "max"}, {"domains"}),
    "token_budget": ({"max_epochs", "available"}, {"available"}),
    "kl": ({"max", "reference"}, {"max", "reference"}),
    "l1": ({"max", "reference"}, {"max", "reference"}),
}


def _ill_formed(name: str, table: Any, domains: Sequence[str]) -> list[str]:
    """What is wrong with the form of a table: not a table, keys, kinds of values."""
    if not isinstance(table, dict) and name.startswith("groups."):
        key = name.removeprefix("groups.")
        return [f"groups: each has a table of a name of its own, [groups.NAME]; {key!r} is in none"]
    if not isinstance(table, dict):
        return [f"{name} is a table, [{name}], not {table!r}"]
    keys = _TABLES[name.partition(".")[0]]
    if keys is None:
        wanted = "[lower, upper]" if name == "bounds" else "a weight"
        fits = _is_pair if name == "bounds" else _is_number
        wrong = [
            f"{name}: {key!r}: {value!r} is not {wanted}"
            for key, value in table.items()
            if not fits(value)
        ]
        return wrong + _unknown_names(name, table, domains)
    may, must = keys
    wrong = [
        f"{name}: unknown key {key!r}; valid keys: {', '.join(sorted(may))}"
        for key in table
        if key not in may
    ]
    wrong += [f"{name}: no key {key!r}" for key in sorted(must - set(table))]
    for key, value in table.items():
        if key in ("available", "reference"):
            if not isinstance(value, dict) or not all(map(_is_number, value.values())):
                wrong.append(f"{name}.{key} is a table of numbers by domain, not {value!r}")
            else:
                wrong += _unknown_names(f"{name}.{key}", value, domains)
        elif key == "domains":
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                wrong.append(f"{name}.domains is a list of domains, not {value!r}")
            else:
                wrong += _unknown_names(f"{name}.domains", value, domains)
        elif key in may and not _is_number(value):
            wrong.append(f"{name}.{key}: {value!r} is not a number")
    return wrong


def _constraint(name: str, table: dict[str, Any]) -> Constraint:
    kind, _, member = name.partition(".")
    match kind:
        case "bounds":
            return Bounds({domain: (pair[0], pair[1]) for domain, pair in table.items()})
        case "fixed":
            return Fixed(table)
        case "groups":
            return GroupSum(member, **table)
        case "token_budget":
            return TokenBudget(**table)
        case "kl":
            return KL(**table)
    return L1(**table)


def _unknown_names(place: str, names: Sequence[str] | dict, valid: Sequence[str]) -> list[str]:
    return [
        f"{place}: unknown name {name!r}; valid names: {shorten(valid)}"
        for name in names
        if name not in valid
    ]


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
