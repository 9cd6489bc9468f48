"""Figures of fits, recommendations, evaluations and priors: matplotlib Axes, one plot a file."""

from bayesmix.plots.calibration import plot_calibration
from bayesmix.plots.diagnostics import plot_diagnostics
from bayesmix.plots.fit_observed import plot_fit
from bayesmix.plots.mechanisms import plot_mechanisms
from bayesmix.plots.prior_predictive import plot_prior_predictive
from bayesmix.plots.recommendation import plot_recommendation
from bayesmix.plots.transfer import plot_transfer

__all__ = [
    "plot_calibration",
    "plot_diagnostics",
    "plot_fit",
    "plot_mechanisms",
    "plot_prior_predictive",
    "plot_recommendation",
    "plot_transfer",
]
