"""Figures of fits, recommendations, evaluations and priors: matplotlib Axes, one plot a file."""

from bayesmix.plots.calibration import plot_calibration
from bayesmix.plots.diagnostics import plot_diagnostics
from bayesmix.plots.extrapolation import plot_extrapolation
from bayesmix.plots.fit_observed import plot_fit
from bayesmix.plots.mechanisms import plot_mechanisms
from bayesmix.plots.pareto import plot_pareto
from bayesmix.plots.posterior_point import plot_posterior_point
from bayesmix.plots.prior_predictive import plot_prior_predictive
from bayesmix.plots.recommendation import plot_recommendation
from bayesmix.plots.risk_return import plot_risk_return
from bayesmix.plots.scale_path import plot_scale_path
from bayesmix.plots.transfer import plot_transfer

__all__ = [
    "plot_calibration",
    "plot_diagnostics",
    "plot_extrapolation",
    "plot_fit",
    "plot_mechanisms",
    "plot_pareto",
    "plot_posterior_point",
    "plot_prior_predictive",
    "plot_recommendation",
    "plot_risk_return",
    "plot_scale_path",
    "plot_transfer",
]
