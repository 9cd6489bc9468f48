"""Uncertainty of point fits: refits to runs drawn with replacement."""

from collections.abc import Mapping
from dataclasses import dataclass

import joblib
import numpy as np
import pandas as pd
import xarray as xr

from bayesmix.model import observed_log_loss
from bayesmix.pointfit.result import PointFit, point_fit, prediction_points
from bayesmix.predict import Prediction, mixture_table, named_losses
from bayesmix.runs import Runs


@dataclass(frozen=True, repr=False)
class Bootstrap:
    """A point fit and its refits to resampled runs.

    Attributes
    ----------
    fit : PointFit
        Of the runs themselves.
    refits : tuple of PointFit
    """

    fit: PointFit
    refits: tuple[PointFit, ...]

    def predict(
        self,
        weights: pd.DataFrame | xr.DataArray | Mapping[str, float],
        n_params: float | None = None,
        n_tokens: float | None = None,
        *,
        seed: int = 0,
    ) -> Prediction:
        """Losses at any mixture, N and D; arguments as in `bayesmix.predict.predict`.

        Returns
        -------
        Prediction
            A draw is a refit: ``expected`` its loss, ``loss`` that with one of the fit's own
            residuals (in log, of the same domain) drawn for every cell.
        """
        runs = self.fit.runs
        mixtures = mixture_table(runs.domains, weights, n_params, n_tokens)
        at = prediction_points(runs, mixtures)
        expected = np.stack([refit.evaluate(*at) for refit in self.refits])
        rng = np.random.default_rng(seed)
        loss = expected.copy()
        for i, residuals in enumerate(_residuals(self.fit).T):
            known = residuals[np.isfinite(residuals)]
            if known.size:
                loss[:, :, i] *= np.exp(rng.choice(known, size=loss.shape[:2]))
        return Prediction(
            xr.Dataset(
                {
                    "expected": named_losses(runs, expected, mixtures),
                    "loss": named_losses(runs, loss, mixtures),
                }
            ),
            mixtures,
        )

    def __repr__(self) -> str:
        failed = sum(not refit.converged for refit in self.refits)
        return f"Bootstrap of {len(self.refits)} refits, {failed} not converged; {self.fit!r}"


def bootstrap(fit: PointFit, n: int = 50, seed: int = 0, n_jobs: int = 1) -> Bootstrap:
    """Refit to runs drawn with replacement, each refit started at the fit's parameters.

    Parameters
    ----------
    fit : PointFit
    n : int
        Refits.
    seed : int
        Of the resampling.
    n_jobs : int
        Processes, through joblib.
    """
    rngs = np.random.default_rng(seed).spawn(n)
    task = joblib.delayed(_refit)
    return Bootstrap(fit, tuple(joblib.Parallel(n_jobs=n_jobs)(task(fit, rng) for rng in rngs)))


def _refit(fit: PointFit, rng: np.random.Generator) -> PointFit:
    return point_fit(_resample(fit.runs, rng), fit.law, seed=int(rng.integers(2**31)), warm=fit)


def _resample(runs: Runs, rng: np.random.Generator) -> Runs:
    """As many runs, drawn with replacement until everything observed is among them."""
    ids, run = np.unique(runs.run_ids.values, return_inverse=True)
    observed = np.isfinite(observed_log_loss(runs))
    while True:
        drawn = rng.integers(ids.size, size=ids.size)
        rows = np.concatenate([np.flatnonzero(run == r) for r in drawn])
        if (observed[rows].any(axis=0) == observed.any(axis=0)).all():
            return runs.select(rows)


def _residuals(fit: PointFit) -> np.ndarray:
    """Residuals in log loss (R, C), widened by the degrees of freedom that the fit took up."""
    runs = fit.runs
    at = prediction_points(runs, runs.frame)
    residuals = observed_log_loss(runs) - np.log(fit.evaluate(*at))
    n_cells = int(np.isfinite(residuals).sum())
    left = n_cells - fit.n_parameters
    return residuals * (np.sqrt(n_cells / left) if left > 0 else 1.0)
