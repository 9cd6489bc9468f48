"""The commands, thin: check, read, call, write, and say what happened.

Exit codes: 0 done; 2 bad input, nothing written; 3 (`fit`, `evaluate`, `demo`) done, but the
sampler's diagnostics failed; 130 interrupted, and standard error says what is left: nothing, or
the refits of `evaluate --resume`, or a fit that was written before.
"""

import io
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer.exceptions import TyperException

from bayesmix._cli_data import data, import_
from bayesmix._console import (
    BadInputError,
    InterruptedCommand,
    check_folder,
    check_out,
    complain,
    interruptible,
    leaving,
    plain_warnings,
    rows_done,
    with_value,
)
from bayesmix._options import (
    ConstraintsFile,
    FitFile,
    Horizon,
    MaybeHorizon,
    MaybeSize,
    ObjectiveFile,
    Seed,
    Size,
    WeightResolution,
    probability,
    show_table,
)

# what is slow to import is imported inside the commands
if TYPE_CHECKING:
    from bayesmix.constraints import Constraint
    from bayesmix.posterior import Fit
    from bayesmix.recommend import Recommendation

BAD_INPUT, NOT_CONVERGED = 2, 3

app = typer.Typer(
    help="Bayesian data-mixing scaling laws: mixtures chosen from small runs.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data, name="data")
app.command("import")(import_)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line's by default.

    Returns
    -------
    int
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names are data: a terminal may not have them
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, prog_name="bayesmix", standalone_mode=False)
    except KeyboardInterrupt:
        code = 130
    except InterruptedCommand as error:
        complain("error", f"interrupted; {error}")
        return 130
    except TyperException as error:
        words = sys.argv[1:] if arguments is None else arguments
        complain("error", with_value(error, words))
        return error.exit_code
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        complain("error", f"{place}{error.strerror or error}")
        return BAD_INPUT
    except ValueError as error:
        if not _is_bad_input(error):
            raise
        complain("error", str(error))
        return BAD_INPUT
    if code == 130:
        complain("error", "interrupted; nothing was written")
    return code or 0


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bayesmix {version('bayesmix')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def fit(
    runs: Annotated[Path, typer.Argument(metavar="RUNS.csv", help="The swarm; CSV or Parquet.")],
    out: Annotated[Path, typer.Option(help="The fit, conventionally *.nc.")],
    law: Annotated[str, typer.Option(help="transfer, regression or quantization.")] = "transfer",
    checkpoints: Annotated[
        Literal["late", "last", "all"],
        typer.Option(help="Of each run: at most four over its last 75%, the last, or every one."),
    ] = "late",
    draws: Annotated[int, typer.Option(min=1, help="Draws kept of each chain.")] = 1000,
    tune: Annotated[int, typer.Option(min=1, help="Warm-up draws of each chain.")] = 1000,
    chains: Annotated[int, typer.Option(min=1)] = 4,
    seed: Seed = 0,
    where: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Rows to fit, as in 'n_params < 4e8'.")
    ] = None,
    weight_resolution: WeightResolution = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Say nothing but warnings and errors.")
    ] = False,
) -> int:
    """Sample the posterior of a law, given a swarm."""
    check_out(out, runs)
    from bayesmix import fit as sample
    from bayesmix.discrepancy import evidence
    from bayesmix.law import LAWS
    from bayesmix.replicates import noise_sentence
    from bayesmix.runs import read_runs

    if law not in LAWS:
        raise BadInputError(f"unknown law {law!r}; valid names: {', '.join(LAWS)}")
    with plain_warnings():
        swarm = read_runs(runs, weight_resolution=weight_resolution)
    if where is not None:
        swarm = swarm.where(where)
    swarm = swarm.checkpoints(checkpoints)
    say = (lambda _: None) if quiet else typer.echo
    say(repr(swarm))
    with interruptible():
        fitted = sample(
            swarm,
            law,
            checkpoints="all",
            draws=draws,
            tune=tune,
            chains=chains,
            seed=seed,
            progressbar=not quiet and sys.stderr.isatty(),
        )
    diagnosis = fitted.diagnose()
    fitted.save(out)
    with leaving(f"{out} was written"):
        if diagnosis.passed:
            say(f"The {law} law is fitted. {diagnosis.text}")
        else:
            complain("warning", f"the sampler's diagnostics failed. {diagnosis.text}")
        say(evidence(swarm))
        say(noise_sentence(fitted))
        say(f"wrote {out}")
    return 0 if diagnosis.passed else NOT_CONVERGED


