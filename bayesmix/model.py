"""The PyMC model of a swarm: the law, what it leaves of printed zeros and scales, and noise."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesmix import law as laws
from bayesmix import noise, ops
from bayesmix.anchored import anchored_parameters, bounded
from bayesmix.discrepancy import scales
from bayesmix.model_data import data
from bayesmix.pooling import pooled
from bayesmix.priors import LEAST_DOF, Normal, Prior
from bayesmix.reference import reference, swarm_priors
from bayesmix.runs import Runs, equal_points
from bayesmix.transfer import transfer_rows

MODEL_VERSION = 14


def components(runs: Runs) -> tuple[str, ...]:
    """Names of what has a loss: the domains, then ``target:<name>``."""
    return (*runs.domains, *(f"target:{name}" for name in runs.targets))


def observed_domains(runs: Runs) -> tuple[str, ...]:
    """The domains with observed losses, over which ``mean`` is taken."""
    seen = np.isfinite(runs.losses.values).any(axis=0)
    return tuple(d for d, s in zip(runs.domains, seen, strict=True) if s)


def observed_log_loss(runs: Runs) -> np.ndarray:
    """Log losses of rows and components, shape (R, C), NaN where not evaluated."""
    return np.log(np.concatenate([runs.losses.values, runs.target_losses.values], axis=1))


def usable_cells(runs: Runs, variant: laws.Variant) -> np.ndarray:
    """Cells that the likelihood uses, shape (R, C): observed, and finite under the law.

    Without transfer a domain at weight 0 has no effective tokens and an infinite loss; Dai &
    Zheng drop such cells.
    """
    usable = np.isfinite(observed_log_loss(runs))
    if variant.noise and not variant.transfer:
        usable[:, : len(runs.domains)] &= runs.effective_weights().values > 0
    return usable


def build_model(
    runs: Runs,
    law: str = "transfer",
    priors: Mapping[str, Prior] | None = None,
    groups: Mapping[str, str] | None = None,
    *,
    centre: bool = True,
) -> pm.Model:
    """The model of a swarm under a variant of the law.

    Parameters
    ----------
    runs : Runs
        The swarm; every row enters, so choose checkpoints first.
    law : str
        A name in `bayesmix.law.LAWS`.
    priors : mapping, optional
        Replacements for `default_priors`, by name.
    groups : mapping, optional
        {domain: group}: tau is equal for all pairs of domains of the same two groups, so that its
        unknowns grow with groups, not domains. A domain that is not named is a group of its own.
    centre : bool
        Whether tau and the curvatures are sampled as they are as far as data inform them, and not
        against their means: the same density, in which long trajectories move more easily. Those
        that end where they turn are too short for it, and a joint mode is not the same: it shrinks
        the spread of what is centred.

    Returns
    -------
    pymc.Model
        With coords ``domain``, ``source``, ``component`` (domains, then targets), ``target``,
        ``run`` and ``cell`` (distinct N and D, see `discrepancy.Scales`).

    Raises
    ------
    ValueError
        If the law, a prior's name or a domain in a group is unknown, there are groups and the
        law has no transfer, or a row is there twice (as in a sample with replacement).
    """
    variant = laws.variant(law)
    if (twice := runs.frame.duplicated()).any():
        raise ValueError(
            f"{twice.sum()} rows repeat others in everything: they would count as evidence twice"
        )
    if groups and not variant.transfer:
        raise ValueError(f"groups are of tau, which law {law!r} has not")
    ref = reference(runs)
    prior = swarm_priors(runs, law, priors)
    coords = {
        "domain": runs.domains,
        "source": runs.domains,
        "component": components(runs),
        "target": runs.targets,
        "run": np.unique(runs.run_ids.values),
        "cell": np.arange(len(scales(runs).log_scale)),
    }
    with pm.Model(coords=coords) as model:
        # means follow the swarm's N and D: as constants they would be part of the code. The
        # floor's does not, and its coordinate needs a number
        prior = {
            name: replace(p, mu=data(float(p.mu)))
            if isinstance(p, Normal) and name != "floor"
            else p
            for name, p in prior.items()
        }
        usable = usable_cells(runs, variant)
        tau = transfer_rows(runs, prior, groups or {}, transfer=variant.transfer, centre=centre)
        parameters = anchored_parameters(
            runs, ref, variant, prior, tau, usable, _log_medians(runs), centre=centre
        )
        at = laws.points(
            runs.effective_weights().values, runs.n_params.values, runs.n_tokens.values
        )
        loss = ops.losses(parameters, [data(array) for array in at.arrays], variant)
        loss = _at_printed_zeros(runs, loss, prior, usable)
        _likelihood(runs, loss, _offset(runs, prior), prior, usable)
    return model


def _at_printed_zeros(runs: Runs, loss, prior, usable: np.ndarray):
    """The law's losses (R, C), shifted where the domain's weight was printed as 0.

    The law takes such a weight for half the resolution, and it may be anything below. Without a
    shift a domain that one run alone has would be noise there, or bend the law for all.
    """
    if runs.weight_resolution == 0:
        return loss
    zeros = usable & (weight_doubt(runs.weights.values, 0.0, usable.shape[1]) == noise.UNSEEN)
    count = zeros.sum(axis=0)
    zeros, none, count = data(zeros * 1.0), data((count == 0) * 1.0), data(np.maximum(count, 1.0))
    law = pt.log(((zeros * loss).sum(axis=0) + none) / count)
    # sampled is the level there, which data fix whatever the law's is
    spread = prior["zero_spread"].rv("zero_spread")
    level = pm.Normal("zero_offset", law, spread, dims="component")
    shift = pm.Deterministic("zero_shift", level - law, dims="component")
    # exponentials of components, not of cells
    return loss * (1 + zeros * (pt.exp(shift) - 1))


def _log_medians(runs: Runs) -> np.ndarray:
    """Log median loss of each component; without losses, the mean of the others'."""
    observed = observed_log_loss(runs)
    medians = np.full(observed.shape[1], np.nan)
    seen = np.isfinite(observed).any(axis=0)
    medians[seen] = np.nanmedian(observed[:, seen], axis=0)
    return np.where(seen, medians, medians[seen].mean())


