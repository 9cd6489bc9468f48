"""bayesmix: Bayesian laws of data mixing, with honest intervals."""

from bayesmix import plots
from bayesmix.datasets import list_datasets, load_dataset
from bayesmix.diagnostics import Diagnosis
from bayesmix.evaluate import Evaluation, compare, evaluate
from bayesmix.fit import Fit, FitFileError, fit, load
from bayesmix.pointfit import POINT_LAWS, PointFit, point_fit
from bayesmix.predict import Prediction, predict
from bayesmix.prior_predictive import prior_predictive
from bayesmix.priors import Gamma, LogNormal, Normal, default_priors
from bayesmix.recommend import Recommendation, recommend
from bayesmix.runs import (
    Runs,
    RunsError,
    RunsWarning,
    read_mixtures,
    read_runs,
    runs_from_frame,
    write_runs,
)
from bayesmix.splits import ByMixture, ByScale, LargestScale

__all__ = [
    "POINT_LAWS",
    "ByMixture",
    "ByScale",
    "Diagnosis",
    "Evaluation",
    "Fit",
    "FitFileError",
    "Gamma",
    "LargestScale",
    "LogNormal",
    "Normal",
    "PointFit",
    "Prediction",
    "Recommendation",
    "Runs",
    "RunsError",
    "RunsWarning",
    "compare",
    "default_priors",
    "evaluate",
    "fit",
    "list_datasets",
    "load",
    "load_dataset",
    "plots",
    "point_fit",
    "predict",
    "prior_predictive",
    "read_mixtures",
    "read_runs",
    "recommend",
    "runs_from_frame",
    "write_runs",
]
