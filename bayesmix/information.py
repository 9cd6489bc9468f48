"""What an outcome yet to be seen is worth to a decision, from draws of a posterior.

A choice is made among finitely many. Its objective is known up to draws, and so is what would be
observed. The value of the observation is how much lower the expected objective is when the choice
is made after it (Raiffa & Schlaifer 1961, *Applied Statistical Decision Theory*, ch. 4). Outcomes
are simulated from draws, draws are weighted by an outcome's likelihood, and what is expected after
it is a mean under these weights. What keeps that honest, and possible with few draws:

- *Two halves*: the draws by which is chosen are not those by which the choice is scored, or the
  noise of the weights would pass for information. Scored against it is what the same draws would
  choose without the outcome, which misses the best as far: what tells nothing is worth nothing.
- *Two rules*: a choice by weights, and one by linear regression on the outcome (Strong et al. 2015,
  Med. Decis. Making 35, 570), of which the better counts. Weights know no linearity, but an outcome
  of many numbers leaves few draws any, so they look at the directions that matter most alone.
- *Checks*: effective draws, and Pareto's k of the weights (Vehtari et al. 2024, JMLR 25, 72).

This module knows no law.
"""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.linalg import qr, solve_triangular
from scipy.spatial.distance import cdist

MOST_PARETO_K, LEAST_ESS = 0.7, 20.0
_DIRECTIONS = 2  # of an outcome that the weights look at
_CHECKED = 40  # outcomes whose Pareto's k is looked at
_TAIL = 0.9  # of these, that must pass
_ROUNDING = 1e-12  # relative
_NOTHING = 1e-10  # share of the variance of the objectives that is rounding


class Information(NamedTuple):
    """What `information` found.

    Attributes
    ----------
    value : float
        By how much the outcome is expected to lower the objective that is chosen.
    standard_error : float
        Of `value`, over draws as if they were independent.
    ess : float
        Effective draws behind a choice by weights: nine in ten outcomes leave more.
    pareto_k : float
        Of these weights: it is less in nine of ten outcomes. Blank unless checked.
    """

    value: float
    standard_error: float
    ess: float
    pareto_k: float

    @property
    def trusted(self) -> bool:
        """Whether enough draws keep weight: otherwise the value may be too low."""
        return self.ess >= LEAST_ESS and not self.pareto_k > MOST_PARETO_K