def weight_doubt(weights: np.ndarray, resolution: float, n_components: int) -> np.ndarray:
    """Doubt about the log of each domain's own weight, shape (R, C): 1 where it was not seen.

    A weight printed to a resolution is uncertain by ``resolution / sqrt(3)``, whose effect is the
    loss's elasticity; that of a domain at 0 by a factor of e or so, and no law is at its best on a
    domain that was never seen: their scales are two.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        printed = resolution / (resolution + math.sqrt(3) * weights)
    doubt = np.zeros((len(weights), n_components))
    doubt[:, : weights.shape[1]] = np.where(weights > 0, printed, noise.UNSEEN)
    return doubt


def _offset(runs: Runs, prior):
    """The law's offsets in log loss at the fitted scales (M, C): see `discrepancy.py`."""
    cells = scales(runs)
    bases = cells.offset_bases()
    n_components = len(components(runs))
    shared = pm.math.sigmoid(prior["discrepancy_correlation"].rv("discrepancy_logit"))
    shared = pm.Deterministic("discrepancy_correlation", shared)
    # of predictions: the offsets of a fit hold none of it, see `misfit.py`
    prior["bend_scale"].rv("bend_scale")
    if cells.unseen.size:
        prior["slope_scale"].rv("slope_scale")
    # one product for all bases: code for each would be compiled apart
    rank = [basis.shape[1] for basis in bases.values()]
    of_basis = np.repeat(np.eye(len(bases)), rank, axis=1)
    scale = sum(
        data(columns) * prior[name].rv(name) for name, columns in zip(bases, of_basis, strict=True)
    )
    n_rows = data(sum(rank))
    own = pm.Normal("offset_z", shape=(n_rows, data(n_components)))
    # times ones: its gradient is a sum of products then, and a bare sum is slow to compile
    common = pm.Normal("offset_common_z", shape=n_rows)[:, None] * data(np.ones(n_components))
    z = scale[:, None] * (pt.sqrt(shared) * common + pt.sqrt(1 - shared) * own)
    offset = pt.dot(data(np.concatenate(list(bases.values()), axis=1)), z)
    return pm.Deterministic("offset", offset, dims=("cell", "component"))


