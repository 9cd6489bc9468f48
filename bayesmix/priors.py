"""Priors as data: every one a named distribution that can be seen, plotted and replaced.

The names are what the model needs and `default_priors` says why each is what it is. Spreads
across domains are log-normal, not half-normal: a spread that touches zero makes a funnel.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pymc as pm
from pymc.logprob.transforms import Transform
from scipy import stats

EXPONENT_MAX = 0.9
LEAST_DOF = 8.0


@dataclass(frozen=True)
class Normal:
    """Normal prior.

    Examples
    --------
    >>> Normal(0.0, 0.3)
    Normal(mu=0.0, sigma=0.3)
    """

    mu: float
    sigma: float

    def rv(self, name: str, dims: str | None = None, *, coordinate: Transform | None = None):
        """The PyMC random variable of this prior, in the model on the stack.

        The sampler walks in `coordinate`, if given.
        """
        return pm.Normal(name, self.mu, self.sigma, dims=dims, default_transform=coordinate)

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """At values, in nats."""
        return stats.norm.logpdf(values, self.mu, self.sigma)


@dataclass(frozen=True)
class LogNormal:
    """Log-normal prior: `mu` and `sigma` are those of the log.

    Examples
    --------
    >>> LogNormal(-1.0, 0.5)
    LogNormal(mu=-1.0, sigma=0.5)
    """

    mu: float
    sigma: float

    def rv(self, name: str, dims: str | None = None):
        """The PyMC random variable of this prior, in the model on the stack."""
        return pm.LogNormal(name, self.mu, self.sigma, dims=dims)

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """At values, in nats."""
        return stats.lognorm.logpdf(values, self.sigma, scale=math.exp(self.mu))


@dataclass(frozen=True)
class Gamma:
    """Gamma prior with shape `alpha` and rate `beta`.

    Examples
    --------
    >>> Gamma(2.0, 0.1)
    Gamma(alpha=2.0, beta=0.1)
    """

    alpha: float
    beta: float

    def rv(self, name: str, dims: str | None = None):
        """The PyMC random variable of this prior, in the model on the stack."""
        return pm.Gamma(name, self.alpha, self.beta, dims=dims)

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """At values, in nats."""
        return stats.gamma.logpdf(values, self.alpha, scale=1 / self.beta)


Prior = Normal | LogNormal | Gamma

# Chinchilla as refitted by Besiroglu et al., arXiv 2404.10102, table 1
_CHINCHILLA = {"E": 1.82, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3658}


# in the middle of the exponents that Kaplan et al. and Chinchilla found
_EXPONENT = 0.3


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def default_priors(
    n_params: float, n_tokens: float, *, one_size: bool = False, one_horizon: bool = False
) -> dict[str, Prior]:
    """The default priors, for a swarm whose reference point is at the given N and D.

    How a loss splits at the reference comes from the scaling-law literature: of Chinchilla's
    N-term half is put to capacity competition and half to the shared head, of its D-term half to
    data noise and half to the head. All else is scale-free. One is not here and stays: the tau of a
    target are on the simplex, Dirichlet(1), since no tau of its own fixes their scale.

    Parameters
    ----------
    n_params, n_tokens : float
        N (parameters) and D (tokens) of the reference point.
    one_size, one_horizon : bool
        Whether all runs are of one N, and of one D, or the law has no head: that part of the head
        is then the same in all runs, or irreducible, and split last. The centres are those of the
        same losses; a prior that replaces one of the head or of the curvatures is against what
        it is split from, which is another where N or D varies.

    Returns
    -------
    dict
        Name of the prior to its distribution.

    Examples
    --------
    >>> default_priors(1e9, 2e10)["level"]
    Normal(mu=0.0, sigma=0.3)
    """
    n_term = _CHINCHILLA["A"] * n_params ** -_CHINCHILLA["alpha"]
    d_term = _CHINCHILLA["B"] * n_tokens ** -_CHINCHILLA["beta"]
    # a byte-level or a tiny swarm leaves Chinchilla's range: keep the split within reason
    n_half = min(max(n_term / _CHINCHILLA["E"], 0.1), 2.0) / 2
    d_half = min(max(d_term / _CHINCHILLA["E"], 0.1), 2.0) / 2
    irreducible = 1 / (1 + 2 * n_half + 2 * d_half)
    least = _EXPONENT / EXPONENT_MAX
    flat = 1 - irreducible * least * (n_half + d_half)
    # over the irreducible: what is the same in all runs, and with it what is curved
    constant = 1 + one_size * n_half + one_horizon * d_half
    bent = constant + (1 - least) * (n_half + d_half)
    spread = LogNormal(math.log(0.4), 0.4)
    return {
        # log of the loss at the reference, less the log of the domain's median loss
        "level": Normal(0.0, 0.3),
        # log odds of the elasticities share * b and share * a, over EXPONENT_MAX
        "capacity_mean": Normal(math.log(irreducible * n_half * least / flat), 0.7),
        "capacity_spread": spread,
        "noise_mean": Normal(math.log(irreducible * d_half * least / flat), 0.7),
        "noise_spread": spread,
        # log of the head's elasticities against what is left, or against the irreducible where it
        # is split last; their exponents, on a logit scale of (0, EXPONENT_MAX): Kaplan and
        # Chinchilla found 0.05 to 0.37
        "head_n_mean": Normal(math.log(n_half * _EXPONENT / (1 if one_size else bent)), 0.7),
        "head_n_spread": spread,
        "head_d_mean": Normal(math.log(d_half * _EXPONENT / (1 if one_horizon else bent)), 0.7),
        "head_d_spread": spread,
        "g": Normal(_logit(_EXPONENT / EXPONENT_MAX), 0.5),
        "q": Normal(_logit(_EXPONENT / EXPONENT_MAX), 0.5),
        # log odds of the rest of the capacity and noise shares against what is the same in all runs
        "capacity_curvature_mean": Normal(math.log(n_half * (1 - least) / constant), 0.7),
        "capacity_curvature_spread": spread,
        "noise_curvature_mean": Normal(math.log(d_half * (1 - least) / constant), 0.7),
        "noise_curvature_spread": spread,
        # logit of the power of D in the effective tokens, where runs differ in D: the law has 1
        "fade": Normal(2.0, 1.5),
        # logit of H as a fraction of the smallest N: three swarms with weights of 0 have it at
        # -3.9, -5.1 and -6.3. Where none has, it says what a domain costs that is left out
        "floor": Normal(-5.0, 1.2),
        # logit of tau one spread above the middle, and the spread: about 0.08 in the middle
        "tau_kin": Normal(_logit(0.25), 0.7),
        "tau_spread": LogNormal(math.log(1.3), 0.3),
        # log of the scale of the noise in log loss, shared part and own: 0.2% to 2% are seen
        "sigma_mean": Normal(math.log(0.006), 0.8),
        "sigma_spread": spread,
        # log of the scale of log loss of a domain that the mixture leaves out
        "unseen_mean": Normal(math.log(0.01), 1.0),
        "unseen_spread": LogNormal(0.0, 0.4),
        # spread of the log of the loss at weights printed as 0, less the law's at half the
        # resolution: an elasticity of 0.1 times the log of how far the weight is from that
        "zero_spread": LogNormal(math.log(0.12), 0.3),
        # scale per unit of doubt in the log of a printed weight: the loss's elasticity, on the
        # exponents' logit scale
        "printed_mean": Normal(_logit(0.05 / EXPONENT_MAX), 0.7),
        "printed_spread": spread,
        # degrees of freedom of the noise beyond LEAST_DOF; of domains that a mixture leaves out
        "dof_excess": Gamma(2.0, 0.1),
        "dof_unseen": Gamma(2.0, 0.1),
        # log of what all components of a run share, over sigma: it may be next to nothing. A
        # wide spread would let one component be the shared effect itself, without noise of its own
        "common_mean": Normal(math.log(0.3), 1.0),
        "common_spread": LogNormal(math.log(0.15), 0.3),
        # mean of the log of how much wider the errors of a run are: next to nothing for most. A run
        # whose record is wrong, or that memorised, shall not make the noise of all heavy-tailed
        "outlier_scale": LogNormal(math.log(0.05), 0.3),
        # the law's misfit over scales, in log loss: of a new (N, D); for an e-fold of tokens to go
        # (`benchmarks/misfit.py` finds 0.004 to 0.022 and 0 to 0.020 on four swarms); of the law's
        # slopes in one e-fold beyond the data
        "offset_scale": LogNormal(math.log(0.004), 1.0),
        "transient_scale": LogNormal(math.log(0.006), 0.7),
        "bend_scale": LogNormal(math.log(0.004), 0.8),
        # and of the law's slope where all runs are of one N, or of one D, in log loss an e-fold:
        # `benchmarks/slopes.py` finds 0 to 0.06 for N on three labs' swarms, and for D on one of
        # them 0.06 to 0.15
        # a light tail: a slope off by 0.4 for 7 e-folds would be the mean of all draws
        "slope_scale": Gamma(1.5, 45.0),
        # logit of its correlation over components
        "discrepancy_correlation": Normal(0.5, 1.0),
        # logit of the share of sigma^2 that repeated runs have in common: misfit, not seed
        "misfit_share": Normal(0.0, 1.5),
        # logit of the correlation of a run's checkpoints, domain by domain
        "checkpoint_correlation": Normal(1.0, 1.0),
    }


def replace_priors(defaults: Mapping[str, Prior], new: Mapping[str, Prior] | None):
    """The defaults with some replaced by name.

    Raises
    ------
    ValueError
        If a name is unknown (the message lists the valid ones), a value is no prior, or one of its
        numbers is not finite or, but for `mu`, not positive.

    Examples
    --------
    >>> replace_priors({"g": Normal(0.0, 1.0)}, {"g": Normal(0.0, 2.0)})
    {'g': Normal(mu=0.0, sigma=2.0)}
    """
    new = dict(new or {})
    unknown = sorted(set(new) - set(defaults))
    if unknown:
        raise ValueError(
            f"unknown prior {', '.join(map(repr, unknown))}; valid names: {', '.join(defaults)}"
        )
    for name, prior in new.items():
        if not isinstance(prior, Prior):
            raise ValueError(f"prior {name!r} must be Normal, LogNormal or Gamma, got {prior!r}")
        for part, value in vars(prior).items():
            number = isinstance(value, Real) and math.isfinite(value)
            if not number or (part != "mu" and value <= 0):
                wanted = "finite" if part == "mu" else "positive and finite"
                raise ValueError(f"prior {name!r}: {part} must be {wanted}, got {value!r}")
    return {**defaults, **new}
