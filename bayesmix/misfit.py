"""How much of a fit's offsets over scales is a bend, which goes on beyond the data.

The law is fitted with offsets that are independent over (N, D), so that no surface takes on what
the law is there to explain: on tinyswarm there are two laws then, and chains that do not agree
(docs/calibration.md). Given a draw of the offsets, the scales of what they are made of are drawn
here. What the law makes of the data is not revised: a cut posterior, in the terms of Plummer (2015,
doi:10.1007/s11222-014-9503-z).
"""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from bayesmix.discrepancy import SCALES, Scales, scales
from bayesmix.model import observed_log_loss
from bayesmix.priors import Prior
from bayesmix.runs import Runs

# of Metropolis: five times as many change no mean of a scale by 2%
_STEPS = 300
_NEAR = 0.6  # how far all scales are moved together, in their logs; one alone is moved by 1
_ROUNDING = 1e-10  # of the mean variance, added to each: scales may be tried at next to nothing
_LEAST = 1e-9  # of a scale to start at; a prior that a user gives may allow for less than 0
# numbers that a step takes, in cubes of the rank, and the fewest draws that are asked then: of
# hundreds of cells each draw's offsets say the same
_MOST, _FEWEST = 4e7, 50


def with_learned_scales(
    posterior: xr.Dataset, runs: Runs, priors: Mapping[str, Prior], seed: int
) -> xr.Dataset:
    """A posterior with the scales of the misfit as its offsets have them.

    Parameters
    ----------
    posterior : Dataset
        Of a fit: ``offset`` (chain, draw, cell, component), ``discrepancy_correlation`` and the
        scales named in `discrepancy.SCALES` (chain, draw), in log loss.
    runs : Runs
        What was fitted.
    priors : mapping
        Those of the fit; of them the scales' are used.
    seed : int

    Returns
    -------
    Dataset
        The same with ``misfit_scale`` (chain, draw, scale), which predictions take instead of the
        scales of the fit: given the offsets of each draw, or, of more than some 25 cells, of draws
        at even distances. The same as it was if the cells show none.

    Examples
    --------
    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> fit = prior_fit(load_dataset("tinyswarm"), draws=50)
    >>> of_prior = fit.posterior["posterior"].to_dataset()
    >>> learned = with_learned_scales(of_prior, fit.runs, fit.priors, seed=0)
    >>> learned["misfit_scale"].sizes
    Frozen({'chain': 1, 'draw': 50, 'scale': 3})
    """
    cells = scales(runs)
    basis, covariances = cells.basis(), cells.covariances()
    if not basis.size:
        return posterior
    shape = posterior["bend_scale"].shape
    total, rank = posterior["bend_scale"].size, basis.shape[1]
    most = int(min(max(_MOST / rank**3, _FEWEST), total))
    asked = np.unique(np.linspace(0, total - 1, most).astype(int))

    offset = posterior["offset"].transpose("chain", "draw", "cell", "component").values
    told = _told(runs, cells)
    values = offset.reshape(total, *offset.shape[2:])[asked][:, :, told]
    values = np.einsum("mk,smi->ski", basis, values)
    shared = posterior["discrepancy_correlation"].values.ravel()[asked]
    sampled = np.column_stack([posterior[name].values.ravel()[asked] for name in SCALES])
    start = np.log(np.maximum(abs(sampled), _LEAST))

    def log_density(logs: np.ndarray) -> np.ndarray:
        """Of the scales' logs and the offsets, shape (S,), up to a constant."""
        covariance = np.tensordot(np.exp(2 * logs), covariances, 1)
        mean = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / rank
        root = np.linalg.cholesky(covariance + _ROUNDING * mean * np.eye(rank))
        white = np.linalg.solve(root, values)
        # of the precision of components that err together
        n_components = values.shape[2]
        of_sum = shared / (1 - shared + n_components * shared)
        square = (white**2).sum(axis=(1, 2)) - of_sum * (white.sum(axis=2) ** 2).sum(axis=1)
        half_det = n_components * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        prior = sum(
            _log_prior(priors[name], np.exp(log)) + log
            for name, log in zip(SCALES, logs.T, strict=True)
        )
        return prior - square / (1 - shared) / 2 - half_det

    learned = _metropolis(log_density, start, np.random.default_rng(seed))
    of_draw = np.searchsorted(asked, np.arange(total), side="right") - 1
    drawn = np.exp(learned[of_draw]).reshape(*shape, len(SCALES))
    return posterior.assign(misfit_scale=(("chain", "draw", "scale"), drawn)).assign_coords(
        scale=list(SCALES)
    )


def _told(runs: Runs, cells: Scales) -> np.ndarray:
    """Components (C,) that were seen in every cell: of the others offsets are the model's own.

    All of them if there is none.
    """
    seen = np.isfinite(observed_log_loss(runs))
    told = np.all([seen[cells.row_cell == m].any(axis=0) for m in range(len(cells.ended))], axis=0)
    return told if told.any() else np.ones_like(told)


def _log_prior(prior: Prior, scale: np.ndarray) -> np.ndarray:
    """Log density of a scale, of which the model takes no sign."""
    return np.logaddexp(prior.log_density(scale), prior.log_density(-scale))


def _metropolis(
    log_density: Callable[[np.ndarray], np.ndarray], start: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Where `_STEPS` steps lead from each start (S, P): all entries near, or one of them far."""
    at, density = start.copy(), log_density(start)
    for step in range(_STEPS):
        one = step // 2 % start.shape[1]
        far = np.eye(start.shape[1])[one] if step % 2 else _NEAR
        proposed = at + far * rng.normal(size=start.shape)
        there = log_density(proposed)
        taken = np.log(rng.uniform(size=len(start))) < there - density
        at[taken], density[taken] = proposed[taken], there[taken]
    return at
