"""The PyMC model: the law anchored at a reference point, partially pooled across domains.

Sampled are levels (the loss of each component at the reference), shares (how a level splits into
irreducible, capacity, noise and head) and exponents; E, c, A, G and Q follow in closed form, all
positive by construction (Dai & Zheng, arXiv 2606.08167, Theorem 4.1).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesmix import law as laws
from bayesmix import noise, ops
from bayesmix.coordinates import LogSoftplus
from bayesmix.discrepancy import scales
from bayesmix.pooling import between, by_sum, data, mean_and_spread, pooled
from bayesmix.priors import (
    EXPONENT_MAX,
    LEAST_DOF,
    Normal,
    Prior,
)
from bayesmix.reference import Reference, reference, swarm_priors
from bayesmix.runs import Runs

MODEL_VERSION = 14
# correlation of log N and log D over rows from which D follows N
_ONE_PATH = 0.999
# how a coordinate of b goes with the log of a log ratio to H: chosen by effective draws
_BENT = 1.75


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
    centre_tau: bool = True,
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
    centre_tau : bool
        Whether tau is sampled as it is as far as data inform it (`centring`), and not all against
        its mean: the same density, in which chains move more easily. A joint mode is not the same:
        it shrinks the spread of what is centred.

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
    pair = transfer_pairs(runs.domains, groups or {})
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
        centred = centring(runs, groups or {}) if centre_tau else np.zeros(len(runs.domains))
        parameters = _anchored_parameters(runs, ref, variant, prior, pair, centred, usable)
        at = laws.points(
            runs.effective_weights().values, runs.n_params.values, runs.n_tokens.values
        )
        loss = ops.losses(parameters, [data(array) for array in at.arrays], variant)
        loss = _at_printed_zeros(runs, loss, prior, usable)
        _likelihood(runs, loss, _offset(runs, prior), prior, usable)
    return model


def _elasticities(prior: Mapping[str, Prior], n_targets: int, own, variant):
    """Log odds of the elasticities of capacity (K,) and noise (C,), over EXPONENT_MAX.

    Data fix what both do together as a domain's own weight varies, which for noise is the log of
    the elasticity and of its `own` part in its effective tokens.
    """
    if not variant.noise:
        return pooled("capacity", prior, "domain", informed=True), None
    normals = mean_and_spread("capacity", prior), mean_and_spread("noise", prior)
    capacity, noises = by_sum("own", normals, (0.0, own), "domain", centred=0.5)
    if n_targets:
        of_targets = pm.Normal("noise_target_logit", *normals[1], dims="target")
        noises = pt.concatenate([noises, of_targets])
    return capacity, noises


def _heads(runs: Runs, ref: Reference, prior: Mapping[str, Prior], g, q):
    """Log elasticities of both heads (C,), against what is left."""
    log_n, log_d = np.log(runs.n_params.values), np.log(runs.n_tokens.values)
    slope_n = 0.0 if ref.one_size else _log_slope(log_n, g)
    slope_d = 0.0 if ref.one_horizon else _log_slope(log_d, q)
    if ref.one_size or ref.one_horizon or np.corrcoef(log_n, log_d)[0, 1] < _ONE_PATH:
        told = not ref.one_horizon and np.unique(runs.n_tokens.values).size > 2
        head_n = pooled("head_n", prior, "component", informed=not ref.one_size, shift=slope_n)
        return head_n, pooled("head_d", prior, "component", informed=told, shift=slope_d)
    # D follows N, and data fix what both do together: an e-fold of N brings so many of D
    rate = data(math.log(np.polyfit(log_n, log_d, 1)[0]))
    shifts, names = (slope_n, rate + slope_d), ("head_n", "head_d")
    means: list[Any] = [prior[f"{name}_mean"] for name in names]
    if all(isinstance(mean, Normal) for mean in means):
        normals = [(mean.mu, mean.sigma) for mean in means]
        both = by_sum("head_mean", normals, shifts, None, exponents=(g, q))
        means = [
            pm.Deterministic(f"{name}_mean", mean) for name, mean in zip(names, both, strict=True)
        ]
    else:
        means = [mean.rv(f"{name}_mean") for name, mean in zip(names, means, strict=True)]
    spreads = [prior[f"{name}_spread"].rv(f"{name}_spread") for name in names]
    normals = list(zip(means, spreads, strict=True))
    return by_sum("head", normals, shifts, "component", exponents=(g, q))


def _powers(logs: np.ndarray, exponent):
    """``exp(-exponent x)`` of distinct x, which are from the mean of rows, with x and counts."""
    values, counts = np.unique(logs - logs.mean(), return_counts=True)
    return pt.exp(-exponent * data(values)), values, counts


def _mean_power(logs: np.ndarray, exponent):
    """Mean of ``exp(-exponent x)`` over rows, x from their mean."""
    powers, _, counts = _powers(logs, exponent)
    return (data(counts / counts.sum()) * powers).sum()


def _log_slope(logs: np.ndarray, exponent):
    """Log of the slope of ``-exp(-exponent x) / exponent`` over rows, x from their mean."""
    powers, values, counts = _powers(logs, exponent)
    weights = counts * values / (counts * values**2).sum()
    return pt.log(-(data(weights) * powers).sum() / exponent)


def _floor_logit(prior: Prior):
    """Logit of H over the smallest N; data bound H from above and hardly from below."""
    if not isinstance(prior, Normal):
        return prior.rv("floor_logit")
    return prior.rv("floor_logit", coordinate=LogSoftplus(prior.mu - math.log(4)))


def _exponent(logit):
    return EXPONENT_MAX * pm.math.sigmoid(logit)


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


def transfer_pairs(domains: Sequence[str], groups: Mapping[str, str]) -> np.ndarray:
    """Code of the two groups of each ordered pair of domains, row by row, the diagonal left out.

    Parameters
    ----------
    domains : sequence of str
    groups : mapping
        {domain: group}.

    Raises
    ------
    ValueError
        If a group has a domain that there is not.

    Examples
    --------
    >>> transfer_pairs(["c", "python", "web"], {"c": "code", "python": "code"}).tolist()
    [0, 1, 0, 1, 2, 2]
    """
    unknown = [name for name in groups if name not in domains]
    if unknown:
        raise ValueError(
            f"groups: unknown domain {', '.join(map(repr, unknown))}; valid names: "
            f"{', '.join(domains)}"
        )
    code = _group_codes(domains, groups)
    i, j = np.nonzero(~np.eye(len(domains), dtype=bool))
    pairs = np.column_stack([code[i], code[j]])
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)


def _group_codes(domains: Sequence[str], groups: Mapping[str, str]) -> np.ndarray:
    """Of each domain's group, the place of its first domain."""
    # a pair sets a name that was given apart from that of a lone domain
    names = [(name in groups, groups.get(name, name)) for name in domains]
    return np.array([names.index(name) for name in names])


