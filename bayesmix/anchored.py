"""The law's parameters, anchored at a reference point and partially pooled across domains.

Sampled are levels (the loss of each component at the reference), shares (how a level splits into
irreducible, capacity, noise and head) and exponents; E, c, A, G and Q follow in closed form, all
positive by construction (Dai & Zheng, arXiv 2606.08167, Theorem 4.1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from bayesmix import law as laws
from bayesmix import ops
from bayesmix.coordinates import LogSoftplus
from bayesmix.model_data import data
from bayesmix.pooling import by_sum, mean_and_spread, pooled
from bayesmix.priors import EXPONENT_MAX, Normal, Prior
from bayesmix.reference import Reference
from bayesmix.runs import Runs

# correlation of log N and log D over rows from which D follows N
_ONE_PATH = 0.999
# how a coordinate of b goes with the log of a log ratio to H: chosen by effective draws
_BENT = 1.75


def anchored_parameters(
    runs: Runs,
    ref: Reference,
    variant: laws.Variant,
    prior: Mapping[str, Prior],
    tau: TensorVariable,
    usable: np.ndarray,
    log_medians: np.ndarray,
    *,
    centre: bool,
) -> dict[str, Any]:
    """The law's natural parameters from levels, elasticities and shares at the reference.

    To be called inside a model.

    Parameters
    ----------
    runs : Runs
    ref : Reference
    variant : Variant
    prior : mapping
        By name, see `default_priors`.
    tau : TensorVariable, shape (C, K)
    usable : array, shape (R, C)
        Cells that the likelihood uses.
    log_medians : array, shape (C,)
        Of the losses, nats, which levels are against.
    centre : bool
        Whether curvatures are sampled as they are, as far as data fix them.

    Returns
    -------
    dict
        By the names of `law.PARAMETERS`, as they are in the law.
    """
    n_domains, n_targets = len(runs.domains), len(runs.targets)
    domains = slice(data(n_domains)) if n_targets else slice(None)

    def of_domains(values: TensorVariable) -> TensorVariable:
        return pt.concatenate([values, data(np.zeros(n_targets))]) if n_targets else values

    zeros = data(np.zeros(n_domains + n_targets))
    # A level is split by four sticks, from what data fix best to what they fix least.
    # 1: elasticities, -dlog L / dlog x = share * b and -dlog L / dlog T = share * a, each at
    #    least share * EXPONENT_MAX, which bounds the exponents
    weights = data(ref.weights)
    own = pt.log(weights / (tau * weights).sum(axis=1)[domains])
    log_b, log_a = _elasticities(prior, n_targets, own, variant)
    odds_b = of_domains(pt.exp(log_b))
    odds_a = pt.exp(log_a) if variant.noise else zeros
    rest = 1 / (1 + odds_b + odds_a)
    least_capacity, least_noise = odds_b * rest, odds_a * rest
    # 2: the shared head, but for what of it is the same in all runs
    odds_n = odds_d = zeros
    g = q = pt.constant(1.0)
    paths: list[_Path | None] = [None, None]
    if variant.head:
        g = pm.Deterministic("g", bounded(prior["g"].rv("g_logit")))
        q = pm.Deterministic("q", bounded(prior["q"].rv("q_logit")))
        axes = (runs.n_params, g, ref.one_size), (runs.n_tokens, q, ref.one_horizon)
        paths = [None if same else _path(np.log(x.values), e) for x, e, same in axes]
        head_n, head_d = _heads(runs, prior, g, q, *paths)
        odds_n, odds_d = pt.exp(head_n) / g, pt.exp(head_d) / q
    heads = (odds_n, ref.one_size), (odds_d, ref.one_horizon)
    left = rest / (1 + sum(odds for odds, same in heads if not same))
    log_n = data(math.log(ref.n_params))
    floor_share = pm.math.sigmoid(_floor_logit(prior["floor"]))
    log_smallest = data(math.log(runs.n_params.values.min()))
    log_H = pm.Deterministic("log_H", pt.log(floor_share) + log_smallest)
    # 3: curvature: what the capacity and noise terms have beyond the least, and what is constant.
    #    Sampled of capacity is b, on a scale of its own: data fix it, whatever the constant is
    odds_a = zeros
    if variant.noise:
        # data fix that of some domains, which may be far from their mean
        odds_a = pt.exp(pooled("noise_curvature", prior, "component", informed=centre and 0.5))
    bent = pt.log((left / (1 + odds_a))[domains] / least_capacity[domains])
    # a domain left out has capacity H: of b its log ratio to what it is else is seen, which b less
    # than the bound enters by some more than itself; softplus, since H may be above
    left_out = (usable[:, :n_domains] & (runs.weights.values == 0)).sum(axis=0)
    ratio = pt.softplus(pt.log(weights) + log_n - log_H)
    bent -= data(_BENT * left_out / (left_out + 1)) * pt.log1p(ratio)
    log_b = pooled("capacity_curvature", prior, "domain", informed=centre, shift=bent)
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
    seen = [(share, path) for share, path in zip((head_n, head_d), paths, strict=True) if path]
    level = _level(log_medians, prior, seen)
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


def _elasticities(
    prior: Mapping[str, Prior], n_targets: int, own: TensorVariable, variant: laws.Variant
) -> tuple[TensorVariable, TensorVariable | None]:
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


@dataclass(frozen=True)
class _Path:
    """What rows say of a head in N, or in D."""

    powers: TensorVariable  # exp(-exponent x) - 1, of `x`
    exponent: TensorVariable
    x: np.ndarray  # distinct logs of N or D, from the mean of rows
    counts: np.ndarray  # rows of each


def _path(logs: np.ndarray, exponent: TensorVariable) -> _Path:
    x, counts = np.unique(logs - logs.mean(), return_counts=True)
    return _Path(pt.expm1(-exponent * data(x)), exponent, x, counts)


def _heads(
    runs: Runs,
    prior: Mapping[str, Prior],
    g: TensorVariable,
    q: TensorVariable,
    path_n: _Path | None,
    path_d: _Path | None,
) -> tuple[TensorVariable, TensorVariable]:
    """Log elasticities of both heads (C,), against what is left."""
    log_n, log_d = np.log(runs.n_params.values), np.log(runs.n_tokens.values)
    slope_n, slope_d = (_log_slope(path) if path else 0.0 for path in (path_n, path_d))
    if not (path_n and path_d) or np.corrcoef(log_n, log_d)[0, 1] < _ONE_PATH:
        told = path_d is not None and len(path_d.x) > 2
        head_n = pooled("head_n", prior, "component", informed=bool(path_n), shift=slope_n)
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


def _beyond(path: _Path) -> TensorVariable:
    """Mean of ``exp(-exponent x) - 1`` over rows."""
    return (data(path.counts / path.counts.sum()) * path.powers).sum()


def _log_slope(path: _Path) -> TensorVariable:
    """Log of the slope of ``-exp(-exponent x) / exponent`` over rows."""
    weights = path.counts * path.x / (path.counts * path.x**2).sum()
    return pt.log(-(data(weights) * path.powers).sum() / path.exponent)


def _floor_logit(prior: Prior) -> TensorVariable:
    """Logit of H over the smallest N; data bound H from above and hardly from below."""
    if not isinstance(prior, Normal):
        return prior.rv("floor_logit")
    return prior.rv("floor_logit", coordinate=LogSoftplus(prior.mu - math.log(4)))


def bounded(logit: TensorVariable) -> TensorVariable:
    """From 0 to `EXPONENT_MAX`."""
    return EXPONENT_MAX * pm.math.sigmoid(logit)


def _level(
    log_medians: np.ndarray,
    prior: Mapping[str, Prior],
    heads: list[tuple[TensorVariable, _Path]],
) -> TensorVariable:
    """Losses at the reference (C,), nats; `heads` have the share of each that runs tell."""
    medians, offset = data(log_medians), prior["level"]
    if not isinstance(offset, Normal) or not heads:
        log_level = offset.rv("level_offset", dims="component")
    else:
        # data fix the mean over runs, which the heads bend
        bent = pt.log1p(sum(share * _beyond(path) for share, path in heads))
        level = pm.Normal("level_offset", offset.mu + bent, offset.sigma, dims="component")
        log_level = level - bent
    return pm.Deterministic("level", pt.exp(log_level + medians), dims="component")
