"""What to run next: the candidates that lower the regret of a decision most per FLOP.

A run teaches what its losses say about the mixtures among which is chosen at the target N and D.
Under every posterior draw both are known, so `information` weighs draws by losses that the run
might have, and asks how much better the choice would become. A run's noise, and the law's misfit
over scales, which the target shares in part, are in the losses.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bayesmix._cautions import below_floor, doubts
from bayesmix._next_runs import Design, doubtful, per_cost
from bayesmix.constraints import Constraint
from bayesmix.feasible import feasible_set
from bayesmix.fit import fit as sample
from bayesmix.information import Information, information
from bayesmix.model import MODEL_VERSION
from bayesmix.objective import Objective, check_sizes, problem, resolve_objective
from bayesmix.outlook import (
    candidate_table,
    given_choices,
    outlook,
    towards_optima,
    with_runs,
)
from bayesmix.posterior import Fit
from bayesmix.reference import replaced_priors
from bayesmix.runs import Runs

__all__ = ["Design", "Refitted", "design", "refit_value"]

_ROUNDING = 1e-12  # nats: a value that is none
_PATIENCE = 2.0  # seconds before a bar shows


def design(
    fit: Fit,
    candidates: pd.DataFrame,
    n_params: float,
    n_tokens: float,
    *,
    objective: Objective | None = None,
    constraints: Sequence[Constraint] = (),
    choices: pd.DataFrame | None = None,
    batch: int = 8,
    draws: int = 1000,
    seed: int = 0,
    progressbar: bool = True,
) -> Design:
    """Rank runs that could be trained by what they would save at N and D, and choose a batch.

    The decision is the mixture of least posterior mean among finitely many: by default those
    between the present recommendation and the optima of draws. A batch is chosen greedily: each
    run is the one that adds most per FLOP to what is bought already, the outcomes of all taken
    together.

    Parameters
    ----------
    fit : Fit
        A sampled posterior.
    candidates : DataFrame
        One line a run that could be trained: ``weight_<domain>`` of every domain, ``n_params``
        (parameters), ``n_tokens`` (tokens), and where known ``flops`` (6 N D by default); others
        are carried through. To offer the same run twice, list it twice.
    n_params, n_tokens : float
        N (parameters) and D (tokens) of the run to decide on.
    objective : mapping or Worst, optional
        As in `recommend`.
    constraints : sequence of Constraint
        On the mixture that is decided on, not on candidates.
    choices : DataFrame, optional
        Mixtures to decide among, if not any will do: ``weight_<domain>`` of every domain.
    batch : int
        Most runs to choose; fewer where no more would help.
    draws : int
        At most so many posterior draws, evenly spaced; at least 100.
    seed : int
        Of the simulated losses, the discrepancy and the random starts.
    progressbar : bool
        Show one when it takes more than two seconds.

    Returns
    -------
    Design

    Raises
    ------
    ValueError
        As `recommend`; if candidates lack a domain, a size or a horizon, if a cost is not
        positive, if there are too few draws, or none of the choices meets the constraints.

    Examples
    --------
    Before any loss is seen, with the priors' draws for a fit:

    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> runs = load_dataset("simulated")
    >>> made = design(prior_fit(runs), runs.frame.head(3), 4e9, 8e10, batch=1)
    >>> [f"{flops:.2g}" for flops in made.table["flops"]]
    ['1.5e+17', '3e+17', '1.5e+17']
    """
    check_sizes(n_params, n_tokens)
    wanted, worst = resolve_objective(fit.components, fit.observed_components, objective)
    if batch < 1:
        raise ValueError(f"batch must be 1 or more, got {batch!r}")
    table = candidate_table(fit.runs.domains, candidates)
    allowed = feasible_set(constraints, fit.runs.domains, n_tokens)
    look = outlook(fit, table, n_params, n_tokens, wanted, worst=worst, draws=draws, seed=seed)
    rng = np.random.default_rng(seed)
    if choices is None:
        mixtures, regret = towards_optima(fit, look.problem, allowed, rng)
    else:
        mixtures, regret = given_choices(fit, look.problem, allowed, choices)
    values = look.problem.values(mixtures)
    # the same noise for all that are compared, and whatever the batch
    most = min(batch, len(table)) * len(fit.components)
    normal = rng.normal(size=(most, len(values))).T

    def worth(rows: Sequence[int], *, check: bool) -> Information:
        losses, noise = look.outcomes(rows)
        return information(losses, noise, values, normal[:, : losses.shape[1]], check=check)

    with _progress(len(table) * min(batch, len(table)), progressbar) as counted:
        alone = [counted(worth([row], check=True)) for row in range(len(table))]
        bought, together = _buy(worth, alone, table["flops"].to_numpy(), batch, counted)
    found = pd.DataFrame([_line(one) for one in alone])
    found.insert(2, "value_per_flop", per_cost(found["value"], table["flops"]))
    found["bought"] = pd.Series(range(1, len(bought) + 1), index=bought, dtype="Int64")
    # an earlier design's columns are not carried through
    table = pd.concat([table.drop(columns=list(found), errors="ignore"), found], axis=1)
    shown = [name for name in ("run_id", "n_params", "n_tokens", "flops") if name in table]
    lines = pd.DataFrame([_line(one) for one in together], columns=list(_line(alone[0])))
    chosen = pd.concat([table.loc[bought, shown].reset_index(names="candidate"), lines], axis=1)
    return Design(
        table=table,
        batch=chosen,
        choices=xr.DataArray(mixtures, {"domain": list(fit.runs.domains)}, ("choice", "domain")),
        regret=regret,
        objective=wanted,
        worst=worst,
        warnings=(
            *doubts(fit, wanted, n_params, n_tokens),
            *below_floor(fit, table["n_params"].to_numpy()),
            *doubtful(table, chosen),
        ),
        provenance={
            "n_params": float(n_params),
            "n_tokens": float(n_tokens),
            "law": fit.law,
            "seed": seed,
            "draws": look.problem.n_draws,
            "runs": fit.runs.source,
            "runs_hash": fit.runs.hash,
            "model_version": MODEL_VERSION,
        },
    )


class Refitted(NamedTuple):
    """What `refit_value` found.

    Attributes
    ----------
    value : float
        By how much the objective that is chosen fell, nats, the mean over outcomes.
    standard_error : float
    gains : array, shape (outcomes,)
    """

    value: float
    standard_error: float
    gains: np.ndarray


def refit_value(
    made: Design,
    fit: Fit,
    rows: Sequence[int] | None = None,
    *,
    outcomes: int = 8,
    refit: Callable[[Runs], Fit] | None = None,
    seed: int = 0,
) -> Refitted:
    """The value of some runs by refits to losses that they might have: where weights fail.

    For each outcome a posterior draw is taken for the truth, its losses are added to the swarm,
    and the choice that the refit makes is scored by that truth. It is exact on average, and
    takes many outcomes to be precise.

    Parameters
    ----------
    made : Design
    fit : Fit
        That the design was made from.
    rows : sequence of int, optional
        Lines of `Design.table`; the batch by default.
    outcomes : int
        Refits, at least 2.
    refit : callable, optional
        From a swarm to its fit; by default NUTS with two short chains.
    seed : int
        Of the draws and the noise.

    Returns
    -------
    Refitted

    Raises
    ------
    ValueError
        If there are fewer than 2 outcomes, or no runs.

    Examples
    --------
    The priors' draws stand for the fit and for its refits; without `refit` these are sampled:

    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> runs = load_dataset("simulated")
    >>> fit = prior_fit(runs, draws=100)
    >>> made = design(fit, runs.frame.head(3), 4e9, 8e10, batch=1)
    >>> found = refit_value(made, fit, rows=[0, 2], outcomes=3, refit=prior_fit)
    >>> found.gains.shape, bool(found.value == found.gains.mean())
    ((3,), True)
    """
    rows = made.batch["candidate"].tolist() if rows is None else list(rows)
    if outcomes < 2 or not rows:
        raise ValueError(f"2 outcomes and 1 run are needed, got {outcomes} and {len(rows)}")
    at, goal = made.provenance, made.objective
    target = at["n_params"], at["n_tokens"], goal
    look = outlook(fit, made.table, *target, worst=made.worst, draws=at["draws"], seed=at["seed"])
    choices = made.choices.values
    truths = look.problem.values(choices)
    rng = np.random.default_rng(seed)
    gains = []
    for draw in rng.choice(look.problem.n_draws, outcomes, replace=outcomes > len(truths)):
        runs = with_runs(fit.runs, made.table.iloc[rows], look.simulated(draw, rows, rng))
        new = _short_fit(runs, fit) if refit is None else refit(runs)
        means = problem(new, *target, worst=made.worst).values(choices).mean(axis=0)
        gains.append(truths[draw, 0] - truths[draw, means.argmin()])
    return Refitted(
        float(np.mean(gains)), float(np.std(gains, ddof=1) / np.sqrt(outcomes)), np.array(gains)
    )


def _short_fit(runs: Runs, like: Fit) -> Fit:
    """A fit by the same law and replaced priors, of two short chains."""
    return sample(
        runs,
        like.law,
        priors=replaced_priors(like.priors, like.runs, like.law),
        groups=like.groups,
        checkpoints="all",
        draws=250,
        tune=250,
        chains=2,
        progressbar=False,
    )


def _buy(
    worth: Callable[..., Information],
    alone: Sequence[Information],
    flops: np.ndarray,
    batch: int,
    counted: Callable[[Information], Information],
) -> tuple[list[int], list[Information]]:
    """Runs in the order of buying, and what each and all before it are worth together."""
    bought: list[int] = []
    together: list[Information] = []
    left = dict(enumerate(alone))
    while len(bought) < batch and left:
        so_far = together[-1].value if together else 0.0
        gains = {row: one.value - so_far for row, one in left.items()}
        per_flop = {row: gain / flops[row] for row, gain in gains.items()}
        best = max(per_flop, key=per_flop.__getitem__)
        if gains[best] <= _ROUNDING:
            break
        bought.append(best)
        together.append(worth(bought, check=True))
        del left[best]
        if len(bought) < batch:
            left = {row: counted(worth([*bought, row], check=False)) for row in left}
    return bought, together


def _line(found: Information) -> dict[str, float | bool]:
    return {**found._asdict(), "trusted": found.trusted}


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[Information], Information]]:
    """Count values as they are found, on a bar that shows when patience is over."""
    begun = time.monotonic()
    columns = TextColumn("values"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=Console(stderr=True), disable=not shown)
    task = bar.add_task("values", total=total)

    def counted(found: Information) -> Information:
        if time.monotonic() - begun > _PATIENCE and not bar.live.is_started:
            bar.start()
        bar.advance(task)
        return found

    try:
        yield counted
    finally:
        if bar.live.is_started:
            bar.stop()