@app.command()
def predict(
    fit: FitFile,
    mixtures: Annotated[
        Path, typer.Argument(metavar="MIXTURES.csv", help="Columns weight_<domain>.")
    ],
    out: Annotated[Path, typer.Option(help="Predictions, a CSV file.")],
    n_params: MaybeSize = None,
    n_tokens: MaybeHorizon = None,
    prob: Annotated[
        float, typer.Option(parser=probability, metavar="P", help="Of the intervals.")
    ] = 0.9,
    no_discrepancy: Annotated[
        bool, typer.Option("--no-discrepancy", help="Leave out the law's own misfit.")
    ] = False,
) -> None:
    """Predict losses of mixtures, with intervals."""
    check_out(out, fit, mixtures)
    from bayesmix._cautions import below_floor, beyond, unseen
    from bayesmix._files import atomic_path
    from bayesmix.posterior import load
    from bayesmix.predict import summaries
    from bayesmix.runs import read_mixtures

    fitted = load(fit)
    scales = {"n_params": n_params, "n_tokens": n_tokens}
    given = {name: value for name, value in scales.items() if value is not None}
    with plain_warnings():
        table = read_mixtures(mixtures, fitted.runs.domains, unused=given)
    for name in table.columns.intersection(list(given)):
        complain("warning", f"{mixtures}: column {name!r} is not used, the option is")
    table = table.assign(**given)
    for name in scales:
        if name not in table:
            option = f"--{name.replace('_', '-')}"
            raise BadInputError(f"{mixtures}: no column {name!r}, and no {option} is given")
    _warn_of_diagnostics(fitted, fit)
    with atomic_path(out) as temporary, rows_done(len(table)) as advance:
        for block in summaries(fitted, table, prob=prob, discrepancy=not no_discrepancy):
            # a heading above the first block alone
            block.to_csv(temporary, index=False, mode="a", header=not temporary.exists())
            advance(block["row"].nunique())
    sizes, horizons = table["n_params"].to_numpy(), table["n_tokens"].to_numpy()
    cautions = *unseen(fitted), *beyond(fitted, sizes, horizons), *below_floor(fitted, sizes)
    for sentence in cautions:
        complain("warning", sentence)
    typer.echo(f"wrote {out}: {len(table)} mixtures, {100 * prob:g}% equal-tailed intervals")


@app.command()
def recommend(
    fit: FitFile,
    out: Annotated[Path, typer.Option(help="The recommendation, a JSON file.")],
    n_params: Size,
    n_tokens: Horizon,
    objective: ObjectiveFile = None,
    risk: Annotated[
        str,
        typer.Option(
            help="mean, quantile:0.9, cvar:0.9, regret, regret:0.9, or prob-below:FILE.csv with "
            "the mixture to beat."
        ),
    ] = "mean",
    constraints: ConstraintsFile = None,
) -> None:
    """Recommend a mixture for a run of a given size and horizon."""
    check_out(out, *(path for path in (fit, objective, constraints) if path))
    from bayesmix._choices import read_baseline
    from bayesmix.posterior import load
    from bayesmix.recommend import recommend as choose
    from bayesmix.risk import parse_risk
    from bayesmix.runs import RunsError

    fitted = load(fit)
    weights, limits = _decision(fitted, n_tokens, objective, constraints)

    def beaten(path: str) -> dict[str, float]:
        check_out(out, Path(path))
        return read_baseline(path, fitted.runs.domains)

    try:
        with plain_warnings():
            measure = parse_risk(risk, beaten)
    except RunsError:
        raise
    except ValueError as error:
        raise BadInputError(str(error)) from None
    chosen = choose(fitted, n_params, n_tokens, objective=weights, risk=measure, constraints=limits)
    for sentence in chosen.warnings:
        complain("warning", sentence)
    chosen.to_json(out)
    _show_recommendation(chosen)
    typer.echo(f"wrote {out}")


