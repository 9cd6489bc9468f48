"""The mixture to train: what minimises the posterior mean of an objective, and how sure that is.

The objective is a weighted sum of losses at the target N and D. Two optima are found, both on the
simplex with bounds and with the law's exact gradients: that of the posterior mean, which is
recommended, and that of every posterior draw, whose spread says what the posterior does not know.
"""

import math
import platform
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix._recommendation import Recommendation, weighted
from bayesmix.fit import Fit
from bayesmix.model import MODEL_VERSION, components, observed_domains
from bayesmix.objective import Problem, problem
from bayesmix.optima import draw_optima, inside, mean_optimum
from bayesmix.optimise import minimise
from bayesmix.predict import predict_at
from bayesmix.runs import Runs

__all__ = ["Recommendation", "recommend"]

TOLERANCE = 1e-6  # on the KKT residual, nats per unit of weight
_RANKING_DRAWS = 500  # by which the best observed run is chosen
_ACTIVE = 1e-9  # a weight this close to its bound rests on it
_NOTABLE = 1e-3  # outside the weights tried by less than this goes unsaid
_PACKAGES = ("bayesmix", "numpy", "numba", "xarray", "pymc")


def recommend(
    fit: Fit,
    n_params: float,
    n_tokens: float,
    *,
    objective: Mapping[str, float] | None = None,
    lower: Mapping[str, float] | float | None = None,
    upper: Mapping[str, float] | float | None = None,
    seed: int = 0,
) -> Recommendation:
    """The mixture that minimises the posterior mean of an objective at N and D.

    Weights are exact: a domain at 0 has no tokens, whatever resolution the swarm's weights were
    printed to.

    Parameters
    ----------
    fit : Fit
        A sampled posterior.
    n_params, n_tokens : float
        N (parameters) and D (tokens) of the run to come.
    objective : mapping, optional
        Non-negative weights of losses, {domain or ``target:<name>``: weight}; by default the mean
        over the domains with observed losses.
    lower, upper : mapping or float, optional
        Bounds on the mixture's weights: {domain: value}, or one value for every domain.
    seed : int
        Of the random starts, the discrepancy and the run noise.

    Returns
    -------
    Recommendation

    Raises
    ------
    ValueError
        If names are unknown, weights negative or all zero, N or D not positive, bounds clash, or
        no feasible mixture has a finite objective.
    """
    for name, size in {"n_params": n_params, "n_tokens": n_tokens}.items():
        if not (math.isfinite(size) and size > 0):
            raise ValueError(f"{name} must be positive and finite, got {size!r}")
    wanted = checked_objective(fit.runs, objective)
    low, high = checked_bounds(fit.runs.domains, lower, upper)
    at_target = problem(fit, n_params, n_tokens, wanted)
    row, known = _known_mixtures(fit, at_target)
    best, starts, agreed = mean_optimum(at_target, known, low, high, np.random.default_rng(seed))
    optima = draw_optima(at_target, np.stack([best.points[0], known[0], known[2]]), low, high)
    # the draws' own optima may lie in a basin that the search missed
    centre = inside(optima.points.mean(axis=0, keepdims=True), low, high)
    again = minimise(at_target.of_mean(), centre, low, high)
    if again.values[0] < best.values[0]:
        best = again
    h = best.points[0]

    # the discrepancy multiplies every loss alike in the mean, and so moves no optimum
    at = pd.DataFrame({"n_params": float(n_params), "n_tokens": float(n_tokens)}, index=range(3))
    losses = predict_at(fit, h[None], at[:1], seed=seed)
    theirs = predict_at(fit, known, at, seed=seed)
    loss = weighted(losses.draws["expected"], wanted).isel(row=0, drop=True)
    difference = loss - weighted(theirs.draws["expected"], wanted).rename(row="baseline")
    names = list(fit.runs.domains)
    active = np.where(h <= low + _ACTIVE, "lower", np.where(h >= high - _ACTIVE, "upper", ""))
    convergence = {
        "residual": float(best.residuals[0]),
        "starts": starts,
        "agreed": agreed,
        "draws_residual": float(optima.residuals.max()),
        "draws_converged": float((optima.residuals <= TOLERANCE).mean()),
    }
    return Recommendation(
        weights=xr.DataArray(h, {"domain": names}, "domain", "weights"),
        loss=loss.assign_attrs(units="nats per token"),
        losses=losses,
        optima=xr.DataArray(optima.points, {"domain": names}, ("draw", "domain"), "optima"),
        objective=wanted,
        bounds=xr.Dataset(
            {"lower": ("domain", low), "upper": ("domain", high), "active": ("domain", active)},
            {"domain": names},
        ),
        baselines=xr.Dataset(
            {
                "weights": (("baseline", "domain"), known),
                "difference": (difference.dims, difference.values),
            },
            {
                "baseline": ["uniform", "best_observed", "swarm_mean"],
                "run_id": ("baseline", ["", str(fit.runs.run_ids.values[row]), ""]),
                "domain": names,
            },
        ),
        warnings=(
            *_doubts(fit, wanted, n_params, n_tokens),
            *_outside(fit, h),
            *_unfinished(convergence),
        ),
        convergence=convergence,
        provenance={
            "n_params": float(n_params),
            "n_tokens": float(n_tokens),
            "law": fit.law,
            "seed": seed,
            "draws": at_target.n_draws,
            "runs": fit.runs.source,
            "runs_hash": fit.runs.hash,
            "model_version": MODEL_VERSION,
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in _PACKAGES},
            },
        },
    )


