"""What options and arguments of the commands mean, and how tables are printed."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer


def positive(text: str) -> float:
    """A number of parameters or tokens."""
    value = _number(text)
    if not (value > 0 and math.isfinite(value)):
        raise typer.BadParameter(f"{text!r} is not a positive number, such as 7e9")
    return value


def probability(text: str) -> float:
    """A number between 0 and 1."""
    value = _number(text)
    if not 0 < value < 1:
        raise typer.BadParameter(f"{text!r} is not between 0 and 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


Size = Annotated[float, typer.Option(parser=positive, metavar="N", help="Parameters: 7e9.")]
Horizon = Annotated[float, typer.Option(parser=positive, metavar="D", help="Tokens: 1.4e11.")]
MaybeSize = Annotated[
    float | None, typer.Option(parser=positive, metavar="N", help="Parameters: 7e9.")
]
MaybeHorizon = Annotated[
    float | None, typer.Option(parser=positive, metavar="D", help="Tokens: 1.4e11.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1)]
WeightResolution = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        help="Weights below it were printed as 0, half a unit of their last decimal; 0: zeros are "
        "exact. Inferred by default.",
    ),
]
FitFile = Annotated[Path, typer.Argument(metavar="FIT.nc", help="What `bayesmix fit` wrote.")]
ObjectiveFile = Annotated[
    Path | None,
    typer.Option(help="Weights of losses: .json or .toml {name: weight}, or .csv name,weight."),
]
ConstraintsFile = Annotated[
    Path | None,
    # a bracket would else be rich's markup
    typer.Option(help=r"TOML: \[bounds], \[fixed], \[groups.NAME], \[token_budget], \[kl], \[l1]."),
]


def show_table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
    """Print a table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*map(str, header))
    for row in rows:
        table.add_row(*map(str, row))
    # names are data: a bracket in one is no markup
    Console(markup=False, emoji=False).print(table)