@app.command()
def design(
    fit: FitFile,
    candidates: Annotated[
        Path,
        typer.Argument(
            metavar="CANDIDATES.csv",
            help="Runs that could be trained: columns weight_<domain>, n_params, n_tokens, and "
            "flops unless it is 6 N D.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The runs with their values: .csv or .json.")],
    n_params: Size,
    n_tokens: Horizon,
    objective: ObjectiveFile = None,
    constraints: ConstraintsFile = None,
    batch: Annotated[int, typer.Option(min=1, help="Most runs to choose.")] = 8,
    draws: Annotated[int, typer.Option(min=100, help="Posterior draws to use.")] = 1000,
    seed: Seed = 0,
) -> None:
    """Say which runs to train next, for a decision at a given size and horizon."""
    check_out(out, *(path for path in (fit, candidates, objective, constraints) if path))
    if out.suffix.lower() not in (".csv", ".json"):
        raise BadInputError(f"{out}: a design is written to .csv or .json files")
    from bayesmix._files import atomic_path
    from bayesmix.design import design as rank
    from bayesmix.outlook import candidate_table, check_draws
    from bayesmix.posterior import load
    from bayesmix.runs import read_mixtures

    fitted = load(fit)
    weights, limits = _decision(fitted, n_tokens, objective, constraints)
    with plain_warnings():
        table = read_mixtures(candidates, fitted.runs.domains)
    for name in ("n_params", "n_tokens"):
        if name not in table:
            raise BadInputError(f"{candidates}: column {name!r} is missing")
    for path, check in (
        (candidates, lambda: candidate_table(fitted.runs.domains, table)),
        (fit, lambda: check_draws(fitted, draws)),
    ):
        try:
            check()
        except ValueError as error:
            raise BadInputError(f"{path}: {error}") from None
    made = rank(
        fitted,
        table,
        n_params,
        n_tokens,
        objective=weights,
        constraints=limits,
        batch=batch,
        draws=draws,
        seed=seed,
        progressbar=sys.stderr.isatty(),
    )
    for sentence in made.warnings:
        complain("warning", sentence)
    if out.suffix.lower() == ".json":
        made.to_json(out)
    else:
        with atomic_path(out) as temporary:
            made.table.to_csv(temporary, index=False)
    show_table(
        ["buy", "candidate", "N", "D", "FLOPs", "saved so far, nats", "standard error"],
        [
            [i + 1, getattr(run, "run_id", run.candidate), f"{run.n_params:.3g}",
             f"{run.n_tokens:.3g}", f"{run.flops:.2g}", f"{run.value:.2g}",
             f"{run.standard_error:.1g}"]
            for i, run in enumerate(made.batch.itertuples())
        ],
    )  # fmt: skip
    typer.echo(f"{made.stopping}\nwrote {out}")


