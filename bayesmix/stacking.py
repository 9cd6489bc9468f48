"""Which law predicts runs best? Leave-one-run-out by importance sampling, and stacked laws.

The effect that all components of a run share, and how much wider its errors are than others', are
sampled with the other parameters, and a run that is left out would take its own along. So both are
integrated out of the likelihood, run by run: the one by the trapezoid rule, whose error falls
exponentially for a smooth density, the other by Gauss's rules; the part of the effect that a
trend over runs takes is integrated like the rest, a little too wide. What
is then left out with a run are all its losses, of every checkpoint and component. What stays in:
the offsets of its N and D, which other runs share; and where runs repeat a mixture and N, their
common misfit (``phi``), which each of them is scored without.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import gammaln, logsumexp

from bayesmix import law as laws
from bayesmix import noise
from bayesmix.discrepancy import scales
from bayesmix.draws import law_draws, losses_at_rows
from bayesmix.model import observed_log_loss, usable_cells, weight_doubt
from bayesmix.posterior import Fit
from bayesmix.predict import Prediction, predict

# 0.2 apart: a run effect that is known to 0.1 or worse is integrated to 1%, to 0.2 to 1e-8
_EFFECTS = np.linspace(-6.0, 6.0, 61)
_LOG_EFFECTS = -(_EFFECTS**2) / 2 - logsumexp(-(_EFFECTS**2) / 2)
# how much wider a run's errors are is exponential: for errors up to so many scales by Laguerre's
# rule, which is right to 0.04 nats there; beyond, the likelihood peaks far out in the tail
_FAR = 4.0
_LAGUERRE = np.polynomial.laguerre.laggauss(6)
_NEXT, _TAIL = (np.polynomial.legendre.leggauss(n) for n in (12, 40))
_MOST_WIDER = 6.0  # log of how much wider
_MOST_DRAWS = 1000


@dataclass(frozen=True, repr=False)
class Stack:
    """Laws compared by the log density of runs left out, and averaged by it.

    Attributes
    ----------
    fits : dict
        By label.
    table : DataFrame
        ArviZ's comparison, best first: ``elpd`` (expected log density of all runs left out, nats),
        its differences from the best with standard errors, and the stacking ``weight``.
    pareto_k : DataArray, dims (law, run)
        Above `most_pareto_k` the run's own figure is not to be trusted.
    most_pareto_k : float
        0.7, or less where there are few draws (Vehtari et al. 2024, JMLR 25, 72).
    """

    fits: Mapping[str, Fit]
    table: pd.DataFrame
    pareto_k: xr.DataArray
    most_pareto_k: float

    @property
    def weights(self) -> dict[str, float]:
        """Stacking weights by label; they sum to 1."""
        weights = self.table["weight"].to_numpy(float)
        shares = dict(zip(self.table.index, weights / weights.sum(), strict=True))
        return {label: float(shares[label]) for label in self.fits}

    def predict(self, mixtures: Any, *args: Any, **options: Any) -> Prediction:
        """Losses of the mixture of laws; arguments as in `bayesmix.predict.predict`.

        Returns
        -------
        Prediction
            Each law's share of the draws is its weight.
        """
        weights = self.weights
        parts = {
            label: predict(fit, mixtures, *args, **options)
            for label, fit in self.fits.items()
            if weights[label] > 0
        }
        most = min(part.draws.sizes["draw"] / weights[label] for label, part in parts.items())
        chosen = []
        for label, part in parts.items():
            size = part.draws.sizes["draw"]
            count = min(round(most * weights[label]), size)
            chosen.append(part.draws.isel(draw=np.linspace(0, size - 1, count).astype(int)))
        first = next(iter(parts.values()))
        return Prediction(xr.concat(chosen, dim="draw"), first.mixtures)

    def __repr__(self) -> str:
        bad = int((self.pareto_k > self.most_pareto_k).sum())
        return (
            f"Leave-one-run-out comparison, {self.pareto_k.sizes['run']} runs; Pareto k above "
            f"{self.most_pareto_k:.2g} for {bad} of {self.pareto_k.size}; elpd in nats\n"
            f"{self.table.to_string()}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{repr(self).splitlines()[0]}</p>{self.table.to_html()}"


def run_log_likelihood(fit: Fit) -> xr.DataArray:
    """Log density of each run's log losses, its shared effect integrated out.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    DataArray, dims (chain, draw, run)
        Nats; at most 1,000 draws, evenly spaced. Runs without a loss that the law uses are left
        out.
    """
    tree = fit.posterior["posterior"].to_dataset()
    step = -(-tree.sizes["chain"] * tree.sizes["draw"] // _MOST_DRAWS)
    tree = tree.isel(draw=slice(None, None, step))
    runs, variant = fit.runs, laws.LAWS[fit.law]
    draws = law_draws(tree)
    loss = losses_at_rows(runs, draws, fit.law)
    loss *= noise.at_printed_zeros(draws["zero_shift"], runs.weights.values, runs.weight_resolution)
    usable = usable_cells(runs, variant)
    observed = np.where(usable, observed_log_loss(runs), np.nan)
    doubt = weight_doubt(runs.weights.values, runs.weight_resolution, observed.shape[1])
    cells = scales(runs)
    rho = tree["rho"].values.ravel() if "rho" in tree else np.zeros(len(loss))
    dof, dof_unseen = draws["dof"], draws["dof_unseen"]
    usable_runs = runs.run_ids.values[np.isfinite(observed).any(axis=1)]
    ids = np.unique(usable_runs)
    scale, _ = noise.scale_and_dof(draws, doubt)
    error = (observed - np.log(loss) - draws["offset"][:, cells.row_cell]) / scale
    farthest = np.nanmax(np.median(abs(error), axis=0), axis=1, initial=0.0)
    values = np.empty((len(loss), len(ids)))
    for r, name in enumerate(ids):
        rows = np.flatnonzero(runs.run_ids.values == name)
        alone = np.zeros(rows.size, int)
        at = replace(cells, row_cell=cells.row_cell[rows])
        own = noise.cells(observed[rows], doubt[rows], at, alone, alone)
        wider, log_share = _outliers(draws["outlier_scale"], far=farthest[rows].max() > _FAR)
        at_nodes = _at_nodes(
            loss[:, rows], draws["offset"], draws["sigma"], draws["sigma_weight"],
            draws["sigma_unseen"], draws["common"], _EFFECTS, wider, dof, dof_unseen, rho,
            *own.arrays,
        )  # fmt: skip
        at_nodes += (_LOG_EFFECTS[:, None] + log_share[:, None, :]).reshape(at_nodes.shape)
        size, count, unseen = own.sizes
        freedom = np.where(unseen, dof_unseen[:, None], dof[:, None])
        constant = noise.log_constant(freedom, size, gammaln, np.log) @ count
        values[:, r] = logsumexp(at_nodes, axis=1) + constant
    shape = (tree.sizes["chain"], tree.sizes["draw"], len(ids))
    coords = {"chain": tree["chain"].values, "draw": tree["draw"].values, "run": ids}
    return xr.DataArray(values.reshape(shape), coords, ("chain", "draw", "run"), "run")


def _outliers(scale: np.ndarray, *, far: bool) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of how much wider a run's errors are, and logs of their weights, shape (S, nodes).

    Parameters
    ----------
    scale : array, shape (S,)
        Mean of the exponential.
    far : bool
        Whether the likelihood may peak far out in its tail.
    """
    scale = np.maximum(scale, 1e-9)[:, None]  # Laplace's approximation has next to none
    if not far:
        nodes, weights = _LAGUERRE
        return scale * nodes, np.broadcast_to(np.log(weights), (len(scale), len(nodes)))
    near, next_to = np.minimum(8 * scale, 2.0), np.minimum(30 * scale, 3.0)
    panels = []
    for (nodes, weights), low, high in (
        (_NEXT, 0.0, near),
        (_NEXT, near, next_to),
        (_TAIL, next_to, _MOST_WIDER),
    ):
        half = (high - low) / 2
        panels.append((low + half * (nodes + 1), np.log(half * weights)))
    wider = np.concatenate([at for at, _ in panels], axis=1)
    return wider, np.concatenate([w for _, w in panels], axis=1) - wider / scale - np.log(scale)


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _at_nodes(
    loss, offset, sigma, kappa, kappa_unseen, common, effects, outliers, dof, dof_unseen, rho,
    observed, doubt, row_cell, row_run, rows, run_start, group_start,
):  # fmt: skip
    """Log likelihood (S, nodes) of one run at values of its two effects, less the constant."""
    n_outliers = outliers.shape[1]
    value = np.empty((loss.shape[0], effects.size * n_outliers))
    for s in numba.prange(loss.shape[0]):
        for k in range(value.shape[1]):
            at, wider = divmod(k, n_outliers)
            value[s, k] = noise.log_likelihood(
                loss[s], offset[s], sigma[s], kappa[s], kappa_unseen[s], common[s],
                effects[at : at + 1], outliers[s, wider : wider + 1], dof[s], dof_unseen[s],
                rho[s], 0.0,
                observed, doubt, row_cell, row_run, rows, run_start, group_start,
            )[0]  # fmt: skip
    return value


