"""Runs that could be trained, and the run to decide on, under the same posterior draws.

What a candidate's losses would be, how noisy they are, and what the objective at the target is:
all that `design` needs of the law.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from bayesmix._tables import number
from bayesmix.discrepancy import discrepancy_draws
from bayesmix.draws import law_draws, losses
from bayesmix.feasible import FEASIBLE, FeasibleSet
from bayesmix.model import observed_log_loss, weight_doubt
from bayesmix.noise import at_printed_zeros, scale_and_dof
from bayesmix.objective import Problem, problem
from bayesmix.optima import draw_optima, mean_optimum
from bayesmix.posterior import Fit
from bayesmix.predict import mixture_table
from bayesmix.runs import Runs, equal_points, floor_weights, runs_from_frame

_FLOPS = 6  # per parameter and token (Kaplan et al., arXiv 2001.08361, section 2.1)
_FEWEST = 100  # draws
_OPTIMA = 200  # draws whose own optimum is found, for the regret
_TOWARDS = 24  # of them, towards which choices lie
_STEPS = (0.125, 0.25, 0.5, 1.0)  # of the way there
_MISFIT_SHARE = 0.5  # of the noise, between runs that repeat a mixture, where no data tell


@dataclass(frozen=True)
class Outlook:
    """Candidates and target under S draws.

    Attributes
    ----------
    problem : Problem
        The objective at the target.
    doubt : array, shape (R, C)
        About the log of each domain's own weight: see `model.weight_doubt`.
    log_losses : array, shape (S, R, C)
        Of the candidates without their runs' noise: law and discrepancy.
    seen : array, shape (R, C)
        Whether the loss would be known: not where the swarm has none, or the law's is infinite.
    draws : mapping
        What `draws.law_draws` gives.
    same : array, shape (R,)
        Code of the (mixture, N) of each candidate.
    before : array, shape (R,)
        How many runs of it the swarm has.
    misfit_share : float
        Of the variance of a loss's own noise, what runs of one mixture and N have in common.
    """

    problem: Problem
    doubt: np.ndarray
    log_losses: np.ndarray
    seen: np.ndarray
    draws: Mapping[str, np.ndarray]
    same: np.ndarray
    before: np.ndarray
    misfit_share: float

    def outcomes(self, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Log losses of some candidates together, and the covariance of their noise.

        A t error counts as the normal one that tells as much of its centre: of variance
        ``sigma^2 (dof + 3) / (dof + 1)``, the inverse of its Fisher information; that a run may be
        an outlier takes its mean share of it. The (n + 1)-th run of one mixture and N counts for
        what n + 1 of them tell beyond n.

        Returns
        -------
        losses : array, shape (S, P)
            P losses that would be known.
        noise : array, shape (P, P)
        """
        scale, dof = self._noise(rows)
        # the mean of exp(-2 o), where o is exponential
        kept = 1 / (1 + 2 * self.draws["outlier_scale"][:, None, None])
        own = (scale**2 * (dof + 3) / (dof + 1) / kept).mean(axis=0)
        common = np.sqrt((self.draws["common"] ** 2).mean(axis=0))
        share, losses, noise = self.misfit_share, [], []
        for place, row in enumerate(rows):
            seen = self.seen[row]
            n = self.before[row] + sum(self.same[row] == self.same[other] for other in rows[:place])
            # n runs tell as much as n / (1 + (n - 1) share) independent ones
            more = (1 + n * share) * (1 + (n - 1) * share) / (1 - share)
            losses.append(self.log_losses[:, row, seen])
            noise.append(np.diag(own[place, seen] * more) + np.outer(common[seen], common[seen]))
        return np.concatenate(losses, axis=1), block_diag(*noise)

    def simulated(self, draw: int, rows: Sequence[int], rng: np.random.Generator) -> np.ndarray:
        """Losses (P, C) that runs of some candidates might have under a draw; blank if not seen."""
        scale, dof = (values[draw] for values in self._noise(rows))
        wider = self.draws["outlier_scale"][draw] * rng.exponential(size=(len(scale), 1))
        # runs of one mixture and N share the scale, and a part of the error
        first, group = np.unique(self.same[rows], return_index=True, return_inverse=True)[1:]
        shared, wide = rng.normal(size=dof[first].shape), rng.chisquare(dof[first]) / dof[first]
        share = self.misfit_share
        noise = np.sqrt(share) * shared[group] + np.sqrt(1 - share) * rng.normal(size=dof.shape)
        noise *= scale * np.exp(wider) / np.sqrt(wide[group])
        noise += self.draws["common"][draw] * rng.normal(size=(len(scale), 1))
        return np.where(self.seen[rows], np.exp(self.log_losses[draw, rows] + noise), np.nan)

    def _noise(self, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Scale and degrees of freedom of what each loss has of its own, shape (S, P, C)."""
        return scale_and_dof(self.draws, self.doubt[rows])


def outlook(
    fit: Fit,
    table: pd.DataFrame,
    n_params: float,
    n_tokens: float,
    objective: Mapping[str, float],
    *,
    worst: bool = False,
    draws: int = 1000,
    seed: int = 0,
) -> Outlook:
    """What every draw says about candidates and, with the same misfit, about the target.

    Candidates' weights are read as the swarm's are, to which they would be added: a 0 is a printed
    one where its weights were printed.

    Parameters
    ----------
    fit : Fit
    table : DataFrame
        As from `candidate_table`.
    n_params, n_tokens : float
        N (parameters) and D (tokens) of the target.
    objective : mapping
        {component: weight}.
    worst : bool
        Whether the objective is the greatest of the weighted losses.
    draws : int
        At most so many, evenly spaced.
    seed : int
        Of the discrepancy.

    Raises
    ------
    ValueError
        If there are fewer than 100 draws.
    """
    check_draws(fit, draws)
    of = problem(fit, n_params, n_tokens, objective, worst=worst, seed=seed).thinned(draws)
    kept = law_draws(fit.posterior["posterior"].to_dataset(), most=draws)
    weights = table[[f"weight_{domain}" for domain in fit.runs.domains]].to_numpy(float)
    sizes, horizons = (table[name].to_numpy(float) for name in ("n_params", "n_tokens"))
    misfit = discrepancy_draws(
        fit.runs,
        kept,
        np.r_[n_params, sizes],
        np.r_[n_tokens, horizons],
        np.random.default_rng(seed),
    )
    counted = np.array([float(objective.get(name, 0.0)) for name in fit.components])
    resolution = fit.runs.weight_resolution
    expected = losses(kept, fit.law, floor_weights(weights, resolution), sizes, horizons)
    expected *= at_printed_zeros(kept["zero_shift"], weights, resolution)
    log_losses = np.log(expected) + misfit[:, 1:]
    known = np.isfinite(observed_log_loss(fit.runs)).any(axis=0)
    same, before = _repeats(fit.runs, weights, sizes)
    posterior = fit.posterior["posterior"]
    return Outlook(
        replace(of, objective=counted * np.exp(misfit[:, 0])),
        weight_doubt(weights, resolution, len(fit.components)),
        log_losses,
        known & np.isfinite(log_losses).all(axis=0),
        kept,
        same,
        before,
        float(posterior["phi"].mean()) if "phi" in posterior else _MISFIT_SHARE,
    )


def check_draws(fit: Fit, draws: int) -> None:
    """Refuse fewer draws than a value of information takes."""
    sizes = fit.posterior["posterior"].sizes
    used = min(draws, sizes["chain"] * sizes["draw"])
    if used < _FEWEST:
        raise ValueError(f"a value of information takes {_FEWEST} draws or more, got {used}")


def candidate_table(domains: tuple[str, ...], candidates: pd.DataFrame) -> pd.DataFrame:
    """Candidates, checked, with what each costs.

    Parameters
    ----------
    domains : tuple of str
    candidates : DataFrame
        ``weight_<domain>`` of every domain, ``n_params`` (parameters), ``n_tokens`` (tokens), and
        where known ``flops``.

    Returns
    -------
    DataFrame
        The same, weights normalised, ``flops`` 6 N D where it was not given.

    Raises
    ------
    ValueError
        If there is none, or one is not valid.

    Examples
    --------
    >>> one = pd.DataFrame({"weight_web": [0.7], "weight_code": [0.3], "n_params": 1e8})
    >>> candidate_table(("web", "code"), one.assign(n_tokens=2e9))["flops"].item()
    1.2e+18
    """
    if not len(candidates):
        raise ValueError("there is no candidate")
    table = mixture_table(domains, candidates, None, None)
    cost = (_FLOPS * table["n_params"] * table["n_tokens"]).to_numpy(float, copy=True)
    for row, cell in enumerate(table.get("flops", ())):
        try:
            given = number(cell)
        except ValueError:
            given = -math.inf
        if not math.isnan(given):
            cost[row] = given
        if not (math.isfinite(cost[row]) and cost[row] > 0):
            raise ValueError(
                f"candidate {row + 1}: flops must be positive and finite, got {cell!r}"
            )
    return table.assign(flops=cost)


def towards_optima(
    fit: Fit, of: Problem, allowed: FeasibleSet, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Mixtures between the best by what is known and the optima of draws.

    Returns
    -------
    choices : array, shape (M, K)
        The present best first; the swarm's best among the others, where it is allowed.
    regret : float
        By how much the first is expected to miss a draw's own optimum, nats.

    Raises
    ------
    ValueError
        If none of them is allowed and has a finite objective.
    """
    observed = np.unique(fit.runs.effective_weights().values, axis=0)
    best = mean_optimum(of, observed.mean(axis=0, keepdims=True), allowed, rng)[0]
    few, h = of.thinned(_OPTIMA), best.minima.points
    optima = draw_optima(few, h, allowed, best.multipliers[0])
    ends = optima.points[np.linspace(0, few.n_draws - 1, _TOWARDS).astype(int)]
    # constraints are convex, and so hold on the way
    between = [h + step * (ends - h) for step in _STEPS]
    observed = observed[allowed.violation(observed) <= FEASIBLE]
    if len(observed):
        observed = observed[[np.argmin(few.values(observed).mean(axis=0))]]
    choices = _best_first(of, allowed, np.concatenate([h, *between, observed]))[0]
    regret = float((few.values(choices[:1])[:, 0] - optima.values).mean())
    return choices, max(regret, 0.0)


def given_choices(
    fit: Fit, of: Problem, allowed: FeasibleSet, table: pd.DataFrame
) -> tuple[np.ndarray, float]:
    """Likewise of mixtures that are given, of which the best of each draw is its optimum.

    Raises
    ------
    ValueError
        If none of them is allowed and has a finite objective.
    """
    named = mixture_table(fit.runs.domains, table, of.n_params, of.n_tokens)
    choices = named[[f"weight_{domain}" for domain in fit.runs.domains]].to_numpy(float)
    choices, values = _best_first(of, allowed, choices)
    return choices, float(values[:, 0].mean() - values.min(axis=1).mean())


def _best_first(
    of: Problem, allowed: FeasibleSet, choices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The choices that are allowed and have a finite objective, by its mean, and its values."""
    values = of.values(choices)
    kept = np.isfinite(values).all(axis=0) & (allowed.violation(choices) <= FEASIBLE)
    if not kept.any():
        raise ValueError("none of the choices meets the constraints and has a finite objective")
    choices, values = choices[kept], values[:, kept]
    order = np.argsort(values.mean(axis=0), kind="stable")
    return choices[order], values[:, order]


def with_runs(runs: Runs, table: pd.DataFrame, losses: np.ndarray) -> Runs:
    """A swarm with candidates added as if they had been run, losses (P, C) in nats per token."""
    names = [f"loss_{domain}" for domain in runs.domains]
    names += [f"target_{target}" for target in runs.targets]
    new = table[["n_params", "n_tokens", *(f"weight_{domain}" for domain in runs.domains)]]
    new = new.assign(run_id=[f"simulated {runs.n_runs + i + 1}" for i in range(len(new))])
    new[names] = losses
    frame = pd.concat([runs.frame, new[[name for name in new if name in runs.frame]]])
    return runs_from_frame(
        frame.reset_index(drop=True),
        source=runs.source,
        weight_resolution=runs.weight_resolution,
    )


def _repeats(
    runs: Runs, weights: np.ndarray, n_params: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Code of each candidate's (mixture, N), and how many runs of the swarm have it."""
    first = np.unique(runs.run_ids.values, return_index=True)[1]
    size = np.concatenate([n_params, runs.n_params.values[first]])
    mixtures = np.concatenate([weights, runs.weights.values[first]])
    code = equal_points(mixtures, np.log(size))
    same, existing = code[: len(weights)], code[len(weights) :]
    return same, (same[:, None] == existing).sum(axis=1)
