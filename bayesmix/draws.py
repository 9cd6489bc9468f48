"""Posterior draws in the kernel's terms, and losses under them."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesmix import law as laws
from bayesmix.discrepancy import SCALES
from bayesmix.runs import Runs

NOISE = (
    "sigma", "sigma_weight", "sigma_unseen", "zero_shift", "common", "outlier_scale", "dof",
    "dof_unseen",
)  # fmt: skip
DISCREPANCY = (
    "offset_scale", "transient_scale", "bend_scale", "slope_scale", "discrepancy_correlation",
    "offset",
)  # fmt: skip


def law_draws(posterior: xr.Dataset, most: int | None = None) -> dict[str, np.ndarray]:
    """The kernel's parameters from a posterior, draws of all chains on one leading axis.

    Parameters
    ----------
    posterior : Dataset
        Dims ``chain`` and ``draw``, and those of `build_model`.
    most : int, optional
        Keep at most so many draws, evenly spaced.

    Returns
    -------
    dict
        The names in `law.PARAMETERS`, `NOISE` and `DISCREPANCY`, each of shape (S, ...); of the
        last two what the posterior holds. Scales of the misfit are those of `misfit.py`.
    """
    n_chains, n_draws = posterior.sizes["chain"], posterior.sizes["draw"]
    total = n_chains * n_draws
    keep = np.unique(np.linspace(0, total - 1, min(most or total, total)).astype(int))
    n_components, n_domains = posterior.sizes["component"], posterior.sizes["domain"]
    # what a variant lacks: the kernel wants the shapes, and the variant switches the terms off
    absent = {
        "log_A": np.zeros(n_components),
        "a": np.ones(n_components),
        "tau": np.eye(n_components, n_domains),
        "log_G": np.zeros(n_components),
        "g": np.array(1.0),
        "log_Q": np.zeros(n_components),
        "q": np.array(1.0),
        "fade": np.array(1.0),
        "sigma_weight": np.zeros(n_components),
        "sigma_unseen": np.zeros(n_components),
        "zero_shift": np.zeros(n_components),
        "common": np.zeros(n_components),
        "outlier_scale": np.array(0.0),
        "slope_scale": np.array(0.0),
    }

    def stacked(name: str) -> np.ndarray:
        if name not in posterior:
            return np.broadcast_to(absent[name], (keep.size, *absent[name].shape)).copy()
        values = posterior[name].values
        return np.ascontiguousarray(values.reshape(total, *values.shape[2:])[keep])

    names = (*laws.PARAMETERS, *NOISE, *DISCREPANCY)
    made = {name: stacked(name) for name in names if name in posterior or name in absent}
    if "misfit_scale" in posterior:
        made.update(zip(SCALES, stacked("misfit_scale").T, strict=True))
    return made


def losses(
    draws: Mapping[str, np.ndarray],
    law: str,
    weights: np.ndarray,
    n_params: np.ndarray,
    n_tokens: np.ndarray,
) -> np.ndarray:
    """Losses of R rows under every draw, without discrepancy and noise.

    Parameters
    ----------
    draws : mapping
        As from `law_draws`.
    law : str
        A name in `law.LAWS`.
    weights : array, shape (R, K)
        Fractions that sum to 1.
    n_params, n_tokens : array, shape (R,)
        N (parameters) and D (tokens).

    Returns
    -------
    array, shape (S, R, C)
        Nats per token.
    """
    variant, at = laws.LAWS[law], laws.points(weights, n_params, n_tokens)
    parameters = [draws[name] for name in laws.PARAMETERS]
    return laws.evaluate_draws(*parameters, *at.arrays, variant.noise, variant.head)


def losses_at_rows(runs: Runs, draws: Mapping[str, np.ndarray], law: str) -> np.ndarray:
    """`losses` at a swarm's own rows, its printed weights at what the law takes them for."""
    weights = runs.effective_weights().values
    return losses(draws, law, weights, runs.n_params.values, runs.n_tokens.values)
