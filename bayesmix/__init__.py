"""bayesmix: Bayesian laws of data mixing, with honest intervals."""

from bayesmix import plots
from bayesmix.constraints import KL, L1, Bounds, Fixed, GroupSum, TokenBudget
from bayesmix.datasets import list_datasets, load_dataset
from bayesmix.diagnostics import Diagnosis
from bayesmix.evaluate import Evaluation, compare, evaluate
from bayesmix.extrapolation import extrapolation
from bayesmix.fit import Fit, FitFileError, fit, load
from bayesmix.laplace import laplace
from bayesmix.objective import Worst
from bayesmix.pareto import near_optimal, pareto_front
from bayesmix.pointfit import POINT_LAWS, PointFit, point_fit
from bayesmix.predict import Prediction, predict
from bayesmix.prior_predictive import prior_predictive
from bayesmix.priors import Gamma, LogNormal, Normal, default_priors
from bayesmix.recommend import Recommendation, recommend
from bayesmix.replicates import noise_table, seed_noise
from bayesmix.risk import CVaR, Mean, ProbBelow, Quantile, Regret
from bayesmix.runs import (
    Runs,
    RunsError,
    RunsWarning,
    read_mixtures,
    read_runs,
    runs_from_frame,
    write_runs,
)
from bayesmix.scale import overtakes, scale_path
from bayesmix.splits import ByMixture, ByScale, LargestScale
from bayesmix.stacking import Stack, loo, stack

__all__ = [
    "KL",
    "L1",
    "POINT_LAWS",
    "Bounds",
    "ByMixture",
    "ByScale",
    "CVaR",
    "Diagnosis",
    "Evaluation",
    "Fit",
    "FitFileError",
    "Fixed",
    "Gamma",
    "GroupSum",
    "LargestScale",
    "LogNormal",
    "Mean",
    "Normal",
    "PointFit",
    "Prediction",
    "ProbBelow",
    "Quantile",
    "Recommendation",
    "Regret",
    "Runs",
    "RunsError",
    "RunsWarning",
    "Stack",
    "TokenBudget",
    "Worst",
    "compare",
    "default_priors",
    "evaluate",
    "extrapolation",
    "fit",
    "laplace",
    "list_datasets",
    "load",
    "load_dataset",
    "loo",
    "near_optimal",
    "noise_table",
    "overtakes",
    "pareto_front",
    "plots",
    "point_fit",
    "predict",
    "prior_predictive",
    "read_mixtures",
    "read_runs",
    "recommend",
    "runs_from_frame",
    "scale_path",
    "seed_noise",
    "stack",
    "write_runs",
]
