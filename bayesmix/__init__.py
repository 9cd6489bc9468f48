"""bayesmix: Bayesian laws of data mixing, with honest intervals."""

from bayesmix.diagnostics import Diagnosis
from bayesmix.fit import Fit, FitFileError, fit, load
from bayesmix.predict import Prediction, predict
from bayesmix.priors import Gamma, LogNormal, Normal, default_priors
from bayesmix.runs import Runs, RunsError, RunsWarning, read_mixtures, read_runs, runs_from_frame

__all__ = [
    "Diagnosis",
    "Fit",
    "FitFileError",
    "Gamma",
    "LogNormal",
    "Normal",
    "Prediction",
    "Runs",
    "RunsError",
    "RunsWarning",
    "default_priors",
    "fit",
    "load",
    "predict",
    "read_mixtures",
    "read_runs",
    "runs_from_frame",
]