def loo(fit: Fit) -> Any:
    """Leave-one-run-out log density by Pareto-smoothed importance sampling.

    Vehtari et al., arXiv 1507.04544 and 1507.02646.

    Parameters
    ----------
    fit : Fit
        A sampled posterior.

    Returns
    -------
    arviz_stats.ELPDData
        ``elpd`` and ``se`` (nats, all runs), ``p``, and by run ``elpd_i`` and ``pareto_k``: above
        ``good_k`` importance sampling fails for that run.

    Examples
    --------
    Draws of the prior are no sample of the posterior, and Pareto's k says so:

    >>> import warnings
    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> runs = load_dataset("simulated").checkpoints("last").select(range(4))
    >>> with warnings.catch_warnings(action="ignore"):  # ArviZ warns of it
    ...     found = loo(prior_fit(runs, draws=50))
    >>> found.elpd_i.sizes, bool((found.pareto_k > found.good_k).any())
    (Frozen({'run': 4}), True)
    """
    import arviz as az  # takes longer to import than all else together

    values = run_log_likelihood(fit)
    kept = fit.posterior["posterior"].to_dataset()[["level"]].sel(draw=values["draw"].values)
    # a variable of the name of its dim would be counted wrong
    density = xr.Dataset({"log_density": values})
    tree = xr.DataTree.from_dict({"posterior": kept, "log_likelihood": density})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto", UserWarning)
        return az.loo(tree, pointwise=True, var_name="log_density")


