"""Swarms drawn from the law, from the model's prior, or from a rival law, with stated truth.

A swarm is drawn in three steps that can be taken apart: a design (`draw_design`: which mixtures,
sizes and checkpoints), the truth (`draw_parameters`, or the prior), and noisy losses (`observe`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import expit

from bayesmix import law as laws
from bayesmix._design import draw_design, stream
from bayesmix.discrepancy import scales
from bayesmix.draws import law_draws, losses_at_rows
from bayesmix.model import components, repeats, run_trend, weight_doubt
from bayesmix.noise import UNSEEN, at_printed_zeros
from bayesmix.prior_predictive import prior_fit
from bayesmix.priors import Prior
from bayesmix.reference import reference
from bayesmix.runs import Runs, runs_from_frame

__all__ = [
    "Simulated",
    "draw_design",
    "draw_parameters",
    "observe",
    "simulate",
    "simulate_additive",
    "simulate_from_prior",
]


@dataclass(frozen=True)
class Simulated:
    """A swarm whose truth is known.

    Attributes
    ----------
    runs : Runs
        The swarm, noise in its losses.
    parameters : Dataset
        The truth, named as in a posterior, with dims ``component`` (domains, then
        ``target:<name>``), ``domain`` and ``source``.
    losses : DataArray
        Losses without noise, nats per token; dims ``row``, ``component``.
    """

    runs: Runs
    parameters: xr.Dataset
    losses: xr.DataArray


def draw_parameters(
    domains: Sequence[str],
    *,
    law: str = "transfer",
    targets: Sequence[str] = (),
    n_params: float = 1e8,
    n_tokens: float = 2e9,
    noise: float = 0.004,
    dof: float = 5.0,
    rho: float = 0.5,
    seed: int = 0,
) -> xr.Dataset:
    """Believable parameters of the law, with losses of about 1.5 to 3.5 nats per token.

    Parameters
    ----------
    domains : sequence of str
        Names.
    law : str
        A name in `bayesmix.law.LAWS`; parameters that it lacks are left out.
    targets : sequence of str
        Evaluation losses that are not training domains.
    n_params, n_tokens : float
        N (parameters) and D (tokens) of a typical run of the swarm.
    noise : float
        Scale of the Student-t noise in log loss, of every component.
    dof : float
        Its degrees of freedom.
    rho : float
        Correlation of a run's checkpoints, component by component.
    seed : int
        The same seed gives the same parameters.

    Returns
    -------
    Dataset
        The names in `bayesmix.law.PARAMETERS`, and ``sigma``, ``dof``, ``rho``.

    Examples
    --------
    >>> draw_parameters(["web", "code"], law="quantization").sizes
    Frozen({'component': 2, 'domain': 2})
    """
    variant = laws.variant(law)
    rng = stream(seed, "parameters")
    n_domains, n_targets = len(domains), len(targets)
    n_components = n_domains + n_targets
    level = rng.uniform(1.6, 3.4, n_components)
    # capacity, noise, the two halves of the head, and what is left is irreducible
    shares = rng.dirichlet([5.0, 3.0, 3.0, 2.0, 27.0], n_components).T * level
    capacity, data_noise, head_n, head_d, E = shares
    E[n_domains:] += capacity[n_domains:]
    b = rng.uniform(0.15, 0.55, n_domains)
    a = rng.uniform(0.15, 0.5, n_components)
    g, q = rng.uniform(0.2, 0.45, 2)
    tau = np.eye(n_domains)
    if variant.transfer:
        tau = np.maximum(tau, expit(rng.normal(-2.5, 1.3, tau.shape)))
    tau = np.concatenate([tau, rng.dirichlet(np.ones(n_domains), n_targets)])
    log_t = np.log(n_tokens * tau.mean(axis=1))
    values: dict[str, tuple] = {
        "E": ("component", E),
        # at the typical run every domain has about its share of the parameters
        "log_c": ("domain", np.log(capacity[:n_domains]) + b * np.log(n_params / n_domains)),
        "b": ("domain", b),
        "log_H": ((), np.log(1e-3 * n_params)),
        "sigma": ("component", np.full(n_components, noise)),
        "dof": ((), dof),
        "rho": ((), rho),
    }
    if variant.noise:
        values["log_A"] = ("component", np.log(data_noise) + a * log_t)
        values["a"] = ("component", a)
    if variant.transfer or n_targets:
        values["tau"] = (("component", "source"), tau)
    if variant.head:
        values["log_G"] = ("component", np.log(head_n) + g * np.log(n_params))
        values["g"] = ((), g)
        values["log_Q"] = ("component", np.log(head_d) + q * np.log(n_tokens))
        values["q"] = ((), q)
    names = [*domains, *(f"target:{name}" for name in targets)]
    sources = {"source": list(domains)} if "tau" in values else {}
    return xr.Dataset(values, {"component": names, "domain": list(domains), **sources})


def observe(
    design: Runs, parameters: xr.Dataset, *, law: str = "transfer", seed: int = 0
) -> Simulated:
    """Losses of a design under known parameters, with the model's noise.

    Parameters
    ----------
    design : Runs
        Its losses are ignored.
    parameters : Dataset
        As from `draw_parameters`, for the design's domains and targets.
    law : str
        A name in `bayesmix.law.LAWS`.
    seed : int
        Of the noise.

    Returns
    -------
    Simulated
        Infinite losses (those of ``regression`` at weight 0) are blank in its runs.

    Raises
    ------
    ValueError
        If the parameters are of other components.

    Examples
    --------
    >>> design = draw_design(["web", "code"], [5e7, 2e8])
    >>> truth = draw_parameters(design.domains, noise=0.002)
    >>> observe(design, truth).losses.sizes
    Frozen({'row': 40, 'component': 2})
    """
    names = components(design)
    if tuple(parameters["component"].values) != names:
        raise ValueError(
            f"the parameters are of {', '.join(parameters['component'].values)}; the design has "
            f"{', '.join(names)}"
        )
    one = law_draws(parameters.expand_dims(chain=1, draw=1))
    return with_noise(design, losses_at_rows(design, one, law)[0], parameters, seed)


def simulate(
    domains: Sequence[str] | int,
    sizes: Sequence[float],
    *,
    tokens_per_parameter: float = 20.0,
    tokens: Sequence[float] | None = None,
    n_mixtures: int | Sequence[int] = 20,
    concentration: float = 1.0,
    zeros: float = 0.0,
    checkpoints: int = 1,
    targets: Sequence[str] = (),
    parameters: xr.Dataset | None = None,
    law: str = "transfer",
    noise: float = 0.004,
    dof: float = 5.0,
    rho: float = 0.5,
    seed: int = 0,
) -> Simulated:
    """Draw a swarm from the law: `draw_design`, `draw_parameters` and `observe` in one call.

    Parameters
    ----------
    domains, sizes, tokens_per_parameter, tokens, n_mixtures, concentration, zeros, checkpoints :
        Of the design; see `draw_design`.
    targets : sequence of str
        Evaluation losses that are not training domains.
    parameters : Dataset, optional
        The truth, ``sigma``, ``dof`` and ``rho`` included; drawn by default.
    law : str
        A name in `bayesmix.law.LAWS`.
    noise, dof, rho : float
        Of the noise, when parameters are drawn; see `draw_parameters`.
    seed : int
        The same seed gives the same swarm.

    Returns
    -------
    Simulated

    Examples
    --------
    >>> simulate(["web", "code"], [5e7, 2e8], n_mixtures=10).runs.n_runs
    20
    """
    design = draw_design(
        domains,
        sizes,
        tokens_per_parameter=tokens_per_parameter,
        tokens=tokens,
        n_mixtures=n_mixtures,
        concentration=concentration,
        zeros=zeros,
        checkpoints=checkpoints,
        targets=targets,
        seed=seed,
    )
    if parameters is None:
        typical = reference(design)
        parameters = draw_parameters(
            design.domains,
            law=law,
            targets=targets,
            n_params=typical.n_params,
            n_tokens=typical.n_tokens,
            noise=noise,
            dof=dof,
            rho=rho,
            seed=seed,
        )
    return observe(design, parameters, law=law, seed=seed)


def simulate_from_prior(
    design: Runs,
    n: int = 1,
    *,
    law: str = "transfer",
    priors: Mapping[str, Prior] | None = None,
    seed: int = 0,
) -> list[Simulated]:
    """Draw swarms whose truth is the model's own prior.

    Intervals should be exact, but for bends of the misfit, whose scale is asked after the fit.

    Levels are drawn around the medians of the design's losses; a fit centres them on those it sees,
    which differ, but then it knows levels far better than their prior.

    Parameters
    ----------
    design : Runs
        Of its losses only the medians are used.
    n : int
        How many swarms.
    law : str
        A name in `bayesmix.law.LAWS`.
    priors : mapping, optional
        Replacements for the default priors, by name.
    seed : int
        The same seed gives the same swarms.

    Returns
    -------
    list of Simulated
        Parameters hold all that a posterior keeps, hyper-parameters and noise included.

    Examples
    --------
    >>> design = draw_design(["web", "code"], [5e7, 2e8], n_mixtures=5)
    >>> [swarm] = simulate_from_prior(design)
    >>> sorted(set(laws.PARAMETERS) - set(swarm.parameters))
    []
    """
    drawn = prior_fit(design, law, priors, draws=n, seed=seed)
    truth = drawn.posterior["posterior"].to_dataset().isel(chain=0)
    seeds = np.random.SeedSequence(seed).generate_state(n)
    return [observe(design, truth.isel(draw=k), law=law, seed=int(seeds[k])) for k in range(n)]


def simulate_additive(
    design: Runs, *, noise: float = 0.004, dof: float = 5.0, rho: float = 0.5, seed: int = 0
) -> Simulated:
    """Draw a swarm from the additive law, to see how a fit fares when the law is another.

    Shukor et al., arXiv 2507.09404::

        L_i = E_i + 1 / sum_j C_ij h_j^gamma_ij + A_i / N^alpha_i + B_i / D^beta_i

    Parameters
    ----------
    design : Runs
        Its losses are ignored.
    noise, dof, rho : float
        As in `draw_parameters`.
    seed : int
        The same seed gives the same swarm.

    Returns
    -------
    Simulated
        Parameters ``E, C, gamma, A, alpha, B, beta, sigma, dof, rho``.

    Examples
    --------
    >>> simulate_additive(draw_design(["web", "code"], [5e7, 2e8])).runs.n_runs
    40
    """
    rng = stream(seed, "parameters")
    names, n_domains = components(design), len(design.domains)
    n = len(names)
    typical = reference(design)
    level = rng.uniform(1.6, 3.4, n)
    mixture, of_size, of_data, E = rng.dirichlet([8.0, 5.0, 5.0, 22.0], n).T * level
    own = np.eye(n, n_domains)
    C = rng.uniform(0.05, 0.3, (n, n_domains)) + own
    gamma = rng.uniform(0.1, 0.6, (n, n_domains))
    # so that the term has its share of the level at the uniform mixture
    C /= (C * n_domains**-gamma).sum(axis=1, keepdims=True) * mixture[:, None]
    alpha, beta = rng.uniform(0.2, 0.45, (2, n))
    A, B = of_size * typical.n_params**alpha, of_data * typical.n_tokens**beta
    each, pair = "component", ("component", "source")
    parameters = xr.Dataset(
        {
            "E": (each, E),
            "C": (pair, C),
            "gamma": (pair, gamma),
            "A": (each, A),
            "alpha": (each, alpha),
            "B": (each, B),
            "beta": (each, beta),
            "sigma": (each, np.full(n, noise)),
            "dof": ((), dof),
            "rho": ((), rho),
        },
        {"component": list(names), "source": list(design.domains)},
    )
    h = design.effective_weights().values[:, None, :]
    size, horizon = design.n_params.values[:, None], design.n_tokens.values[:, None]
    losses = E + 1 / (C * h**gamma).sum(axis=2) + A * size**-alpha + B * horizon**-beta
    return with_noise(design, losses, parameters, seed)


def with_noise(design: Runs, losses: np.ndarray, parameters: xr.Dataset, seed: int) -> Simulated:
    """Student-t noise in log loss; a run's checkpoints share its scale, and have correlation rho.

    The checkpoints of a run and component are multivariate t with the scale matrix
    ``sigma_i^2 ((1 - rho) I + rho 1 1')``, as in the model; ``phi`` (the correlation of runs of one
    mixture and N, which share a scale too), ``common`` (what the components of a run share),
    ``offset`` (of the design's own cells), ``outlier_scale`` and ``zero_shift`` come where the
    parameters have them.
    """
    rng = stream(seed, "noise")
    ids, run = np.unique(design.run_ids.values, return_inverse=True)
    n_components = losses.shape[1]
    if "zero_shift" in parameters:
        shift = parameters["zero_shift"].values[None]
        factor = at_printed_zeros(shift, design.weights.values, design.weight_resolution)
        losses = (losses[None] * factor)[0]
    phi = float(parameters["phi"]) if "phi" in parameters else 0.0
    rho = float(parameters["rho"]) if "rho" in parameters else phi
    group = repeats(design) if "phi" in parameters else run
    dof = np.full(losses.shape, float(parameters["dof"]))
    doubt = weight_doubt(design.weights.values, design.weight_resolution, n_components)
    if "dof_unseen" in parameters:
        dof[doubt == UNSEEN] = float(parameters["dof_unseen"])
    # all rows of a run, and of a group, have one mixture
    dof = dof[np.unique(group, return_index=True)[1]]
    shared = rng.normal(size=(ids.size, n_components))[run]
    own = rng.normal(size=losses.shape)
    scale = np.sqrt(dof / rng.chisquare(dof))[group]
    sigma = parameters["sigma"].values
    for name, where in (("sigma_weight", doubt != UNSEEN), ("sigma_unseen", doubt == UNSEEN)):
        if name in parameters:
            sigma = np.hypot(sigma, parameters[name].values * doubt * where)
    error = np.sqrt(rho - phi) * shared + np.sqrt(1 - rho) * own
    if "phi" in parameters:
        error += np.sqrt(phi) * rng.normal(size=dof.shape)[group]
    error *= sigma * scale
    if "outlier_scale" in parameters:
        wider = float(parameters["outlier_scale"]) * rng.exponential(size=(ids.size, 1))
        error *= np.exp(wider)[run]
    if "common" in parameters:
        effect = rng.normal(size=(ids.size, 1))
        if "offset" in parameters:  # a swarm as it is fitted: effects have no trend in it
            trend = run_trend(design)
            effect -= trend @ (trend.T @ effect)
        error += parameters["common"].values * effect[run]
    if "offset" in parameters:
        error += parameters["offset"].values[scales(design).row_cell]
    with np.errstate(over="ignore", invalid="ignore"):
        observed = losses * np.exp(error)
    # the law can be infinite at weight 0, and so can t noise with next to no degrees of freedom
    observed = np.where(np.isfinite(observed) & (observed > 0), observed, np.nan)
    columns = [f"loss_{name}" for name in design.domains]
    columns += [f"target_{name}" for name in design.targets]
    frame = design.frame
    frame = frame[[c for c in frame if not str(c).startswith(("loss_", "target_"))]]
    frame = pd.concat([frame, pd.DataFrame(observed, columns=columns)], axis=1)
    runs = runs_from_frame(frame, source="simulated", weight_resolution=design.weight_resolution)
    noiseless = xr.DataArray(
        losses,
        dims=("row", "component"),
        coords={"run_id": ("row", design.run_ids.values), "component": list(components(design))},
        attrs={"units": "nats per token"},
    )
    return Simulated(runs, parameters, noiseless)