def _anchored_parameters(
    runs,
    ref: Reference,
    variant,
    prior,
    pair: np.ndarray,
    centred: np.ndarray,
    usable: np.ndarray,
):
    """The law's natural parameters from levels, elasticities and shares at the reference."""
    n_domains, n_targets = len(runs.domains), len(runs.targets)
    domains = slice(data(n_domains)) if n_targets else slice(None)

    def of_domains(values):
        return pt.concatenate([values, data(np.zeros(n_targets))]) if n_targets else values

    zeros = data(np.zeros(n_domains + n_targets))
    # A level is split by four sticks, from what data fix best to what they fix least.
    # 1: elasticities, -dlog L / dlog x = share * b and -dlog L / dlog T = share * a, each at
    #    least share * EXPONENT_MAX, which bounds the exponents
    weights = data(ref.weights)
    tau = _transfer(n_domains, n_targets, prior, variant, pair, centred)
    own = pt.log(weights / (tau * weights).sum(axis=1)[domains])
    log_b, log_a = _elasticities(prior, n_targets, own, variant)
    odds_b = of_domains(pt.exp(log_b))
    odds_a = pt.exp(log_a) if variant.noise else zeros
    rest = 1 / (1 + odds_b + odds_a)
    least_capacity, least_noise = odds_b * rest, odds_a * rest
    # 2: the shared head, but for what of it is the same in all runs
    odds_n = odds_d = zeros
    g = q = pt.constant(1.0)
    if variant.head:
        g = pm.Deterministic("g", _exponent(prior["g"].rv("g_logit")))
        q = pm.Deterministic("q", _exponent(prior["q"].rv("q_logit")))
        head_n, head_d = _heads(runs, ref, prior, g, q)
        odds_n, odds_d = pt.exp(head_n) / g, pt.exp(head_d) / q
    heads = (odds_n, ref.one_size), (odds_d, ref.one_horizon)
    left = rest / (1 + sum(odds for odds, same in heads if not same))
    log_n = data(math.log(ref.n_params))
    floor_share = pm.math.sigmoid(_floor_logit(prior["floor"]))
    log_smallest = data(math.log(runs.n_params.values.min()))
    log_H = pm.Deterministic("log_H", pt.log(floor_share) + log_smallest)
    # 3: curvature: what the capacity and noise terms have beyond the least, and what is constant
    #    data fix b, of which the constant is no part
    odds_a = zeros
    if variant.noise:
        # data fix that of some domains, which may be far from their mean
        odds_a = pt.exp(pooled("noise_curvature", prior, "component", informed=0.5))
    bent = pt.log((left / (1 + odds_a) / least_capacity)[domains])
    if runs.weight_resolution == 0:
        # a domain left out has capacity H: of b its log ratio to what it is else is seen, which b
        # less than the bound enters by some more than itself; softplus, since H may be above
        left_out = (usable[:, :n_domains] & (runs.weights.values == 0)).sum(axis=0)
        bent -= data(_BENT * left_out / (left_out + 1)) * pt.log1p(
            pt.softplus(pt.log(weights) + log_n - log_H)
        )
    log_b = pooled("capacity_curvature", prior, "domain", informed=True, shift=bent)
    odds_b = of_domains(pt.exp(log_b))
    constant = left / (1 + odds_b + odds_a)
    capacity = (least_capacity + constant * odds_b)[domains]
    noise = least_noise + constant * odds_a
    # 4: the irreducible among that, which no run tells from a head that is the same in all: split
    #    before the curvature, one of them or the other would take a large loss, in two modes
    irreducible = constant / (1 + sum(odds for odds, same in heads if same))
    head_n, head_d = ((irreducible if same else left) * odds for odds, same in heads)
    pm.Deterministic("share_irreducible", irreducible, dims="component")
    pm.Deterministic("share_capacity", capacity, dims="domain")
    if variant.noise:
        pm.Deterministic("share_noise", noise, dims="component")
    if variant.head:
        pm.Deterministic("share_head_n", head_n, dims="component")
        pm.Deterministic("share_head_d", head_d, dims="component")
    of_runs = (head_n, g, np.log(runs.n_params.values)), (head_d, q, np.log(runs.n_tokens.values))
    seen = [head for head, (_, same) in zip(of_runs, heads, strict=True) if not same]
    level = _level(runs, prior, seen if variant.head else [])
    E = pm.Deterministic("E", level * irreducible, dims="component")
    b = pm.Deterministic("b", EXPONENT_MAX * least_capacity[domains] / capacity, dims="domain")
    log_capacity = pt.log(level[domains] * capacity)
    log_d = data(math.log(ref.n_tokens))
    log_x = ops.reference_log_x(weights, b, log_capacity, log_n, log_H)
    log_c = pm.Deterministic("log_c", log_capacity + b * log_x, dims="domain")

    a, log_A, fade = zeros + 1, zeros, pt.constant(1.0)
    if variant.transfer and not ref.one_horizon:
        fade = pm.Deterministic("fade", pm.math.sigmoid(prior["fade"].rv("fade_logit")))
    if variant.noise:
        a = pm.Deterministic("a", EXPONENT_MAX * least_noise / noise, dims="component")
        log_t = fade * log_d + pt.log((tau * weights).sum(axis=1))
        log_A = pm.Deterministic("log_A", pt.log(level * noise) + a * log_t, dims="component")
    log_G = log_Q = zeros
    if variant.head:
        log_G = pt.log(level * head_n) + g * log_n
        log_Q = pt.log(level * head_d) + q * log_d
        log_G = pm.Deterministic("log_G", log_G, dims="component")
        log_Q = pm.Deterministic("log_Q", log_Q, dims="component")
    return {
        "E": E, "log_c": log_c, "b": b, "log_A": log_A, "a": a, "tau": tau,
        "log_G": log_G, "g": g, "log_Q": log_Q, "q": q, "log_H": log_H, "fade": fade,
    }  # fmt: skip