def checked_objective(runs: Runs, objective: Mapping[str, float] | None) -> dict[str, float]:
    """The objective's weights, checked; the mean over observed domains by default."""
    known = components(runs)
    valid = ", ".join(known)
    if objective is None:
        names = observed_domains(runs)
        if not names:
            raise ValueError(f"no domain has observed losses: give an objective over {valid}")
        return dict.fromkeys(names, 1 / len(names))
    unknown = [name for name in objective if name not in known]
    if unknown:
        raise ValueError(
            f"unknown name {', '.join(map(repr, unknown))} in the objective; valid names: {valid}"
        )
    weights = {name: float(weight) for name, weight in objective.items()}
    wrong = [f"{n!r}: {w:g}" for n, w in weights.items() if not (w >= 0 and math.isfinite(w))]
    if wrong:
        raise ValueError(f"the objective's weights must be 0 or more, got {', '.join(wrong)}")
    if not any(weights.values()):
        raise ValueError(f"no weight of the objective is above 0; valid names: {valid}")
    return weights


def checked_bounds(
    domains: tuple[str, ...],
    lower: Mapping[str, float] | float | None,
    upper: Mapping[str, float] | float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of every domain, each of shape (K,); an empty feasible set is an error."""
    low = _bound(domains, "lower", lower, 0.0)
    high = _bound(domains, "upper", upper, 1.0)
    clashes = [
        f"{d} ({a:g} above {b:g})" for d, a, b in zip(domains, low, high, strict=True) if a > b
    ]
    if clashes:
        raise ValueError(f"lower bounds lie above upper bounds: {', '.join(clashes)}")
    for kind, bound, clash, word in (
        ("lower", low, low.sum() > 1 + _ACTIVE, "more"),
        ("upper", high, high.sum() < 1 - _ACTIVE, "less"),
    ):
        if clash:
            named = [f"{d} ({v:g})" for d, v in zip(domains, bound, strict=True) if v > 0]
            raise ValueError(
                f"the {kind} bounds sum to {bound.sum():g}, {word} than 1: {', '.join(named)}"
            )
    return low, high


def _bound(
    domains: tuple[str, ...], kind: str, given: Mapping[str, float] | float | None, default: float
) -> np.ndarray:
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        given = dict.fromkeys(domains, given)
    unknown = [name for name in given if name not in domains]
    if unknown:
        raise ValueError(
            f"unknown domain {', '.join(map(repr, unknown))} in the {kind} bounds; "
            f"valid names: {', '.join(domains)}"
        )
    values = {name: float(value) for name, value in given.items()}
    wrong = [f"{name} ({value:g})" for name, value in values.items() if not 0 <= value <= 1]
    if wrong:
        raise ValueError(f"{kind} bounds must lie between 0 and 1: {', '.join(wrong)}")
    return np.array([values.get(name, default) for name in domains])


def _known_mixtures(fit: Fit, at_target: Problem) -> tuple[int, np.ndarray]:
    """Uniform, best observed and swarm-mean mixtures (3, K), and the row of the second."""
    observed = fit.runs.effective_weights().values
    mean = at_target.thinned(_RANKING_DRAWS).values(observed).mean(axis=0)
    row = int(np.argmin(mean))
    uniform = np.full(observed.shape[1], 1 / observed.shape[1])
    return row, np.stack([uniform, observed[row], observed.mean(axis=0)])


def _doubts(
    fit: Fit, objective: Mapping[str, float], n_params: float, n_tokens: float
) -> list[str]:
    """Sentences on what the fit cannot vouch for, whatever the mixture."""
    said = []
    diagnosis = fit.diagnose()
    if not diagnosis.passed:
        said.append(f"The sampler's diagnostics failed. {diagnosis.text}")
    losses = np.concatenate([fit.runs.losses.values, fit.runs.target_losses.values], axis=1)
    seen = np.isfinite(losses).any(axis=0)
    unseen = [n for n, s in zip(fit.components, seen, strict=True) if not s and objective.get(n)]
    if unseen:
        said.append(
            f"The objective counts {', '.join(unseen)}, whose losses were never observed: that "
            "part of it comes from the priors."
        )
    for name, unit, value, fitted in (
        ("N", "parameters", n_params, fit.runs.n_params.values),
        ("D", "tokens", n_tokens, fit.runs.n_tokens.values),
    ):
        least, most = fitted.min(), fitted.max()
        if not least * (1 - _ACTIVE) <= value <= most * (1 + _ACTIVE):
            above = value > most
            edge = most if above else least
            said.append(
                f"{name} = {value:.3g} {unit} is {abs(math.log(value / edge)):.1f} e-folds "
                f"{'above the largest' if above else 'below the smallest'} that was fitted, "
                f"{edge:.3g}."
            )
    return said


def _outside(fit: Fit, h: np.ndarray) -> list[str]:
    """A sentence on the weights outside the range that the swarm tried."""
    tried = fit.runs.weights.values
    lows, highs = tried.min(axis=0), tried.max(axis=0)
    places = []
    for name, weight, low, high in zip(fit.runs.domains, h, lows, highs, strict=True):
        if weight > high + _NOTABLE:
            places.append(f"{name} {weight:.3f} (tried at most {high:.3f})")
        elif weight < low - _NOTABLE:
            places.append(f"{name} {weight:.3f} (tried at least {low:.3f})")
    if not places:
        return []
    return [f"The mixture leaves the weights that the swarm tried: {', '.join(places)}."]


def _unfinished(convergence: Mapping[str, float]) -> list[str]:
    """Sentences on optimisers that stopped short."""
    said = []
    if convergence["residual"] > TOLERANCE:
        said.append(
            f"The search for the optimum stopped short, at a KKT residual of "
            f"{convergence['residual']:.1g} (wanted: {TOLERANCE:g})."
        )
    if convergence["draws_converged"] < 0.95:
        said.append(
            f"Only {convergence['draws_converged']:.0%} of the draws' optima were found to a KKT "
            f"residual of {TOLERANCE:g}: the others rest on kinks of the law."
        )
    return said
