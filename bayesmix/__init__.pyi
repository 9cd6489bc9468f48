"""What `bayesmix` exports: `__init__.py` imports each name when it is first used."""

from . import plots
from .constraints import KL, L1, Bounds, Fixed, GroupSum, TokenBudget
from .datasets import fetch_dataset, list_datasets, load_dataset
from .design import Design, design, refit_value
from .diagnostics import Diagnosis
from .evaluate import Evaluation, compare, evaluate
from .extrapolation import extrapolation
from .fit import fit
from .laplace import laplace
from .objective import Worst
from .pareto import near_optimal, pareto_front
from .pointfit import POINT_LAWS, PointFit, point_fit
from .posterior import Fit, FitFileError, load
from .predict import Prediction, predict
from .prior_predictive import prior_predictive
from .priors import Gamma, LogNormal, Normal, default_priors
from .recommend import Recommendation, recommend
from .replicates import noise_table, seed_noise
from .risk import CVaR, Mean, ProbBelow, Quantile, Regret
from .runs import (
    Runs,
    RunsError,
    RunsWarning,
    read_mixtures,
    read_runs,
    runs_from_frame,
    write_runs,
)
from .scale import overtakes, scale_path
from .splits import ByMixture, ByScale, LargestScale
from .stacking import Stack, loo, stack

__version__: str
__all__ = [
    "KL",
    "L1",
    "POINT_LAWS",
    "Bounds",
    "ByMixture",
    "ByScale",
    "CVaR",
    "Design",
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
    "design",
    "evaluate",
    "extrapolation",
    "fetch_dataset",
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
    "refit_value",
    "runs_from_frame",
    "scale_path",
    "seed_noise",
    "stack",
    "write_runs",
]
