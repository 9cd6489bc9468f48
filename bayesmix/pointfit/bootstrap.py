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

_FOLDS = 5  # of runs, where residuals are those of runs left out


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
        draws: int = 20,
        seed: int = 0,
    ) -> Prediction:
        """Losses at any mixture, N and D; arguments as in `bayesmix.predict.predict`.

        Parameters
        ----------
        weights, n_params, n_tokens
        draws : int
            New runs of each refit.
        seed : int
            Of the new runs' noise.

        Returns
        -------
        Prediction
            ``expected`` is a refit's loss, ``loss`` that with the residuals, in log, that the fit
            itself has at one of its runs, drawn for every row: together for all domains, as they
            err together, but for a domain that was not observed there.
        """
        runs = self.fit.runs
        mixtures = mixture_table(runs.domains, weights, n_params, n_tokens)
        at = prediction_points(runs, mixtures)
        refits = np.stack([refit.evaluate(*at) for refit in self.refits])
        expected = np.repeat(refits, draws, axis=0)
        loss = expected * np.exp(_noise(self.fit, expected.shape[:2], np.random.default_rng(seed)))
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
    """Refit to runs drawn with replacement, each refit started at the fit's where its law can.

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


def _noise(fit: PointFit, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Residuals (S, R, C) in log loss, drawn run by run."""
    residuals = _residuals(fit)
    drawn = residuals[rng.integers(len(residuals), size=shape)]
    for i, own in enumerate(residuals.T):
        known = own[np.isfinite(own)]
        if known.size:
            other = rng.choice(known, size=shape)
            drawn[:, :, i] = np.where(np.isfinite(drawn[:, :, i]), drawn[:, :, i], other)
    return drawn


def _residuals(fit: PointFit) -> np.ndarray:
    """Residuals in log loss (runs, C) of every run's last checkpoint.

    Widened by the degrees of freedom that the fit took up; where it took up all, and its residuals
    say nothing of noise, those at runs left out by fifths.
    """

    def of(runs: Runs, fit: PointFit = fit) -> np.ndarray:
        predicted = fit.evaluate(*prediction_points(runs, runs.frame))
        # a straight line may fall below 0
        return observed_log_loss(runs) - np.log(np.where(predicted > 0, predicted, np.nan))

    n_cells = int(np.isfinite(of(fit.runs)).sum())
    left = n_cells - fit.n_parameters
    last = fit.runs.checkpoints("last")
    if left > 0:
        return of(last) * np.sqrt(n_cells / left)
    seen = np.isfinite(observed_log_loss(fit.runs)).any(axis=1)
    residuals = np.full(observed_log_loss(last).shape, np.nan)
    for fold in range(min(_FOLDS, last.n_runs)):
        kept = ~np.isin(fit.runs.run_ids.values, last.run_ids.values[fold::_FOLDS])
        if (kept & seen).any():
            refit = point_fit(fit.runs.select(kept), fit.law)
            residuals[fold::_FOLDS] = of(last, refit)[fold::_FOLDS]
    return residuals
