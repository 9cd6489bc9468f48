"""Sentences that a reader of a recommendation should see."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.spatial.distance import cdist

from bayesmix.feasible import FEASIBLE
from bayesmix.model import observed_log_loss
from bayesmix.posterior import Fit

TOLERANCE = 1e-6  # on the KKT residual, of an objective whose weights sum to 1
_GAP = 1e-8  # between a tail or a worst domain and what the weights found give, likewise
_HAIR = 1e-9  # a size this close to the range that was fitted is in it
_NOTABLE = 1e-3  # outside the weights tried by less than this goes unsaid


def doubts(fit: Fit, objective: Mapping[str, float], n_params: float, n_tokens: float) -> list[str]:
    """Sentences on what the fit cannot vouch for, whatever the mixture."""
    said = []
    diagnosis = fit.diagnose()
    if not diagnosis.passed:
        said.append(f"The sampler's diagnostics failed. {diagnosis.text}")
    counted = [name for name in _without_losses(fit) if objective.get(name)]
    if counted:
        said.append(
            f"The objective counts {', '.join(counted)}, whose losses were never observed: that "
            "part of it comes from the priors."
        )
    return [*said, *beyond(fit, n_params, n_tokens), *below_floor(fit, n_params)]


def unseen(fit: Fit) -> list[str]:
    """A sentence on domains and targets that have no losses."""
    names = _without_losses(fit)
    if not names:
        return []
    return [
        f"The swarm has no losses of {', '.join(names)}: predictions of these come from the "
        "priors, and means over domains leave them out."
    ]


def _without_losses(fit: Fit) -> list[str]:
    seen = np.isfinite(observed_log_loss(fit.runs)).any(axis=0)
    return [name for name, one in zip(fit.components, seen, strict=True) if not one]


def beyond(fit: Fit, n_params: float | np.ndarray, n_tokens: float | np.ndarray) -> list[str]:
    """Sentences on N and D outside the range that was fitted: on the farthest, of many."""
    said = []
    for name, unit, asked, fitted in (
        ("N", "parameters", n_params, fit.runs.n_params.values),
        ("D", "tokens", n_tokens, fit.runs.n_tokens.values),
    ):
        least, most = fitted.min(), fitted.max()
        lowest, highest = np.min(asked), np.max(asked)
        for value, edge, out, side in (
            (highest, most, highest > most * (1 + _HAIR), "above the largest"),
            (lowest, least, lowest < least * (1 - _HAIR), "below the smallest"),
        ):
            if out:
                said.append(
                    f"{name} = {value:.3g} {unit} is {abs(math.log(value / edge)):.1f} e-folds "
                    f"{side} that was fitted, {edge:.3g}."
                )
    return said


def below_floor(fit: Fit, n_params: float | np.ndarray) -> list[str]:
    """A sentence where N leaves the domains no capacity to share: on the smallest, of many.

    They share ``N + (K - 1) H`` parameters and each has at least H, which no N below H allows.
    """
    least = float(np.min(n_params))
    floors = np.exp(fit.posterior["posterior"].to_dataset()["log_H"].values)
    share = (floors >= least).mean()
    if not share:
        return []
    return [
        f"N = {least:.3g} parameters is at or below the law's floor H of capacity under "
        f"{100 * share:.3g}% of draws (at most {floors.max():.3g}): there the law says nothing of "
        "how domains share it."
    ]


def outside(fit: Fit, h: np.ndarray) -> list[str]:
    """Sentences on weights and mixtures outside what the swarm tried."""
    tried = fit.runs.weights.values
    lows, highs = tried.min(axis=0), tried.max(axis=0)
    places = []
    for name, weight, low, high in zip(fit.runs.domains, h, lows, highs, strict=True):
        if weight > high + _NOTABLE:
            places.append(f"{name} {weight:.3f} (tried at most {high:.3f})")
        elif weight < low - _NOTABLE:
            places.append(f"{name} {weight:.3f} (tried at least {low:.3f})")
    said = []
    if places:
        said.append(f"The mixture leaves the weights that the swarm tried: {', '.join(places)}.")
    mixtures = np.unique(tried, axis=0)
    if len(mixtures) > 2:
        nearest = abs(mixtures - h).sum(axis=1).min()
        apart = cdist(mixtures, mixtures, "cityblock")
        farthest = (apart + 3 * np.eye(len(mixtures))).min(axis=1).max()
        if nearest > farthest + _NOTABLE:
            said.append(
                f"The mixture lies outside the region that the swarm supports: the nearest run is "
                f"at an L1 distance of {nearest:.2f}, and no run is farther than {farthest:.2f} "
                "from its own nearest."
            )
    return said


def unfinished(convergence: Mapping[str, float]) -> list[str]:
    """Sentences on optimisers that stopped short."""
    said = []
    # written so that no number is no good
    if not convergence["residual"] <= TOLERANCE:
        said.append(
            f"The search for the optimum stopped short, at a KKT residual of "
            f"{convergence['residual']:.1g} (wanted: {TOLERANCE:g})."
        )
    if not convergence["gap"] <= _GAP:
        said.append(
            f"The search for the optimum stopped short, {convergence['gap']:.1g} of the objective "
            f"from the tail or the worst domain that it should be of (wanted: {_GAP:g})."
        )
    if convergence["draws_converged"] < 0.95:
        said.append(
            f"Only {convergence['draws_converged']:.0%} of the draws' optima were found to a KKT "
            f"residual of {TOLERANCE:g}: the others rest on kinks of the law."
        )
    breach = np.maximum(convergence["violation"], convergence["draws_violation"])
    if not breach <= FEASIBLE:
        said.append(f"A constraint is broken by {breach:.1g} (allowed: {FEASIBLE:g}).")
    return said