@app.command()
def evaluate(
    runs: Annotated[Path, typer.Argument(metavar="RUNS.csv", help="The swarm; CSV or Parquet.")],
    split: Annotated[
        Literal["mixture", "largest-scale", "each-scale"],
        typer.Option(help="What is held out: folds of mixtures, the largest size, each size."),
    ],
    out: Annotated[Path, typer.Option(help="The scores, a JSON file.")],
    law: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A law, sampled or a point fit; may be repeated."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Of --split mixture.")] = 5,
    checkpoints: Annotated[
        Literal["late", "last", "all"],
        typer.Option(help="Fitted of each run: at most four over its last 75%, the last, or all."),
    ] = "late",
    draws: Annotated[int, typer.Option(min=1, help="Draws kept of each chain.")] = 1000,
    tune: Annotated[int, typer.Option(min=1, help="Warm-up draws of each chain.")] = 1000,
    chains: Annotated[int, typer.Option(min=1)] = 4,
    seed: Seed = 0,
    where: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Rows to use, as in 'n_params < 4e8'.")
    ] = None,
    weight_resolution: WeightResolution = None,
    no_discrepancy: Annotated[
        bool, typer.Option("--no-discrepancy", help="Leave out the law's own misfit.")
    ] = False,
    bootstrap: Annotated[
        int,
        typer.Option(min=0, help="Refits of each point fit to resampled runs, for its intervals."),
    ] = 0,
    jobs: Annotated[int, typer.Option(help="Refits at once; -1 for one a core.")] = 1,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep finished refits there, and use those found."),
    ] = None,
) -> int:
    """Refit laws without some runs, and score their predictions of those."""
    check_out(out, runs)
    if resume is not None:
        check_folder(resume)
        if resume.resolve() == out.resolve():
            raise BadInputError(f"{out}: the folder of --resume too")
    if jobs == 0 or jobs < -1:
        raise BadInputError(f"--jobs {jobs}: it is 1 or more, or -1 for one a core")
    from bayesmix.evaluate import evaluate as score_laws
    from bayesmix.law import LAWS
    from bayesmix.runs import read_runs
    from bayesmix.splits import ByMixture, ByScale, LargestScale

    splits = {split.name: split for split in (ByMixture(folds, seed), ByScale(), LargestScale())}
    with plain_warnings():
        swarm = read_runs(runs, weight_resolution=weight_resolution)
    if where is not None:
        swarm = swarm.where(where)
    kept = f" (finished refits are kept in {resume})" if resume else ""
    try:
        with leaving(f"{out} was not written{kept}"), interruptible():
            made = score_laws(
                swarm,
                law or ["transfer"],
                splits[split],
                checkpoints=checkpoints,
                draws=draws,
                tune=tune,
                chains=chains,
                seed=seed,
                discrepancy=not no_discrepancy,
                bootstrap=bootstrap,
                n_jobs=jobs,
                cache=resume,
                progressbar=sys.stderr.isatty(),
            )
    except ImportError as error:  # a rival's library, an extra that is not installed
        raise BadInputError(str(error)) from None
    made.to_json(out)
    typer.echo(f"{made!r}\nwrote {out}")
    failed = made.refits[~made.refits["converged"]]
    for refit in failed.itertuples():
        complain("warning", f"{refit.law}, fold {refit.fold}: {refit.diagnosis}")
    sampled = failed["law"].isin(LAWS).sum()
    if sampled:
        complain("warning", f"the sampler's diagnostics failed in {sampled} of the refits")
    return NOT_CONVERGED if sampled else 0


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory for what is made.")] = Path("demo-out"),
) -> int:
    """Fit a bundled swarm, predict and recommend at ten times its scale."""
    check_folder(out)
    from bayesmix.demo import demo as run

    made = run(out, say=typer.echo, progressbar=sys.stderr.isatty())
    for sentence in made.recommendation.warnings:
        complain("warning", sentence)
    _show_recommendation(made.recommendation)
    typer.echo("\n".join(f"wrote {file}" for file in made.files))
    if not made.diagnosis.passed:
        complain("warning", f"the sampler's diagnostics failed. {made.diagnosis.text}")
    return 0 if made.diagnosis.passed else NOT_CONVERGED


def _is_bad_input(error: ValueError) -> bool:
    from bayesmix.optima import InfiniteObjectiveError
    from bayesmix.posterior import FitFileError
    from bayesmix.runs import RunsError

    return isinstance(error, BadInputError | FitFileError | InfiniteObjectiveError | RunsError)


def _decision(
    fitted: "Fit", n_tokens: float, objective: Path | None, constraints: Path | None
) -> tuple[dict[str, float] | None, "list[Constraint]"]:
    """What is minimised, and under which constraints, from their files."""
    from bayesmix._choices import read_constraints, read_objective
    from bayesmix.feasible import feasible_set
    from bayesmix.objective import resolve_objective

    domains = fitted.runs.domains
    weights = read_objective(objective, fitted.components) if objective else None
    limits = read_constraints(constraints, domains) if constraints else []
    try:
        resolve_objective(fitted.components, fitted.observed_components, weights)
    except ValueError as error:
        raise BadInputError(str(error)) from None
    try:
        feasible_set(limits, domains, n_tokens)
    except ValueError as error:
        raise BadInputError(f"{constraints}: {error}") from None
    return weights, limits


def _warn_of_diagnostics(fitted: "Fit", path: Path) -> None:
    diagnosis = fitted.diagnose()
    if not diagnosis.passed:
        complain("warning", f"{path}: the sampler's diagnostics failed. {diagnosis.text}")


def _show_recommendation(chosen: "Recommendation") -> None:
    """Print the weights beside how far the draws' own optima spread, and what else to know."""
    show_table(
        ["domain", "weight", "optima of the draws, 90% equal-tailed", "at bound"],
        [
            [row.domain, f"{row.weight:.3f}", f"{row.optima_lower:.3f} to {row.optima_upper:.3f}",
             row.active]
            for row in chosen.table().itertuples()
        ],
    )  # fmt: skip
    typer.echo("\n".join(chosen.sentences()))