def _level(runs: Runs, prior: Mapping[str, Prior], heads):
    """Losses at the reference (C,), nats; `heads` have the share, exponent and log size of runs."""
    medians, normal = data(_log_medians(runs)), prior["level"]
    if not isinstance(normal, Normal) or not heads:
        log_level = normal.rv("level_offset", dims="component")
    else:
        # data fix the mean over runs, which the heads bend
        beyond = [share * (_mean_power(logs, exponent) - 1) for share, exponent, logs in heads]
        bent = pt.log1p(sum(beyond))
        level = pm.Normal("level_offset", normal.mu + bent, normal.sigma, dims="component")
        log_level = level - bent
    return pm.Deterministic("level", pt.exp(log_level + medians), dims="component")


def _transfer(
    n_domains: int, n_targets: int, prior, variant, pair: np.ndarray, centred: np.ndarray
):
    """tau (C, K): ones on the diagonal, a simplex row per target; identity without transfer."""
    rows = data(np.eye(n_domains))
    if variant.transfer:
        # anchored at close kin, which data inform; the many small pairs only bound the spread
        spread = prior["tau_spread"].rv("tau_spread")
        mean = prior["tau_kin"].rv("tau_kin") - spread
        i, j = np.nonzero(~np.eye(n_domains, dtype=bool))
        first = np.unique(pair, return_index=True)[1]
        source, shape = data(j[first]), data(len(first))
        logit = between("tau_z", mean, spread, data(centred), source, shape=shape)
        if len(first) < pair.size:
            logit = logit[data(pair)]
        rows = pt.set_subtensor(rows[data(i), data(j)], pm.math.sigmoid(logit))
    if n_targets:
        flat = data(np.ones(n_domains))
        target_rows = pm.Dirichlet("tau_target", flat, dims=("target", "source"))
        rows = pt.concatenate([rows, target_rows], axis=0)
    if variant.transfer or n_targets:
        pm.Deterministic("tau", rows, dims=("component", "source"))
    return rows