def _likelihood(runs: Runs, loss, offset, prior, usable: np.ndarray):
    """Student-t noise in log loss, and an effect of the run that its components share.

    The effects of a run and component are integrated out, see `noise.py`; what all components of
    a run share is Gaussian, ``common_i f_run``, and sampled. Left free, the f would take on what
    the law does not fit, at no cost in t noise: so they have no trend over scales and mixtures.
    All errors of a run may be wider than a regular one's: how much is exponential, and sampled.
    """

    def scale_of(prefix, *, informed):
        return pt.exp(pooled(prefix, prior, "component", informed=informed))

    observed = np.where(usable, observed_log_loss(runs), np.nan)
    doubt = weight_doubt(runs.weights.values, runs.weight_resolution, observed.shape[1])
    run = np.unique(runs.run_ids.values, return_inverse=True)[1]
    cells = noise.cells(observed, doubt, scales(runs), run, repeats(runs))
    # the data fix what both make together; how they share it is a ridge
    total = scale_of("sigma", informed=True)
    ratio = scale_of("common", informed=False)
    sigma = pm.Deterministic("sigma", total / pt.sqrt(1 + ratio**2), dims="component")
    common = pm.Deterministic("common", sigma * ratio, dims="component")
    # without a zero in the swarm it is the prior's, for predictions at one
    zeros = (usable & (doubt == noise.UNSEEN)).sum(axis=0)
    unseen = scale_of("unseen", informed=zeros / (zeros + 1))
    unseen = pm.Deterministic("sigma_unseen", unseen, dims="component")
    printed = pt.zeros_like(sigma)
    if runs.weight_resolution > 0:
        # an elasticity, so bounded as the exponents are
        printed = bounded(pooled("printed", prior, "component", informed=False))
        printed = pm.Deterministic("sigma_weight", printed, dims="component")
    phi = rho = pt.constant(0.0)
    if np.diff(cells.group_start).max() > 1:
        phi = pm.Deterministic("phi", pm.math.sigmoid(prior["misfit_share"].rv("phi_logit")))
        rho = phi
    if np.diff(cells.run_start).max() > 1:
        rho = phi + (1 - phi) * pm.math.sigmoid(prior["checkpoint_correlation"].rv("rho_logit"))
        rho = pm.Deterministic("rho", rho)
    effect = ops.without_trend(pm.Normal("run_z", dims="run"), data(run_trend(runs)))
    outlier = prior["outlier_scale"].rv("outlier_scale")
    outlier *= pm.Exponential("outlier_z", 1.0, dims="run")
    # lighter: two cells could else be noise of 100 sigma, at the price of a few nats
    dof = pm.Deterministic("dof", LEAST_DOF + prior["dof_excess"].rv("dof_z"))
    dof_unseen = prior["dof_unseen"].rv("dof_unseen")
    likelihood = ops.log_likelihood(
        loss, offset, sigma, printed, unseen, common, effect, outlier, dof, dof_unseen, rho, phi,
        [data(array) for array in cells.arrays], [data(array) for array in cells.sizes],
    )  # fmt: skip
    pm.Potential("log_likelihood", likelihood)


def run_trend(runs: Runs) -> np.ndarray:
    """Orthonormal basis of 1, log N, log D and the weights over the runs, shape (runs, rank)."""
    run = np.unique(runs.run_ids.values, return_inverse=True)[1]
    logs = np.log(np.column_stack([runs.n_params.values, runs.n_tokens.values]))
    each = np.column_stack([logs, runs.weights.values])
    of_run = np.array([each[run == r].mean(axis=0) for r in range(run.max() + 1)])
    centred = of_run - of_run.mean(axis=0)
    left, size, _ = np.linalg.svd(np.column_stack([np.ones(len(centred)), centred]), False)
    return left[:, size > 1e-6 * size[0]]


def repeats(runs: Runs) -> np.ndarray:
    """Code of the (mixture, N) of each row, shape (R,): equal where a run is repeated."""
    return equal_points(runs.weights.values, np.log(runs.n_params.values))


# what the posterior keeps of the random variables: the rest is a rescaling of a Deterministic
def kept_variables(model: pm.Model) -> list[str]:
    """Names that a posterior keeps: hyper-parameters and everything in natural units."""
    raw = {v.name for v in model.free_RVs if v.name.endswith(("_z", "_logit", "_log", "_offset"))}
    return [v.name for v in model.unobserved_RVs if v.name not in raw]
