"""The commands about tables of runs: `import`, `data list`, `data fetch`."""

from pathlib import Path
from typing import Annotated

import typer

from bayesmix._console import BadInputError, check_out, plain_warnings
from bayesmix._options import MaybeHorizon, MaybeSize, show_table

data = typer.Typer(help="Swarms: bundled, and published by others.")


def import_(
    kind: Annotated[
        str, typer.Argument(metavar="FORMAT", help="regmix, paper, olmix or mixinglaws.")
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    out: Annotated[Path, typer.Option(help="The swarm, .csv or .parquet.")],
    n_params: MaybeSize = None,
    n_tokens: MaybeHorizon = None,
    domains: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Domains that the files do not name.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Put before every run's name.")] = None,
) -> None:
    """Turn another project's tables into a swarm that `bayesmix fit` reads."""
    _check_table(out, *files)
    from bayesmix.readers import import_runs
    from bayesmix.runs import write_runs

    with plain_warnings():
        swarm = import_runs(
            kind,
            files,
            n_params=n_params,
            n_tokens=n_tokens,
            domains=None if domains is None else [name.strip() for name in domains.split(",")],
            prefix=prefix,
        )
    write_runs(swarm, out)
    typer.echo(f"{swarm!r}\nwrote {out}")


@data.command("list")
def list_() -> None:
    """List the swarms."""
    from bayesmix.datasets import list_datasets

    # licences, too long for a column, come with the download
    listed = list_datasets()[["name", "source", "runs", "domains", "description"]]
    show_table(listed.columns, listed.to_numpy())


@data.command("fetch")
def fetch_(
    name: Annotated[str, typer.Argument(help="A published swarm, as `bayesmix data list` says.")],
    out: Annotated[
        Path | None, typer.Option(help="The swarm, .csv or .parquet; NAME.csv by default.")
    ] = None,
) -> None:
    """Download a published swarm, after its licence and citation, and write it as a table."""
    from bayesmix.datasets import fetch_dataset
    from bayesmix.published import PUBLISHED
    from bayesmix.runs import write_runs

    if name not in PUBLISHED:
        raise BadInputError(f"unknown dataset {name!r}; published: {', '.join(PUBLISHED)}")
    path = out or Path(f"{name}.csv")
    _check_table(path)
    with plain_warnings():
        swarm = fetch_dataset(name, say=typer.echo)
    write_runs(swarm, path)
    typer.echo(f"{swarm!r}\nwrote {path}")


def _check_table(out: Path, *inputs: Path) -> None:
    check_out(out, *inputs)
    if out.suffix.lower() not in (".csv", ".parquet", ".pq"):
        raise BadInputError(f"{out}: runs are written to .csv or .parquet files")