def centring(runs: Runs, groups: Mapping[str, str]) -> np.ndarray:
    """How far the tau of each source (K,) are sampled as they are, and not against their mean.

    From 0, all against the mean, where no run has the source or another of its group, to 1; a half
    where what the runs have of it makes one run of it alone (docs/sampling.md).

    Examples
    --------
    >>> from bayesmix import load_dataset
    >>> centring(load_dataset("tinyswarm"), {}).round(2).tolist()
    [0.91, 0.9, 0.91, 0.93, 0.87, 0.85]
    """
    one_a_run = np.unique(runs.run_ids.values, return_index=True)[1]
    code = _group_codes(runs.domains, groups)
    weights = runs.effective_weights().values[one_a_run] @ (code[:, None] == code)
    alone = (weights**2).sum(axis=0)
    return alone / (alone + 1)


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
        printed = _exponent(pooled("printed", prior, "component", informed=False))
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
    points = np.column_stack([runs.weights.values, np.log(runs.n_params.values)]).round(6)
    return np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)


# what the posterior keeps of the random variables: the rest is a rescaling of a Deterministic
def kept_variables(model: pm.Model) -> list[str]:
    """Names that a posterior keeps: hyper-parameters and everything in natural units."""
    raw = {v.name for v in model.free_RVs if v.name.endswith(("_z", "_logit", "_log", "_offset"))}
    return [v.name for v in model.unobserved_RVs if v.name not in raw]