def information(
    outcomes: np.ndarray,
    noise: np.ndarray,
    objective: np.ndarray,
    normal: np.ndarray,
    *,
    check: bool = True,
) -> Information:
    """Value of an outcome that is normal given the draw.

    Parameters
    ----------
    outcomes : array, shape (S, P)
        Expected outcome under every draw, S at least 4.
    noise : array, shape (P, P)
        Covariance of an outcome given the draw, positive definite.
    objective : array, shape (S, M)
        Objective of every choice under every draw; lower is better.
    normal : array, shape (S, P)
        Standard normal numbers, of the simulated outcomes.
    check : bool
        Whether to look at Pareto's k, which takes as long as all else.

    Returns
    -------
    Information

    Examples
    --------
    >>> from scipy.stats.qmc import MultivariateNormalQMC
    >>> which, noise = MultivariateNormalQMC([0, 0], seed=0).random(2048).T[:, :, None]
    >>> choices = np.concatenate([0 * which, -which], axis=1)  # the second is better above 0
    >>> found = information(which, np.eye(1), choices, noise)
    >>> round(found.value, 2)  # 1 / sqrt(2) / sqrt(2 pi)
    0.28
    """
    if not outcomes.shape[1]:
        return Information(0.0, 0.0, float(len(outcomes)), math.nan)
    half = len(outcomes) // 2
    first, last = slice(0, half), slice(half, None)
    # what all choices have in common is no matter
    ahead = objective - objective[:, [objective.mean(axis=0).argmin()]]
    centres = solve_triangular(np.linalg.cholesky(noise), outcomes.T, lower=True).T
    seen = centres + normal
    gains: list[np.ndarray] = []  # of each half: expected and realised, by each rule
    ess, log_weights = [], []
    for fitted, scored in ((first, last), (last, first)):
        axes, expected = _learned(centres[fitted], ahead[fitted], seen[scored])
        log_weight = _log_likelihood(seen[scored] @ axes, centres[fitted] @ axes)
        weights = _normalised(log_weight)
        chosen = np.stack([(weights @ ahead[fitted]).argmin(axis=1), expected.argmin(axis=1)], 1)
        # given the outcome, the draws scored have their own weights: exact if they are all there is
        after = _normalised(_log_likelihood(seen[scored], centres[scored])) @ ahead[scored]
        present = [ahead[fitted].mean(axis=0).argmin()]
        by = np.stack([after, ahead[scored]])
        gains.append(by[:, :, present] - np.take_along_axis(by, chosen[None], axis=2))
        ess.append(1 / (weights**2).sum(axis=1))
        log_weights.append(log_weight[:: max(2 * len(log_weight) // _CHECKED, 1)])
    found, realised = np.concatenate(gains, axis=1)
    best = found.mean(axis=0).argmax()
    return Information(
        float(found[:, best].mean()),
        float(realised[:, best].std() / np.sqrt(len(outcomes))),
        float(np.quantile(np.concatenate(ess), 1 - _TAIL)),
        max(map(_pareto_k, log_weights)) if check else math.nan,
    )


def _learned(
    centres: np.ndarray, ahead: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a linear regression on the outcome, its noise standard normal, tells of objectives.

    Returns
    -------
    axes : array, shape (P, Q)
        Orthonormal, Q <= `_DIRECTIONS`: principal components of what it tells.
    expected : array, shape (R, M)
        Objectives expected after each of the outcomes seen.
    """
    y, v = centres - centres.mean(axis=0), ahead - ahead.mean(axis=0)
    spread = y.T @ y / len(y)
    ridge = 1 + _ROUNDING * spread.trace()
    root = np.linalg.cholesky(spread + ridge * np.eye(len(spread)))
    shared = solve_triangular(root, y.T @ v / len(y), lower=True)
    components, told, _ = np.linalg.svd(shared, full_matrices=False)
    everything = max((v**2).mean(axis=0).sum(), np.finfo(float).tiny)
    kept = (told[:_DIRECTIONS] ** 2 > _NOTHING * everything).sum()
    axes = solve_triangular(root, components[:, :kept], lower=True, trans="T")
    score = solve_triangular(root, (seen - centres.mean(axis=0)).T, lower=True).T
    return qr(axes, mode="economic")[0], ahead.mean(axis=0) + score @ shared


def _log_likelihood(seen: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Of outcomes (R, Q) under draws (S, Q), up to a constant, shape (R, S)."""
    return -0.5 * cdist(seen, centres, "sqeuclidean")


def _normalised(log_weights: np.ndarray) -> np.ndarray:
    """Weights that sum to 1 along the last axis."""
    weights = np.exp(log_weights - log_weights.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _pareto_k(log_weights: np.ndarray) -> float:
    """Pareto's k that nine in ten rows stay below."""
    import arviz  # noqa: F401  registers the accessor; takes longer to import than all else

    def of(row: np.ndarray) -> float:
        try:
            # the accessor takes logs of the weights' inverses, as leave-one-out does
            with np.errstate(over="ignore", invalid="raise"):
                return float(xr.DataArray(-row, dims="draw").azstats.psislw(dim="draw")[1])
        except FloatingPointError:  # one draw has all the weight, and the fit of the tail fails
            return math.inf
        except ValueError:  # all weights of the tail are equal: there is none
            return -math.inf

    return float(np.quantile([of(row) for row in log_weights], _TAIL, method="lower"))