def stack(fits: Mapping[str, Fit]) -> Stack:
    """Compare laws by `loo`, and weigh them so that their mixture predicts runs best.

    Yao et al., arXiv 1704.02030.

    Parameters
    ----------
    fits : mapping
        Two or more sampled posteriors by label, of one swarm.

    Returns
    -------
    Stack

    Raises
    ------
    ValueError
        If there is one fit only, or they are not of the same losses: laws without transfer leave
        out domains at weight 0.

    Examples
    --------
    With the priors' draws for fits, of which ArviZ warns (see `loo`):

    >>> import warnings
    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> runs = load_dataset("simulated").checkpoints("last").select(range(4))
    >>> fits = {law: prior_fit(runs, law, draws=50) for law in ("transfer", "quantization")}
    >>> with warnings.catch_warnings(action="ignore"):
    ...     compared = stack(fits)
    >>> list(compared.weights), round(sum(compared.weights.values()), 6)
    (['transfer', 'quantization'], 1.0)
    >>> compared.pareto_k.sizes
    Frozen({'law': 2, 'run': 4})
    >>> compared.predict(runs.frame.head(3)).draws["loss"].sizes["row"]
    3
    """
    if len(fits) < 2:
        raise ValueError("comparing laws takes two fits or more")
    first = next(iter(fits.values()))
    used = usable_cells(first.runs, laws.LAWS[first.law])
    for label, fit in fits.items():
        if fit.runs != first.runs:
            raise ValueError(f"the fits are of different runs: {label}")
        theirs = usable_cells(fit.runs, laws.LAWS[fit.law])
        if (theirs != used).any():
            raise ValueError(
                f"{label} is not of the same losses as the first fit: "
                f"{int((theirs != used).sum())} are used by one of them only"
            )
    import arviz as az

    found = {label: loo(fit) for label, fit in fits.items()}
    table = az.compare(found, method="stacking", round_to="none")
    pareto_k = xr.concat([found[label].pareto_k for label in fits], dim="law")
    most = min(one.good_k for one in found.values())
    return Stack(dict(fits), table, pareto_k.assign_coords(law=list(fits)), most)
